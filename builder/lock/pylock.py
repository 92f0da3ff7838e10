"""`pylock.toml` (PEP 751): the requirements, resolved and read back.

Two locks stand beside the spec: `pylock.toml` for the script's environment, and `pylock.trainpack.toml` for
the entrypoint's own, so that the two can never conflict.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.pylock import (
    Package,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.requirements import Requirement
from packaging.version import Version

from builder.errors import LockError
from builder.lock.cuda import cuda_version, minimum_driver
from builder.lock.requirements import Line, Requirements, read_requirements
from builder.lock.target import markers, tags
from builder.plan import Distribution
from builder.records import Record
from builder.spec import ImageSpec, TrainingSpec
from builder.workdir import workdir, write_all_atomically

if TYPE_CHECKING:
    from builder.lock.resolve import Resolver

FILE = "pylock.toml"
TOOLS_FILE = "pylock.trainpack.toml"
SDK_REQUIREMENT = "picsellia>=6.37,<7"

_HEADER = "# Written by `trainpack lock`: run it again rather than editing this.\n"
_UPDATE = "`trainpack lock` resolves the requirements again (`trainpack build --update-lock` does both)"


class Lock(Record):
    """What is installed, exactly.

    Attributes:
        packages: The script's environment, one file each, for the spec's Python and platform.
        tools: The entrypoint's environment.
        hash: Hex digest over names, versions and contents, never addresses.
        cuda: The CUDA version that the packages need, `13.0`.
        driver: The minimum NVIDIA driver for it.
    """

    packages: tuple[Distribution, ...]
    tools: tuple[Distribution, ...]
    hash: str
    cuda: str | None
    driver: str | None


def lock_project(
    spec: TrainingSpec,
    folder: Path,
    *,
    glibc: str,
    environ: Mapping[str, str],
    upgrade: bool = False,
    other: bool = False,
) -> None:
    """Resolve and write both locks, or neither; versions that are locked already stay where they can.

    Args:
        glibc: The C library of the base, `2.36`: newer wheels do not run there.
        environ: Where index, CA and proxy settings come from.
        upgrade: Forget what is locked and take the newest versions.
        other: The spec's platform is another one than `trainpack.toml` declares; it has locks of its own.

    Raises:
        LockError: A requirement does not exist, cannot be resolved or cannot be installed into an image.
        TrainpackError: The index cannot be reached or refuses the credentials.
    """
    import tomli_w  # noqa: PLC0415  (what is locked already is only read)

    from builder.lock.resolve import Resolver  # noqa: PLC0415

    requirements = read_requirements(spec, folder)
    resolver = Resolver(spec.image, folder, glibc=glibc, environ=environ, upgrade=upgrade)
    script, tools = lock_files(spec.image.platform if other else None)
    documents = {
        script: _lock_script(resolver, spec.image, requirements, script),
        tools: resolver.resolve(tools, _SDK),
    }
    for name, document in documents.items():
        distributions(document, spec.image, glibc, name)
    own = {"tool": {"trainpack": {"inputs": _inputs(spec.image, requirements, glibc)}}}
    texts = {folder / name: _HEADER + tomli_w.dumps(document | own) for name, document in documents.items()}
    # Another build of this folder may be reading its code, of which no unfinished lock is a part.
    write_all_atomically(texts, scratch=workdir(folder))


def read_lock(spec: TrainingSpec, folder: Path, *, glibc: str, other: bool = False) -> Lock:
    """Read both locks.

    Raises:
        LockError: One is missing, stale, damaged, or holds nothing for the spec's Python and platform.
    """
    inputs = _inputs(spec.image, read_requirements(spec, folder), glibc)
    packages, tools = (
        distributions(_read(folder / name, inputs), spec.image, glibc, name)
        for name in lock_files(spec.image.platform if other else None)
    )
    cuda = cuda_version(packages)
    return Lock(
        packages=packages, tools=tools, hash=_hash(packages, tools), cuda=cuda, driver=minimum_driver(cuda)
    )


def is_locked(folder: Path, other: str | None = None) -> bool:
    """Whether both locks are there, stale or not."""
    return all((folder / name).is_file() for name in lock_files(other))


def lock_files(other: str | None) -> tuple[str, str]:
    """The script's and the entrypoint's lock; for another platform than the spec's, with its name."""
    if other is None:
        return FILE, TOOLS_FILE
    architecture = other.rpartition("/")[2]
    return f"pylock.{architecture}.toml", f"pylock.trainpack-{architecture}.toml"


_SDK = Requirements(file=None, content=SDK_REQUIREMENT, lines=())


def _inputs(image: ImageSpec, requirements: Requirements, glibc: str) -> str:
    """All that a resolution depends on, beside the index."""
    parts = [requirements.content, image.python, image.platform, image.torch, glibc, SDK_REQUIREMENT]
    return "sha256:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _hash(packages: Sequence[Distribution], tools: Sequence[Distribution]) -> str:
    groups = [
        sorted([package.name, package.version, package.sha256] for package in group)
        for group in (packages, tools)
    ]
    return hashlib.sha256(json.dumps(groups, separators=(",", ":")).encode()).hexdigest()


