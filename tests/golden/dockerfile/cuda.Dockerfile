# Rendered by trainpack 0.1.0 from trainpack.toml: edit that, not this.

# base
FROM trainpack-base:cuda-py3.11-0123456789ab

USER 0

# Python environments
COPY environments/ /

# heavy wheels
RUN --mount=type=bind,source=bin/uv,target=/run/trainpack/uv \
    --mount=type=bind,source=locks/heavy,target=/run/trainpack/heavy \
    --mount=type=cache,id=trainpack-uv,target=/var/cache/uv \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=netrc \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    if [ -s /run/secrets/netrc ]; then export NETRC=/run/secrets/netrc; fi; \
    export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH; \
    /run/trainpack/uv pip install --no-config --quiet --preview-features pylock --no-deps --no-build --require-hashes \
    --compile-bytecode --python /opt/venv/bin/python --requirement /run/trainpack/heavy/pylock.toml && \
    rm -f /opt/venv/.lock

# light wheels
RUN --mount=type=bind,source=bin/uv,target=/run/trainpack/uv \
    --mount=type=bind,source=locks/light,target=/run/trainpack/light \
    --mount=type=cache,id=trainpack-uv,target=/var/cache/uv \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=netrc \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    if [ -s /run/secrets/netrc ]; then export NETRC=/run/secrets/netrc; fi; \
    export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH; \
    /run/trainpack/uv pip install --no-config --quiet --preview-features pylock --no-deps --no-build --require-hashes \
    --compile-bytecode --python /opt/venv/bin/python --requirement /run/trainpack/light/pylock.toml && \
    rm -f /opt/venv/.lock

# the entrypoint's own environment
RUN --mount=type=bind,source=bin/uv,target=/run/trainpack/uv \
    --mount=type=bind,source=locks/tools,target=/run/trainpack/tools \
    --mount=type=cache,id=trainpack-uv,target=/var/cache/uv \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=netrc \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi; \
    if [ -s /run/secrets/netrc ]; then export NETRC=/run/secrets/netrc; fi; \
    export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH; \
    /run/trainpack/uv pip install --no-config --quiet --preview-features pylock --no-deps --no-build --require-hashes \
    --compile-bytecode --python /opt/trainpack/bin/python --requirement /run/trainpack/tools/pylock.toml && \
    rm -f /opt/trainpack/.lock

# the entrypoint
RUN --mount=type=bind,source=entrypoint,target=/run/trainpack/entrypoint \
    cp -R /run/trainpack/entrypoint/. / && \
    python3 -m compileall -q --invalidation-mode unchecked-hash \
    /opt/trainpack/lib/python3.11/site-packages/trainpack_entrypoint \
    /opt/venv/lib/python3.11/site-packages/trainpack.py

ENV NVIDIA_REQUIRE_CUDA="driver>=580" \
    PATH="/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    VIRTUAL_ENV="/opt/venv" \
    architecture="resnet18"

LABEL io.trainpack.base="cuda" \
      io.trainpack.contract="1" \
      io.trainpack.cuda="13.0" \
      io.trainpack.driver="580.65.06" \
      io.trainpack.lock="cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" \
      io.trainpack.model-version="pedestrian/v3" \
      io.trainpack.version="0.1.0" \
      org.opencontainers.image.base.digest="sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" \
      org.opencontainers.image.base.name="trainpack-base:cuda-py3.11-0123456789ab" \
      org.opencontainers.image.revision="ffffffffffffffffffffffffffffffffffffffff" \
      org.opencontainers.image.title="pedestrian" \
      org.opencontainers.image.version="1.2.0" \
      io.trainpack.plan="3d4ff83f22dd9932a2c2f4959c01f084bd8243cc5486b306ebdd262fd5ba82d8"

# code and manifest
COPY app/ /

USER 1000:1000
# working directory
WORKDIR /workspace
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/opt/trainpack/bin/python", "-I", "-m", "trainpack_entrypoint"]
