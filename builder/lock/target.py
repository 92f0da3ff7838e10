"""The environment that packages are locked for: the image's, whatever runs here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from packaging.markers import Environment
from packaging.tags import Tag, compatible_tags, cpython_tags

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# The glibc minor versions that `uv pip compile --python-platform` knows (uv 0.13).
_UV_GLIBC = (17, 28, *range(31, 41))
# What PEP 600 calls the older manylinux tags, by glibc's minor version.
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


class Target(Protocol):
    """What says for which Python and platform an image is: its spec, its plan."""

    @property
    def python(self) -> str:
        """The minor version, `3.11`."""
        ...

    @property
    def platform(self) -> str:
        """`linux/amd64` or `linux/arm64`."""
        ...


def uv_platform(image: Target, glibc: str) -> str:
    """What `uv pip compile --python-platform` calls it; the next older glibc where uv has no name for it."""
    minor = max(_minor(glibc), _UV_GLIBC[0])
    return f"{_MACHINES[image.platform]}-manylinux_2_{max(known for known in _UV_GLIBC if known <= minor)}"


def markers(image: Target) -> Environment:
    """The values of PEP 508's environment markers."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{image.python}.0",
        "os_name": "posix",
        "platform_machine": _MACHINES[image.platform],
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{image.python}.0",
        "python_version": image.python,
        "sys_platform": "linux",
    }


def tags(image: Target, glibc: str) -> list[Tag]:
    """The wheel tags that the image takes, best first."""
    major, minor = map(int, image.python.split("."))
    interpreter = f"cp{major}{minor}"
    platforms = list(_platforms(_MACHINES[image.platform], _minor(glibc)))
    return [
        *cpython_tags((major, minor), abis=[interpreter], platforms=platforms),
        *compatible_tags((major, minor), interpreter=interpreter, platforms=platforms),
    ]


def _platforms(machine: str, glibc_minor: int) -> Iterator[str]:
    for minor in range(glibc_minor, 4 if machine == "x86_64" else 16, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{machine}"
    yield f"linux_{machine}"


def _minor(glibc: str) -> int:
    return int(glibc.partition(".")[2])
