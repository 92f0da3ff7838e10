"""Base images: looked up in the engine, and built where they are missing.

The operating system comes from the upstream image of the catalogue where its registry answers, else from
Debian's mirror through mmdebstrap; one Dockerfile template makes the same base of either.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import jinja2
import platformdirs
from pydantic import Field
from trainpack_entrypoint.schema import close_match

from builder import apt, data
from builder.builders.buildkit import run_build
from builder.builders.progress import tell
from builder.errors import BuildError, EngineUnavailableError, UsageError
from builder.package_index import ca_bundle, redact
from builder.plan import LABEL, Base
from builder.records import Record
from builder.workdir import write_atomically

Source = Literal["auto", "upstream", "debian"]
Say = Callable[[str], None]
Entry = TypeVar("Entry")

REPOSITORY = "trainpack-base"
UNBUILT = "unbuilt"
UPSTREAM_PREFIX = "TRAINPACK_UPSTREAM_PREFIX"
CACHE = "TRAINPACK_CACHE"
_TAIL = 20
_WIDTH = 110

# Documentation but licences, and translations: what slim images leave out, of packages added later too.
_SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
)
# What a bootstrap leaves of the machine it ran on. Device nodes are the runtime's to make, and a rootless
# engine cannot unpack them.
_HOST_TRACES = re.compile(
    r"\./(dev/.+|etc/(hosts|resolv\.conf|hostname)|etc/apt/sources\.list(\.d/.+)?|etc/apt/apt\.conf\.d/\d+mmdebstrap)"
)
# Where they are missing, a build step makes and removes them, which leaves the day's time on their folder.
_MOUNT_POINTS = ("./etc/hosts", "./etc/resolv.conf")


class BaseEntry(Record):
    """A base of the catalogue: what it is for, and the environment it sets."""

    summary: str
    env: dict[str, str] = Field(default_factory=dict)


class PythonEntry(Record):
    """Where a Python comes from.

    Attributes:
        upstream: The image reference of the upstream image, without its registry.
        digest: `sha256:…`, which pins the upstream image.
        suite: The Debian release whose python3 it is; None when there is none.
        glibc: The lower version of both ways: it decides which manylinux wheels can be installed.
        packages: The Debian packages of the interpreter and its whole standard library.
    """

    upstream: str
    digest: str | None = None
    suite: str | None = None
    glibc: str
    packages: tuple[str, ...] = ()

    @property
    def upstream_suite(self) -> str:
        """The Debian release of the upstream image, which its tag ends in."""
        return self.upstream.rpartition("-")[2]


class Catalogue(Record):
    """The bases that can be built, by name and Python: `base_images/catalogue.toml`, which says more."""

    revision: int
    epoch: int
    packages: tuple[str, ...]
    base: dict[str, BaseEntry]
    python: dict[str, PythonEntry]


class Recipe(Record):
    """Everything that decides a base's content, but for the versions that a mirror serves on the day."""

    name: str
    python: str
    platform: str
    revision: int
    epoch: int
    packages: tuple[str, ...]
    base: BaseEntry
    origin: PythonEntry
    template: str

    @property
    def reference(self) -> str:
        """`trainpack-base:<name>-py<python>-<12 hex of the recipe>`, a local tag."""
        return f"{REPOSITORY}:{self.name}-py{self.python}-{_digest(self.model_dump_json() + self.rootfs)}"

    @property
    def rootfs(self) -> str:
        """The file name of the bootstrapped operating system, which bases of the same Python share."""
        parts = (
            self.origin.suite,
            self.debian_packages,
            self.architecture,
            self.revision,
            self.epoch,
            _SLIM,
            _MOUNT_POINTS,
        )
        return f"rootfs-{self.origin.suite}-{self.architecture}-{_digest(repr(parts))}.tar"

    @property
    def debian_packages(self) -> tuple[str, ...]:
        """What a bootstrap installs."""
        return tuple(sorted((*self.packages, *self.origin.packages)))

    @property
    def architecture(self) -> str:
        """Debian's name of the platform: `amd64`, `arm64`."""
        return self.platform.removeprefix("linux/")


@functools.cache
def load_catalogue() -> Catalogue:
    """The catalogue that comes with trainpack."""
    text = (data.base_images() / "catalogue.toml").read_text(encoding="utf-8")
    return Catalogue.model_validate(tomllib.loads(text))


def find_recipe(name: str, python: str, platform: str) -> Recipe:
    """What the catalogue says about one base.

    Raises:
        UsageError: The catalogue has no such base, or not for this Python.
    """
    catalogue = load_catalogue()
    return Recipe(
        name=name,
        python=python,
        platform=platform,
        revision=catalogue.revision,
        epoch=catalogue.epoch,
        packages=catalogue.packages,
        base=_entry(catalogue.base, name, "base"),
        origin=_entry(catalogue.python, python, "Python"),
        template=(data.base_images() / "Dockerfile.j2").read_text(encoding="utf-8"),
    )


