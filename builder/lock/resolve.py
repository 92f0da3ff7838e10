"""`uv pip compile`, for one image and the user's package index."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name
from packaging.version import Version

from builder.errors import LockError, TrainpackError
from builder.host.package_index import (
    index_settings,
    redact,
    uv_arguments,
    uv_environment,
    without_credentials,
)
from builder.host.tools import host_uv
from builder.lock.requirements import Requirements
from builder.lock.target import tags, uv_platform
from builder.lock.torch_builds import cpu_builds
from builder.spec import ImageSpec

_UNREACHABLE = re.compile(
    r"error sending request|request failed after|failed to fetch|timed out|network connectivity is disabled"
    r"|valid authentication credentials|status server error|dns error",
    re.IGNORECASE,
)


class Resolver:
    """Resolves requirements to the document of a `pylock.toml`.

    Args:
        image: Says for which Python and platform.
        folder: The project's.
        glibc: The base's, `2.36`.
        environ: Where index, CA and proxy settings come from.
        upgrade: Whether to forget the versions that are locked already.
    """

    def __init__(
        self, image: ImageSpec, folder: Path, *, glibc: str, environ: Mapping[str, str], upgrade: bool
    ) -> None:
        self._image = image
        self._folder = folder
        self._glibc = glibc
        self._settings = index_settings(environ)
        self._environ = environ
        self._upgrade = upgrade

    def cpu_builds(self, name: str) -> list[Version]:
        """The CPU builds of a package on offer for the image, newest first."""
        return cpu_builds(self._settings, name, tags(self._image, self._glibc), self._environ)

    def locked(self, lock: str, name: str) -> Version | None:
        """The version of a package in a lock of the project, None when it is not there or to be forgotten."""
        return version_of(_document(self._folder / lock), name) if not self._upgrade else None

    def resolve(
        self, lock: str, requirements: Requirements, constraints: Sequence[str] = (), *options: str
    ) -> dict[str, Any]:
        """The document for the lock of that name, its addresses free of credentials.

        Args:
            options: Further ones of `uv pip compile`.

        Raises:
            LockError: A requirement does not exist or cannot be resolved.
            TrainpackError: The index cannot be reached or refuses the credentials.
        """
        with tempfile.TemporaryDirectory(prefix="trainpack-lock-") as scratch:
            # uv insists on the name, and keeps the versions that it finds there.
            target = Path(scratch) / lock
            if not self._upgrade and _document(self._folder / lock)["packages"]:
                target.write_bytes((self._folder / lock).read_bytes())
            target.with_name("constraints.txt").write_text("\n".join(constraints) + "\n", encoding="utf-8")
            done = self._run([*self._command(target, requirements), *options], requirements)
            if done.returncode != 0:
                raise _failure(done.stderr, requirements)
            document = _document(target)
            return document | {
                "packages": [_portable(entry, target.parent) for entry in document["packages"]]
            }

    def _run(self, command: list[str], requirements: Requirements) -> subprocess.CompletedProcess[str]:
        done = self._run_once(command, requirements)
        if done.returncode != 0 and self._settings.indexes:
            # Where it merges indexes, uv passes over one that refuses the credentials without a word.
            alone = [word for word in command if not word.startswith("--index-strategy=")]
            again = self._run_once(alone, requirements)
            return again if _UNREACHABLE.search(again.stderr) else done
        return done

    def _run_once(self, command: list[str], requirements: Requirements) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment(),
            input="" if requirements.file else requirements.content,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    def _command(self, target: Path, requirements: Requirements) -> list[str]:
        constraints = (str(target.with_name("constraints.txt")), *self._settings.constraints)
        return [
            *(str(host_uv()), "pip", "compile", requirements.file or "-"),
            *("--format=pylock.toml", f"--output-file={target}"),
            *(f"--python-version={self._image.python}", f"--python={sys.executable}"),
            f"--python-platform={uv_platform(self._image, self._glibc)}",
            *("--no-header", "--no-progress", "--color=never", "--quiet"),
            *(f"--constraints={file}" for file in constraints),
            *uv_arguments(self._settings),
        ]

    def _environment(self) -> dict[str, str]:
        environment = uv_environment(self._settings, self._environ) | {"UV_PYTHON_DOWNLOADS": "never"}
        for name in ("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_OUTPUT_FILE"):
            environment.pop(name, None)
        if self._image.torch == "cpu":
            environment.pop("UV_TORCH_BACKEND", None)
        return environment


def version_of(document: Mapping[str, Any], name: str) -> Version | None:
    """The version of a package in a lock's document, None when it is not there."""
    versions = (entry.get("version") for entry in document["packages"] if entry.get("name") == name)
    return next((Version(version) for version in versions if version), None)


def mentions(name: str, text: str) -> int | None:
    """Where a text first mentions a distribution, None when it does not."""
    spelled = re.escape(canonicalize_name(name)).replace(r"\-", "[-_.]")
    match = re.search(rf"(?<![\w.-]){spelled}(?![\w-])", text, re.IGNORECASE)
    return match.start() if match else None


def _document(path: Path) -> dict[str, Any]:
    """A lock as it is, one without packages when it is missing or damaged."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        document = {}
    return {"packages": []} | document


def _portable(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A package whose addresses work from anywhere and hold no credentials, with sizes where known."""
    changes: dict[str, Any] = {}
    if "wheels" in entry:
        changes["wheels"] = [_portable_file(file, folder) for file in entry["wheels"]]
    if "sdist" in entry:
        changes["sdist"] = _portable_file(entry["sdist"], folder)
    if "index" in entry:
        changes["index"] = without_credentials(entry["index"])
    return {**entry, **changes}


def _portable_file(file: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    portable = dict(file)
    if "path" in portable:
        portable["url"] = (folder / portable.pop("path")).resolve().as_uri()
    portable["url"] = without_credentials(portable["url"])
    address = urlsplit(portable["url"])
    local = Path(unquote(address.path))
    if address.scheme == "file" and local.is_file():
        portable["size"] = local.stat().st_size
    return portable


def _failure(output: str, requirements: Requirements) -> TrainpackError:
    lines = [line for line in redact(output).splitlines() if line.strip() and not line.startswith("warning:")]
    text, details = "\n".join(lines), tuple(lines)
    if _UNREACHABLE.search(text):
        remedy = "check the network, proxy, CA and index settings: `trainpack doctor` looks at each"
        return TrainpackError("the package index does not answer, or refuses", details=details, remedy=remedy)
    places = {line: mentions(line.name, text) for line in requirements.lines}
    mentioned = {line: place for line, place in places.items() if place is not None}
    if mentioned:
        first = min(mentioned, key=mentioned.__getitem__)
        remedy = "correct its name or version, or what conflicts with it"
        return LockError(
            f"{first.text} cannot be resolved", place=first.place, details=details, remedy=remedy
        )
    message = "the requirements cannot be resolved"
    return LockError(message, place=requirements.file or "the entrypoint's own requirements", details=details)
