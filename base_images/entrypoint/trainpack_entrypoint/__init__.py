"""The entrypoint of a training image: standard library only until a platform is configured.

The host imports `schema` and `manifest` from here, so that what is declared and what is enforced in the
container are the same code.
"""
