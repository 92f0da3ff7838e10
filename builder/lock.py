"""Resolve requirements to `pylock.toml` (PEP 751) with uv, and read what was locked.

Two locks stand beside the spec: `pylock.toml` for the script's environment, and `pylock.trainpack.toml` for the
entrypoint's own, so that the two can never conflict.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import tomli_w
from packaging.markers import Environment
from packaging.pylock import (
    Package,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.version import Version

from builder.cuda import cuda_version, minimum_driver
from builder.errors import LockError, TrainpackError
from builder.package_index import (
    IndexSettings,
    index_settings,
    redact,
    uv_arguments,
    uv_environment,
    without_credentials,
)
from builder.plan import Distribution
from builder.records import Record
from builder.requirements import Requirements, read_requirements
from builder.spec import TrainingSpec
from builder.tools import host_uv
from builder.torch_builds import FAMILY, cpu_builds, fitting
from builder.workdir import write_atomically

FILE = "pylock.toml"
TOOLS_FILE = "pylock.trainpack.toml"
SDK_REQUIREMENT = "picsellia>=6.37,<7"

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# The glibc minor versions that `uv pip compile --python-platform` knows (uv 0.13).
_UV_GLIBC = (17, 28, *range(31, 41))
_HEADER = "# Written by `trainpack lock`: run it again rather than editing this.\n"
_UPDATE = "`trainpack lock` resolves the requirements again (`trainpack build --update-lock` does both)"
_UNREACHABLE = re.compile(
    r"error sending request|request failed after|failed to fetch|timed out|network connectivity is disabled"
    r"|valid authentication credentials|status server error|dns error",
    re.IGNORECASE,
)


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
    spec: TrainingSpec, folder: Path, *, glibc: str, environ: Mapping[str, str], upgrade: bool = False
) -> None:
    """Resolve and write both locks, or neither; versions that are locked already stay where they can.

    Args:
        glibc: The C library of the base, `2.36`: newer wheels do not run there.
        environ: Where index, CA and proxy settings come from.
        upgrade: Forget what is locked and take the newest versions.

    Raises:
        LockError: A requirement does not exist or cannot be resolved.
        TrainpackError: The index cannot be reached or refuses the credentials.
    """
    requirements = read_requirements(spec, folder)
    settings = index_settings(environ)
    resolver = _Resolver(spec, folder, glibc, settings, environ, upgrade)
    inputs = _inputs(spec, requirements, glibc)
    script = _lock_script(resolver, requirements)
    tools = resolver.resolve(TOOLS_FILE, _sdk(), [])
    for name, document in ((FILE, script), (TOOLS_FILE, tools)):
        text = _HEADER + tomli_w.dumps(document | {"tool": {"trainpack": {"inputs": inputs}}})
        write_atomically(folder / name, text)


def read_lock(spec: TrainingSpec, folder: Path, *, glibc: str) -> Lock:
    """Read both locks.

    Raises:
        LockError: One is missing, stale, damaged, or holds nothing for the spec's Python and platform.
    """
    inputs = _inputs(spec, read_requirements(spec, folder), glibc)
    packages = tuple(_read(spec, folder, FILE, inputs, glibc))
    tools = tuple(_read(spec, folder, TOOLS_FILE, inputs, glibc))
    cuda = cuda_version(packages)
    return Lock(
        packages=packages, tools=tools, hash=_hash(packages, tools), cuda=cuda, driver=minimum_driver(cuda)
    )


def is_locked(folder: Path) -> bool:
    """Whether both locks are there, stale or not."""
    return (folder / FILE).is_file() and (folder / TOOLS_FILE).is_file()


def _inputs(spec: TrainingSpec, requirements: Requirements, glibc: str) -> str:
    """All that a resolution depends on, beside the index."""
    image = spec.image
    parts = [requirements.content, image.python, image.platform, image.torch, glibc, SDK_REQUIREMENT]
    return "sha256:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _hash(packages: Sequence[Distribution], tools: Sequence[Distribution]) -> str:
    groups = [
        sorted([package.name, package.version, package.sha256] for package in group)
        for group in (packages, tools)
    ]
    return hashlib.sha256(json.dumps(groups, separators=(",", ":")).encode()).hexdigest()


def _sdk() -> Requirements:
    return Requirements(file=None, content=SDK_REQUIREMENT, lines=())


def _lock_script(resolver: _Resolver, requirements: Requirements) -> dict[str, Any]:
    offered = {
        name: resolver.cpu_builds(name) if resolver.spec.image.torch != "auto" else [] for name in FAMILY
    }
    if resolver.spec.image.torch == "cuda":
        unwanted = [f"{name}!={version}" for name, versions in offered.items() for version in versions]
        return resolver.resolve(FILE, requirements, unwanted)
    if not offered["torch"]:
        backend = ["--torch-backend=cpu"] if resolver.spec.image.torch == "cpu" else []
        return resolver.resolve(FILE, requirements, [], *backend)
    return _lock_cpu_torch(resolver, requirements, offered)


def _lock_cpu_torch(
    resolver: _Resolver, requirements: Requirements, offered: Mapping[str, list[Version]]
) -> dict[str, Any]:
    """Take the newest CPU build of torch that everything else agrees with, and its companions' CPU builds."""
    declared = next((line for line in requirements.lines if line.name == "torch"), None)
    specifier = str(Requirement(declared.text).specifier) if declared else ""
    failures = [_no_cpu_build(declared.text, declared.place, offered["torch"])] if declared else []
    for version in fitting(offered["torch"], specifier):
        constraint = f"torch=={version}"
        try:
            document = resolver.resolve(FILE, requirements, [constraint])
        except LockError as failure:
            failures.insert(0, failure)
            continue
        more = [f"{name}=={cpu}" for name in FAMILY[1:] if (cpu := _cpu_of(document, name, offered[name]))]
        return resolver.resolve(FILE, requirements, [constraint, *more]) if more else document
    # The newest build's failure says most; without a candidate there is only the mismatch itself.
    raise failures[max(len(failures) - 2, 0)]