def glibc_of(python: str) -> str:
    """The glibc that wheels can count on in a base with this Python: `2.36`.

    Raises:
        UsageError: The catalogue has no such Python.
    """
    return _entry(load_catalogue().python, python, "Python").glibc


def resolve_base(name: str, python: str, platform: str) -> Base:
    """A base of the catalogue, with its image id when it is in the engine.

    Raises:
        UsageError: The catalogue has no such base, or not for this Python.
    """
    recipe = find_recipe(name, python, platform)
    image = _find_image(recipe.reference)
    labels: dict[str, str] = image.labels if image else {}
    return Base(
        name=name,
        python=python,
        platform=platform,
        reference=recipe.reference,
        image_id=image.id if image else None,
        content=_layers_digest(image.attrs["RootFS"]["Layers"]) if image else None,
        source=labels.get(f"{LABEL}.base.source", UNBUILT),
    )


def _layers_digest(layers: list[str]) -> str:
    return hashlib.sha256("\n".join(layers).encode()).hexdigest()


def ensure_base(
    name: str, python: str, platform: str, source: Source = "auto", say: Say = lambda line: None
) -> Base:
    """A base that is in the engine: the one that is there, else a new one; see `build_base`.

    Raises:
        UsageError: The catalogue has no such base, or not for this Python.
        EngineUnavailableError: No engine answers.
        BuildError: It could not be built.
    """
    with _locked("build"):
        base = resolve_base(name, python, platform)
        return base if base.image_id else _build(name, python, platform, source, say)


def build_base(
    name: str, python: str, platform: str, source: Source = "auto", say: Say = lambda line: None
) -> Base:
    """Build a base and tag it in the engine.

    Args:
        name: A base of the catalogue.
        python: Like `3.11`.
        platform: Like `linux/amd64`.
        source: `upstream` takes the catalogue's image, `debian` bootstraps from Debian's mirror; `auto` takes
            upstream when the engine has the image or its registry answers.
        say: Is told each line of progress.

    Raises:
        UsageError: The catalogue has no such base, or no mirror is known.
        EngineUnavailableError: No engine answers.
        BuildError: A step failed.
    """
    with _locked("build"):
        return _build(name, python, platform, source, say)


def upstream_reference(origin: PythonEntry, environ: Mapping[str, str]) -> str:
    """The upstream image, from the registry prefix of `TRAINPACK_UPSTREAM_PREFIX` where that is set."""
    prefix = environ.get(UPSTREAM_PREFIX, "").rstrip("/")
    return (f"{prefix}/" if prefix else "") + origin.upstream + (f"@{origin.digest}" if origin.digest else "")


