"""CUDA, read off the locked wheels, and the driver that it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from packaging.version import Version

from builder.plan import Distribution

# Minimum Linux drivers for minor-version compatibility, by CUDA's major version. Source: NVIDIA, CUDA Toolkit
# Release Notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility", and
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1.
_DRIVERS = {13: "580", 12: "525.60.13", 11: "450.80.02"}

_RUNTIMES = re.compile(r"cuda-toolkit|nvidia-cuda-runtime(-cu\d\d)?")
_MAJOR_ONLY = re.compile(r"(?:nvidia-.+-cu|cupy-cuda|jax-cuda)(\d\d)(?:x|-.*)?")
_LOCAL = re.compile(r"cu(\d\d)(\d)")


def cuda_version(packages: Iterable[Distribution]) -> str | None:
    """The newest CUDA that the wheels were built for, as `13.0`; None when nothing needs CUDA.

    Where only the major version is known (`nvidia-nccl-cu12`), the minor version is 0.
    """
    found = {version for package in packages for version in _versions(package)}
    return ".".join(map(str, max(found))) if found else None


def minimum_driver(cuda: str | None) -> str | None:
    """The oldest Linux driver that runs this CUDA; None without CUDA, or for one that is not in the table."""
    return _DRIVERS.get(int(cuda.partition(".")[0])) if cuda else None


def _versions(package: Distribution) -> Iterator[tuple[int, int]]:
    version = Version(package.version)
    if local := _LOCAL.fullmatch(version.local or ""):
        yield int(local[1]), int(local[2])
    if _RUNTIMES.fullmatch(package.name):
        yield version.major, version.minor
    elif major := _MAJOR_ONLY.fullmatch(package.name):
        yield int(major[1]), 0