def _lock_script(
    resolver: Resolver, image: ImageSpec, requirements: Requirements, file: str
) -> dict[str, Any]:
    if image.torch == "auto":
        return resolver.resolve(file, requirements)
    from builder.lock.torch_builds import FAMILY  # noqa: PLC0415

    offered = {name: resolver.cpu_builds(name) for name in FAMILY}
    if image.torch == "cuda":
        unwanted = [f"{name}!={version}" for name, versions in offered.items() for version in versions]
        return resolver.resolve(file, requirements, unwanted)
    if not offered["torch"]:
        return resolver.resolve(file, requirements, [], "--torch-backend=cpu")
    return _lock_cpu_torch(resolver, requirements, offered, file)


def _lock_cpu_torch(
    resolver: Resolver, requirements: Requirements, offered: Mapping[str, list[Version]], file: str
) -> dict[str, Any]:
    """Take the CPU build of torch that everything else agrees with, and its companions' CPU builds.

    The one that is locked already goes before the newest.
    """
    from builder.lock.resolve import mentions  # noqa: PLC0415
    from builder.lock.torch_builds import FAMILY, fitting  # noqa: PLC0415

    declared = next((line for line in requirements.lines if line.name == "torch"), None)
    candidates = fitting(offered["torch"], str(Requirement(declared.text).specifier) if declared else "")
    locked = resolver.locked(file, "torch")
    failure: LockError | None = None
    for version in sorted(candidates, key=lambda version: version != locked):
        constraint = f"torch=={version}"
        try:
            document = resolver.resolve(file, requirements, [constraint])
        except LockError as error:
            failure = failure or error
            if mentions("torch", "\n".join(error.details)) is None:
                break
            continue
        companions = [f"{name}=={cpu}" for name in FAMILY[1:] if (cpu := _cpu_of(document, name, offered))]
        return resolver.resolve(file, requirements, [constraint, *companions]) if companions else document
    raise failure or _no_cpu_build(declared, offered["torch"])


def _no_cpu_build(declared: Line | None, offered: Sequence[Version]) -> LockError:
    versions = ", ".join(map(str, offered[:5]))
    return LockError(
        f'torch = "cpu", and no CPU build on offer fits {declared.text if declared else "torch"}: '
        f"there is {versions}",
        place=declared.place if declared else None,
        remedy='allow one of these versions, or set torch = "auto" in [image]',
    )


def _cpu_of(
    document: Mapping[str, Any], name: str, offered: Mapping[str, Sequence[Version]]
) -> Version | None:
    """The CPU build of the very version of a package that was resolved, where it is another build."""
    from builder.lock.resolve import version_of  # noqa: PLC0415

    resolved = version_of(document, name)
    same = [version for version in offered[name] if resolved and version.public == resolved.public]
    return same[0] if same and same[0] != resolved else None


def _read(path: Path, inputs: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LockError("there is no lock yet", place=path.name, remedy=_UPDATE) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _damaged(error, path.name) from None
    tool = document.get("tool")
    if not isinstance(tool, dict) or tool.get("trainpack") != {"inputs": inputs}:
        message = "the lock is stale: requirements, Python, platform, torch or base changed since it was made"
        raise LockError(message, place=path.name, remedy=_UPDATE)
    return document


def distributions(
    document: Mapping[str, Any], image: ImageSpec, glibc: str, place: str
) -> tuple[Distribution, ...]:
    """What a lock installs into the image.

    Args:
        document: Of a `pylock.toml`.
        place: What errors call it.

    Raises:
        LockError: It is damaged, or holds nothing for the image's Python and platform.
    """
    try:
        selected = Pylock.from_dict(document).select(environment=markers(image), tags=tags(image, glibc))
        return tuple(_distribution(package, file, place) for package, file in selected)
    except PylockValidationError as error:
        raise _damaged(error, place) from None
    except PylockSelectError as error:
        raise LockError(str(error), place=place, remedy=_UPDATE) from None


def _damaged(error: Exception, place: str) -> LockError:
    return LockError(f"not a lock that can be read: {error}", place=place, remedy=_UPDATE)


def _distribution(package: Package, file: Any, place: str) -> Distribution:
    if not isinstance(file, PackageWheel | PackageSdist) or not file.url or not package.version:
        raise LockError(
            f"{package.name} is a folder, a repository or a bare archive; expected a wheel or a source "
            "distribution of a package index",
            place=place,
            remedy="the project's own code is copied into the image as it is: require what it needs instead",
        )
    if "sha256" not in file.hashes:
        raise LockError(f"{package.name} has no sha256", place=place, remedy=_UPDATE)
    return Distribution(
        name=package.name,
        version=str(package.version),
        filename=file.filename,
        url=file.url,
        size=file.size,
        sha256=file.hashes["sha256"],
    )
