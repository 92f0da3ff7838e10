# cpu base for Python 3.11, from the upstream image.
# operating system
FROM python:3.11-slim-bookworm AS os
# Versions are the mirror's of the day: the base's digest records what they were.
# packages
# hadolint ignore=DL3008
RUN --mount=type=secret,id=apt-sources --mount=type=secret,id=apt-options --mount=type=secret,id=ca \
    set -- -o Acquire::Retries=3 \
    && if [ -s /run/secrets/ca ]; then set -- "$@" -o Acquire::https::CAInfo=/run/secrets/ca; fi \
    && if [ -s /run/secrets/apt-options ]; then set -- "$@" -c /run/secrets/apt-options; fi \
    && if [ -s /run/secrets/apt-sources ]; then \
        set -- "$@" -o Dir::Etc::SourceList=/run/secrets/apt-sources -o Dir::Etc::SourceParts=-; \
    fi \
    && apt-get "$@" update \
    && DEBIAN_FRONTEND=noninteractive apt-get "$@" install -y --no-install-recommends ca-certificates netbase tini tzdata
# What trains needs neither installers nor a place to write but /workspace, whoever it runs as. Byte code that is
# never checked against its source stays valid when time stamps are evened out.
# contract
RUN python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and sys.version)' \
    && ln -sf python3 "$(dirname "$(command -v python3)")/python" \
    && rm -rf /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/lib/python3*/ensurepip \
        /usr/local/lib/python3*/site-packages/* \
    && find / -xdev -type d -name __pycache__ -prune -exec rm -rf {} + \
    && PYTHONHASHSEED=0 python3 -m compileall -q -x '/(test|lib2to3/tests)/' --invalidation-mode unchecked-hash \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && find /run /tmp /var/tmp /var/log /var/lib/apt/lists ! -type d -delete \
    && find /var/cache ! -type d ! -path '/var/cache/debconf/*.dat' -delete \
    && rm -rf /run/secrets /var/lib/apt/lists/partial /var/cache/apt/archives/partial /root/.cache \
        /etc/.pwd.lock /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- \
    && echo 'trainpack:x:1000:1000::/workspace:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'trainpack:x:1000:' >> /etc/group \
    && find / -xdev ! -type l ! -type c ! -user root -exec chown root {} + \
    && find / -xdev ! -type l ! -type c -perm /6022 -exec chmod ug-s,go-w,-t {} + \
    && mkdir -m 1777 /workspace \
    && find / -xdev \( -path /dev -o -path /proc -o -path /sys -o -path /etc/hosts -o -path /etc/resolv.conf \) \
        -prune -o -newermt @1735689600 -exec touch -hcd @1735689600 {} +

# One layer, so that what was removed above is in none.
FROM scratch
# one layer
# hadolint ignore=DL3067
COPY --from=os / /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
LABEL io.trainpack.base=cpu \
    io.trainpack.base.python=3.11 \
    io.trainpack.base.source=upstream
# working directory
WORKDIR /workspace
USER 1000:1000
CMD ["python3"]
