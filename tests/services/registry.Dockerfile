# Debian's image registry on a base of ours, so that tests need no other image.
ARG BASE
# hadolint ignore=DL3006
FROM ${BASE}
USER 0
# hadolint ignore=DL3008
RUN --mount=type=secret,id=apt-sources \
    set -- -o APT::Sandbox::User=root \
    && if [ -s /run/secrets/apt-sources ]; then \
        set -- "$@" -o Dir::Etc::SourceList=/run/secrets/apt-sources -o Dir::Etc::SourceParts=-; \
    fi \
    && apt-get "$@" update \
    && apt-get "$@" install -y --no-install-recommends docker-registry \
    && rm -rf /var/lib/apt/lists/*
COPY services/registry.yml /etc/docker/registry/config.yml
USER 1000:1000
ENTRYPOINT ["docker-registry", "serve", "/etc/docker/registry/config.yml"]
