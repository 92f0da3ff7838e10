"""What trainpack needs of a machine, looked at.

Each finding has a message and, where something is wrong, a remedy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from builder import bases, engine
from builder.errors import ImageNotFoundError, TrainpackError
from builder.host import apt
from builder.host.certificates import ca_bundle
from builder.host.credentials import load_credentials
from builder.host.package_index import index_settings, redact
from builder.records import Record
from builder.reference import Reference
from builder.spec import FILE, load_spec, own_base

# A torch image with its CUDA wheels unpacks to about 6 GB, and a build holds it twice for a while.
ENOUGH_DISK_BYTES = 15_000_000_000
# The image architectures that an engine runs natively, by the names that it reports.
_PLATFORMS = {
    "x86_64": "linux/amd64",
    "amd64": "linux/amd64",
    "aarch64": "linux/arm64",
    "arm64": "linux/arm64",
}
_ASK_ENGINE = ("platform", "disk")


class Finding(Record):
    """What was found about one thing.

    Attributes:
        status: `failed`: something needed does not work; `warning`: some uses of trainpack will not.
        message: What was met; never a secret.
        remedy: What to do about it; empty when there is nothing to do.
    """

    name: str
    status: Literal["ok", "warning", "failed"]
    message: str
    remedy: str = ""


def examine(folder: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything; the registry of `folder`'s image is asked only where there is a trainpack.toml."""
    checks: dict[str, Callable[[], Finding]] = {
        "engine": find_engine,
        "platform": find_platform,
        "disk": find_disk,
        "base": lambda: find_base(environ),
        "buildkit": find_buildkit,
        "package index": lambda: find_index(environ),
        "ca bundle": lambda: find_ca(environ),
        "picsellia": lambda: find_credentials(environ),
    }
    if (folder / FILE).is_file():
        checks["base"] = lambda: find_project_base(folder, environ)
        checks["registry"] = lambda: find_registry(folder)
    first = _examine("engine", checks.pop("engine"))
    if first.status == "failed":
        checks = {name: check for name, check in checks.items() if name not in _ASK_ENGINE}
    return [first, *(_examine(name, check) for name, check in checks.items())]


def find_engine() -> Finding:
    """Whether a container engine answers."""
    version = engine.client().version()["Version"]
    return Finding(name="engine", status="ok", message=f"{version} answers at {engine.endpoint()}")


def find_buildkit() -> Finding:
    """Which docker command line drives BuildKit."""
    return Finding(name="buildkit", status="ok", message=f"driven by {engine.buildkit_cli()}")


def find_platform() -> Finding:
    """Whether the default platform runs natively."""
    reported = str(engine.client().info()["Architecture"])
    if _PLATFORMS.get(reported) == "linux/amd64":
        return Finding(name="platform", status="ok", message="linux/amd64 runs natively")
    return Finding(
        name="platform",
        status="warning",
        message=f"the engine is {reported}: linux/amd64, the default platform, runs emulated, or not at all",
        remedy="turn on the engine's amd64 emulation, or set `platform` in [image] where GPUs are on arm64",
    )


def find_disk() -> Finding:
    """Whether the engine has room for a big image."""
    root = Path(engine.client().info()["DockerRootDir"])
    if not engine.is_local() or not root.is_dir():
        return Finding(name="disk", status="ok", message="the engine's disk cannot be seen from here")
    free = shutil.disk_usage(root).free
    message = f"{free / 1e9:.0f} GB free for the engine in {root}"
    if free >= ENOUGH_DISK_BYTES:
        return Finding(name="disk", status="ok", message=message)
    return Finding(
        name="disk",
        status="warning",
        message=f"{message}; an image with CUDA wheels needs up to {ENOUGH_DISK_BYTES / 1e9:.0f} GB",
        remedy="`docker system df` shows what takes it; `docker builder prune` frees the build cache",
    )


def find_base(environ: Mapping[str, str]) -> Finding:
    """Whether the CPU base is there, or how it can be made; no mirror is asked."""
    from builder.bases.debian import why_not_debian  # noqa: PLC0415

    recipe = bases.find_recipe("cpu", "3.11", "linux/amd64")
    base = bases.resolve_base("cpu", "3.11", "linux/amd64")
    if base.image_id:
        return Finding(name="base", status="ok", message=f"{base.reference} is built")
    problem = why_not_debian(recipe, environ)
    if problem is None:
        return Finding(name="base", status="ok", message="not built yet; Debian's packages can be unpacked")
    upstream = bases.upstream_reference(recipe.origin, environ)
    reason = bases.why_not_upstream(upstream)
    if reason is None:
        return Finding(name="base", status="ok", message=f"not built yet; {upstream} can be had")
    return Finding(
        name="base",
        status="failed",
        message=f"{upstream} cannot be had: {reason}; and Debian's packages cannot be unpacked: {problem}",
        remedy=f"set {bases.UPSTREAM_PREFIX} to a mirror of the registry; or {apt.MIRROR} to one of Debian, "
        "with gpgv and debian-archive-keyring installed",
    )


def find_project_base(folder: Path, environ: Mapping[str, str]) -> Finding:
    """Whether the project's base is there, where it is one of the user's own; its place is asked."""
    image = load_spec(folder).image
    own = own_base(image.base)
    if own is None:
        return find_base(environ)
    base = bases.resolve_own(own.within(folder), image.python, image.platform)
    message = f"{base.origin} is a base with Python {base.python} for {base.platform}"
    return Finding(name="base", status="ok", message=message)


def find_index(environ: Mapping[str, str]) -> Finding:
    """Where packages come from; nothing is asked of it."""
    settings = index_settings(environ)
    places = ", ".join(redact(address) for address in settings.addresses) or "uv's default index"
    return Finding(name="package index", status="ok", message=f"{places} ({settings.source} settings)")


def find_ca(environ: Mapping[str, str]) -> Finding:
    """Which certificates builds trust."""
    bundle = ca_bundle(environ)
    if bundle:
        return Finding(name="ca bundle", status="ok", message=str(bundle))
    return Finding(
        name="ca bundle",
        status="warning",
        message="none found: builds trust public certificates only",
        remedy="behind a proxy that intercepts TLS, set SSL_CERT_FILE to the company's bundle",
    )


def find_credentials(environ: Mapping[str, str]) -> Finding:
    """Whether there are Picsellia credentials; the platform is not asked, `whoami` does."""
    try:
        credentials = load_credentials(environ)
    except TrainpackError as error:
        return Finding(name="picsellia", status="warning", message=str(error), remedy=error.remedy or "")
    return Finding(
        name="picsellia", status="ok", message=f"a token for {credentials.host}, from {credentials.source}"
    )


def find_registry(folder: Path) -> Finding:
    """Whether the registry of the project's image answers, with the engine's login."""
    from builder.oci.remote.pull import RegistryClient  # noqa: PLC0415  (only where there is a project)

    image = load_spec(folder).image
    # A registry that does not have this tag answers all the same.
    with suppress(ImageNotFoundError):
        RegistryClient(Reference(image.name, image.version), image.platform).digest()
    return Finding(name="registry", status="ok", message=f"answers for {image.name}")


def _examine(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except TrainpackError as error:
        return Finding(name=name, status="failed", message=redact(str(error)), remedy=error.remedy or "")
    except OSError as error:
        return Finding(
            name=name, status="failed", message=f"{error.strerror or error}: {error.filename or name}"
        )
