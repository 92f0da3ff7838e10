"""A client of the OCI distribution API: pull, push, referrers.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md.
"""
