# Debian's image registry, on a base of ours that has its package, so that tests need no other image.
ARG BASE
# hadolint ignore=DL3006
FROM ${BASE}
COPY services/registry.yml /etc/docker/registry/config.yml
USER 1000:1000
ENTRYPOINT ["docker-registry", "serve", "/etc/docker/registry/config.yml"]