def _no_cpu_build(requirement: str, place: str, offered: Sequence[Version]) -> LockError:
    versions = ", ".join(map(str, offered[:5]))
    return LockError(
        f'torch = "cpu", and no CPU build on offer fits {requirement}: there is {versions}',
        place=place,
        remedy='allow one of these versions, or set torch = "auto" in [image]',
    )


def _cpu_of(document: Mapping[str, Any], name: str, offered: Sequence[Version]) -> Version | None:
    """The CPU build of the very version of a package that was resolved, where it is another build."""
    for package in document["packages"]:
        if package["name"] == name:
            resolved = Version(package["version"])
            same = [version for version in offered if version.public == resolved.public]
            return same[0] if same and same[0] != resolved else None
    return None


class _Resolver:
    """`uv pip compile`, for one project, platform and index."""

    def __init__(
        self,
        spec: TrainingSpec,
        folder: Path,
        glibc: str,
        settings: IndexSettings,
        environ: Mapping[str, str],
        upgrade: bool,
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._glibc = glibc
        self._settings = settings
        self._environ = environ
        self._upgrade = upgrade

    def cpu_builds(self, name: str) -> list[Version]:
        """The CPU builds of a package on offer for the spec's Python and platform, newest first."""
        return cpu_builds(self._settings, name, _tags(self.spec, self._glibc), self._environ)

    def resolve(
        self, name: str, requirements: Requirements, constraints: Sequence[str], *options: str
    ) -> dict[str, Any]:
        """The lock's document, free of credentials.

        Raises:
            LockError, TrainpackError: See `lock_project`.
        """
        with tempfile.TemporaryDirectory(prefix="trainpack-lock-") as scratch:
            # uv insists on the name, and keeps the versions that it finds there.
            target = Path(scratch) / name
            if not self._upgrade and _is_document(self._folder / name):
                target.write_bytes((self._folder / name).read_bytes())
            command = self._command(target, requirements, constraints, options)
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment(),
                input="" if requirements.file else requirements.content,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode != 0:
                raise _failure(done.stderr, requirements)
            document = tomllib.loads(target.read_text(encoding="utf-8"))
            return {
                **document,
                "packages": [_cleaned(entry, target.parent) for entry in document["packages"]],
            }

    def _command(
        self, target: Path, requirements: Requirements, constraints: Sequence[str], options: Sequence[str]
    ) -> list[str]:
        image = self.spec.image
        constraint_file = target.with_name("constraints.txt")
        constraint_file.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        files = [constraint_file, *(Path(file) for file in self._settings.constraints)]
        return [
            *(str(host_uv()), "pip", "compile", requirements.file or "-"),
            *("--format=pylock.toml", f"--output-file={target}"),
            *(f"--python-version={image.python}", f"--python={sys.executable}"),
            f"--python-platform={_uv_platform(_MACHINES[image.platform], self._glibc)}",
            *("--no-header", "--no-progress", "--color=never", "--quiet"),
            *(f"--constraints={file}" for file in files),
            *uv_arguments(self._settings),
            *options,
        ]

    def _environment(self) -> dict[str, str]:
        environment = uv_environment(self._settings, self._environ) | {"UV_PYTHON_DOWNLOADS": "never"}
        for name in ("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_OUTPUT_FILE"):
            environment.pop(name, None)
        if self.spec.image.torch == "cpu":
            environment.pop("UV_TORCH_BACKEND", None)
        return environment


def _is_document(path: Path) -> bool:
    try:
        return "packages" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


def _uv_platform(machine: str, glibc: str) -> str:
    minor = int(glibc.partition(".")[2])
    return f"{machine}-manylinux_2_{max(known for known in _UV_GLIBC if known <= max(minor, 17))}"


def _cleaned(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A package with addresses that work from anywhere and hold no credentials, and sizes where known."""
    cleaned = dict(entry)
    if "wheels" in entry:
        cleaned["wheels"] = [_cleaned_file(file, folder) for file in entry["wheels"]]
    for kind in ("sdist", "archive"):
        if kind in entry:
            cleaned[kind] = _cleaned_file(entry[kind], folder)
    if "index" in entry:
        cleaned["index"] = without_credentials(entry["index"])
    return cleaned


def _cleaned_file(file: dict[str, Any], folder: Path) -> dict[str, Any]:
    cleaned = dict(file)
    if "path" in cleaned:
        cleaned["url"] = (folder / cleaned.pop("path")).resolve().as_uri()
    cleaned["url"] = without_credentials(cleaned["url"])
    local = Path(unquote(urlsplit(cleaned["url"]).path)) if cleaned["url"].startswith("file:") else None
    if local and local.is_file():
        cleaned["size"] = local.stat().st_size
    return cleaned


def _failure(output: str, requirements: Requirements) -> TrainpackError:
    lines = [line for line in redact(output).splitlines() if line.strip() and not line.startswith("warning:")]
    text = "\n".join(lines)
    details = tuple(lines)
    if _UNREACHABLE.search(text):
        remedy = "check the network, proxy, CA and index settings: `trainpack doctor` looks at each"
        return TrainpackError("the package index does not answer, or refuses", details=details, remedy=remedy)
    mentioned = [line for line in requirements.lines if _position(line.name, text) is not None]
    if mentioned:
        first = min(mentioned, key=lambda line: _position(line.name, text) or 0)
        remedy = "correct its name or version, or what conflicts with it"
        message = f"{first.text} cannot be resolved"
        return LockError(message, place=first.place, details=details, remedy=remedy)
    message = "the requirements cannot be resolved"
    return LockError(message, place=requirements.file or "the entrypoint's own requirements", details=details)


def _position(name: str, text: str) -> int | None:
    """Where a text first mentions a distribution."""
    spelled = name.replace("-", "[-_.]")
    match = re.search(rf"(?<![\w.-]){spelled}(?![\w-])", text, re.IGNORECASE)
    return match.start() if match else None


def _read(spec: TrainingSpec, folder: Path, name: str, inputs: str, glibc: str) -> Iterator[Distribution]:
    try:
        document = tomllib.loads((folder / name).read_text(encoding="utf-8"))
        lock = Pylock.from_dict(document)
    except FileNotFoundError:
        raise LockError("there is no lock yet", place=name, remedy=_UPDATE) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, PylockValidationError) as error:
        raise LockError(f"not a lock that can be read: {error}", place=name, remedy=_UPDATE) from None
    if document.get("tool", {}).get("trainpack", {}).get("inputs") != inputs:
        message = "the lock is stale: requirements, Python, platform, torch or base changed since it was made"
        raise LockError(message, place=name, remedy=_UPDATE)
    try:
        environment = _markers(spec.image.python, _MACHINES[spec.image.platform])
        for package, file in lock.select(environment=environment, tags=_tags(spec, glibc)):
            yield _distribution(package, file, name)
    except PylockSelectError as error:
        raise LockError(str(error), place=name, remedy=_UPDATE) from None


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


def _markers(python: str, machine: str) -> Environment:
    """The environment markers of the image, whatever runs here."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def _tags(spec: TrainingSpec, glibc: str) -> list[Tag]:
    """The wheel tags that the image takes, best first."""
    major, minor = map(int, spec.image.python.split("."))
    interpreter = f"cp{major}{minor}"
    platforms = list(_platforms(_MACHINES[spec.image.platform], int(glibc.partition(".")[2])))
    return [
        *cpython_tags((major, minor), abis=[interpreter], platforms=platforms),
        *compatible_tags((major, minor), interpreter=interpreter, platforms=platforms),
    ]


def _platforms(machine: str, glibc_minor: int) -> Iterator[str]:
    """manylinux tags from the base's glibc down (PEP 600), with the names they had before."""
    older = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    for minor in range(glibc_minor, 4 if machine == "x86_64" else 16, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in older:
            yield f"{older[minor]}_{machine}"
    yield f"linux_{machine}"