def render_dockerfile(recipe: Recipe, source: str, upstream: str) -> str:
    """The Dockerfile of a base, from `upstream` or from the root file system beside it."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  (a Dockerfile, made of the catalogue alone)
    )
    return environment.from_string(recipe.template).render(
        name=recipe.name,
        python=recipe.python,
        source=source,
        upstream=upstream,
        rootfs=recipe.rootfs,
        packages=recipe.packages,
        epoch=recipe.epoch,
        env=recipe.base.env,
    )


def why_not_upstream(reference: str) -> str | None:
    """Why the upstream image cannot be had; None when the engine has it or its registry answers for it."""
    import docker.errors  # noqa: PLC0415  (a listing of the catalogue needs no engine)

    from builder.engine import client  # noqa: PLC0415

    if _find_image(reference):
        return None
    try:
        client().images.get_registry_data(reference)
    except docker.errors.APIError as error:
        return redact(str(error.explanation).split("\n")[0])
    return None


def package_sources(base: Base, environ: Mapping[str, str]) -> str:
    """The `sources.list` to install system packages from on top of a base; empty where it has its own.

    Raises:
        UsageError: The base has none and no mirror is known.
    """
    origin = _entry(load_catalogue().python, base.python, "Python")
    if base.source == "debian" and origin.suite:
        return apt.sources_text(environ, origin.suite)
    return apt.sources_text(environ, origin.upstream_suite) if environ.get(apt.MIRROR) else ""


def _entry(entries: Mapping[str, Entry], key: str, what: str) -> Entry:
    if key in entries:
        return entries[key]
    hint = close_match(key, list(entries))
    raise UsageError(f"the catalogue has no {what} {key!r}{hint}", remedy=f"it has {', '.join(entries)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _find_image(reference: str) -> Any:
    import docker.errors  # noqa: PLC0415

    from builder.engine import client  # noqa: PLC0415

    try:
        return client().images.get(reference)
    except (docker.errors.ImageNotFound, EngineUnavailableError):
        return None


def _build(name: str, python: str, platform: str, source: Source, say: Say) -> Base:
    recipe = find_recipe(name, python, platform)
    upstream = upstream_reference(recipe.origin, os.environ)
    source = _choose(recipe, source, upstream, say)
    if source == "debian":
        _bootstrap(recipe, say)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="context-") as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(render_dockerfile(recipe, source, upstream), encoding="utf-8")
        secrets = _apt_secrets(recipe, context) if source == "upstream" else _add_rootfs(recipe, context)
        run_build(
            context,
            tag=recipe.reference,
            platform=recipe.platform,
            secrets=secrets,
            environ=os.environ,
            follow=lambda events: tell(events, say),
        )
    return resolve_base(name, python, platform)


def _choose(recipe: Recipe, source: Source, upstream: str, say: Say) -> Source:
    from builder.engine import client  # noqa: PLC0415

    client()
    if source != "auto":
        return source
    reason = why_not_upstream(upstream)
    if reason is None:
        return "upstream"
    say(f"{upstream} cannot be had ({reason}): bootstrapping from Debian's packages instead")
    return "debian"


def _add_rootfs(recipe: Recipe, context: Path) -> dict[str, Path]:
    os.link(cache_folder() / recipe.rootfs, context / recipe.rootfs)
    return {}


def _apt_secrets(recipe: Recipe, folder: Path) -> dict[str, Path]:
    suite = recipe.origin.upstream_suite
    mirror = apt.sources_text(os.environ, suite) if os.environ.get(apt.MIRROR) else ""
    secrets = {"apt-options": folder / "apt-options", "apt-sources": folder / "apt-sources"}
    write_atomically(secrets["apt-options"], apt.proxies(), mode=0o600)
    write_atomically(secrets["apt-sources"], mirror, mode=0o600)
    if bundle := ca_bundle(os.environ):
        secrets["ca"] = bundle
    return secrets


@contextmanager
def _interruptible(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Leave no child behind: on Ctrl-C it is told to stop, and waited for."""
    try:
        yield
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def _bootstrap(recipe: Recipe, say: Say) -> None:
    """Make the root file system, unless it is in the cache."""
    target = cache_folder() / recipe.rootfs
    if target.exists():
        return
    if recipe.origin.suite is None:
        raise UsageError(
            f"no Debian release comes with Python {recipe.python}: only {recipe.origin.upstream} has it",
            remedy=f"choose another Python, or set {UPSTREAM_PREFIX} to a registry that has the image",
        )
    if not shutil.which("mmdebstrap"):
        raise BuildError(
            "mmdebstrap, which bootstraps Debian, is not installed",
            remedy="on Debian `apt-get install mmdebstrap` installs it; or make the upstream registry "
            f"reachable, or set {UPSTREAM_PREFIX} to a mirror of it",
        )
    say(f"bootstrapping Debian {recipe.origin.suite} with Python {recipe.python}: about half a minute")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="bootstrap-") as folder:
        part = Path(folder) / target.name
        _run_mmdebstrap(recipe, recipe.origin.suite, Path(folder), part)
        part.replace(target)


def _run_mmdebstrap(recipe: Recipe, suite: str, folder: Path, target: Path) -> None:
    sources, options, log = folder / "sources.list", folder / "apt.conf", folder / "log"
    write_atomically(sources, apt.sources_text(os.environ, suite))
    write_atomically(options, apt.options())
    command = [
        *("mmdebstrap", "--variant=minbase", f"--architectures={recipe.architecture}"),
        f"--include={','.join(recipe.debian_packages)}",
        *(f"--dpkgopt={option}" for option in _SLIM),
        *([f"--aptopt={options}"] if options.stat().st_size else []),
        *(suite, "-", str(sources)),
    ]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(recipe.epoch), "LC_ALL": "C.UTF-8"}
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as process,
    ):
        assert process.stdout is not None  # noqa: S101  (Popen was given a pipe)
        with _interruptible(process):
            complete = copy_rootfs(process.stdout, target, recipe.epoch)
    if process.returncode or not complete:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise BuildError(
            f"mmdebstrap ended with {process.returncode} while bootstrapping {suite}",
            details=tuple(redact(line) for line in lines[-_TAIL:]),
            remedy=f"check the mirror: the host's apt configuration, or {apt.MIRROR}",
        )


def copy_rootfs(stream: IO[bytes], target: Path, epoch: int) -> bool:
    """Copy a tar stream without what it tells of the host; False when the stream is not a whole archive."""
    try:
        with (
            tarfile.open(fileobj=stream, mode="r|") as source,
            tarfile.open(target, mode="w", format=tarfile.PAX_FORMAT) as copy,
        ):
            for member in source:
                if not _HOST_TRACES.fullmatch(member.name):
                    copy.addfile(member, source.extractfile(member) if member.isreg() else None)
            for name in _MOUNT_POINTS:
                copy.addfile(_empty_file(name, epoch))
            while stream.read(1 << 16):
                pass
    except tarfile.TarError:
        return False
    return True


def _empty_file(name: str, epoch: int) -> tarfile.TarInfo:
    file = tarfile.TarInfo(name)
    file.mode, file.mtime = 0o644, epoch
    return file


def cache_folder() -> Path:
    """Where bootstrapped systems are kept: below `TRAINPACK_CACHE`, else in the user's cache folder."""
    folder = Path(os.environ.get(CACHE) or platformdirs.user_cache_dir("trainpack")) / "bases"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One build at a time on this machine: two at once would only do the same work twice."""
    with (cache_folder() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
