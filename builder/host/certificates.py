"""Which certificates are trusted, by package indexes and registries alike. Imports next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder.host.pip_settings import pip_values

# Where distributions keep the system's bundle: the list of Go's crypto/x509 (root_linux.go), and Homebrew's.
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/ca-certificates/cert.pem",
)
_VARIABLES = ("TRAINPACK_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def ca_bundle(environ: Mapping[str, str]) -> Path | None:
    """The certificates to trust, as a PEM file: the one that the user names, else the system's."""
    named = [environ.get(name) for name in _VARIABLES]
    for candidate in (*named, pip_values(environ).get("cert"), *_SYSTEM_BUNDLES):
        if candidate and Path(candidate).expanduser().is_file():
            return Path(candidate).expanduser()
    return None
