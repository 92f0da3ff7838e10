"""The SBOM of an image: a CycloneDX document, from the plan and what the base has installed.

It holds nothing but what decides the image's content, so that the same plan has the same document: no time,
no address that a file came from, nothing of the machine. Written by hand, since the document is small and the
library for it takes longer to import than an edit takes to push; the tests read it with that library.

Source: https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

from builder.errors import ImageFormatError
from builder.oci.files import read_files
from builder.oci.image import Layer
from builder.oci.manifest import canonical_json, digest_of, parse_object
from builder.plan_data import TOOLS, VENV

SBOM = "application/vnd.cyclonedx+json"
STATUS, RELEASE = "var/lib/dpkg/status", "usr/lib/os-release"
_SOURCE = re.compile(r"(\S+)(?: \((\S+)\))?")
_PY_VERSION = re.compile(r'#define PY_VERSION\s+"([^"]+)"')

Component = dict[str, Any]
Plan = Mapping[str, Any]


@dataclass(frozen=True)
class DebianPackage:
    """An installed package.

    Attributes:
        source: Name of the source package, which advisories are about.
        source_version: Its version.
    """

    name: str
    version: str
    architecture: str
    source: str
    source_version: str


@dataclass(frozen=True)
class System:
    """What a base has installed.

    Attributes:
        distribution: Like `debian`, as its os-release says.
        release: Like `12`.
        python: Full version of a Python that is no Debian package; None where it is one.
    """

    distribution: str
    release: str
    packages: tuple[DebianPackage, ...]
    python: str | None


def record_paths(python: str) -> tuple[str, ...]:
    """The files of a base from which `read_system` learns what is installed."""
    return STATUS, RELEASE, f"usr/local/include/python{python}/patchlevel.h"


def read_system(layers: Sequence[Layer], python: str) -> System:
    """What is installed in an image of these layers.

    Raises:
        ImageFormatError: A layer cannot be read.
        BlobError: A layer's bytes are not those of its digest.
    """
    paths = record_paths(python)
    files = read_files(layers, paths)
    status, release, header = (files.get(path, b"").decode(errors="replace") for path in paths)
    named = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    version = _PY_VERSION.search(header)
    return System(
        distribution=named.get("ID", "debian").strip('"'),
        release=named.get("VERSION_ID", "").strip('"'),
        packages=tuple(parse_status(status)),
        python=version[1] if version else None,
    )


def parse_status(text: str) -> Iterator[DebianPackage]:
    """The packages that a dpkg status file says are installed. Pure."""
    for stanza in text.split("\n\n"):
        lines = [line for line in stanza.splitlines() if ": " in line and not line.startswith(" ")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields.get("Status", "").endswith(" installed"):
            source = _SOURCE.match(fields.get("Source", fields["Package"]))
            yield DebianPackage(
                name=fields["Package"],
                version=fields["Version"],
                architecture=fields["Architecture"],
                source=source[1] if source else fields["Package"],
                source_version=(source and source[2]) or fields["Version"],
            )


def make_sbom(plan: Plan, system: System) -> bytes:
    """The document, as canonical JSON. Pure.

    Args:
        plan: A BuildPlan as plain data.
    """
    trainpack = _trainpack(str(plan["manifest"]["trainpack"]))
    image = {"type": "container", "name": _title(plan), "version": plan["version"]}
    components = [
        _base(plan["base"]),
        *_system(system),
        *_wheels(plan),
        trainpack | _found_in(TOOLS),
        _code(plan),
    ]
    return _document(trainpack, image, components)


def make_base_sbom(base: Mapping[str, Any], system: System, version: str) -> bytes:
    """The document of a base alone, from which `parse_base_sbom` has the system again. Pure.

    Args:
        base: A Base as plain data.
        version: Of trainpack.
    """
    return _document(_trainpack(version), _base(base), list(_system(system)))


def parse_base_sbom(content: bytes, place: str) -> System:
    """What a base has installed, as its own document says.

    Raises:
        ImageFormatError: It is not of the form that `make_base_sbom` writes.
    """
    try:
        components = parse_object(content, place)["components"]
        (system,) = (each for each in components if each["type"] == "operating-system")
        python = [each["version"] for each in components if each["name"] == "python" and "cpe" in each]
        packages = [each for each in components if each.get("purl", "").startswith("pkg:deb/")]
        return System(
            distribution=str(system["name"]),
            release=str(system["version"]),
            packages=tuple(_package(each) for each in packages),
            python=python[0] if python else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        raise ImageFormatError("an SBOM that is not of the form that trainpack writes", place=place) from None


def _document(tool: Component, subject: Component, components: Sequence[Component]) -> bytes:
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": [tool]}, "component": subject},
        "components": list(components),
    }
    content = digest_of(canonical_json(document))
    return canonical_json(document | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"})


def pypi_url(name: str, version: str) -> str:
    """The package URL of a distribution; names in a lock are normalized already."""
    return f"pkg:pypi/{_quoted(name)}@{_quoted(version)}"


def _base(base: Mapping[str, Any]) -> Component:
    image_id = (base["image_id"] or "").removeprefix("sha256:")
    hashes = {"hashes": _sha256(image_id)} if image_id else {}
    version = base["reference"].rpartition(":")[2]
    return {"type": "container", "name": base["name"], "version": version} | hashes


def _system(system: System) -> Iterator[Component]:
    yield {"type": "operating-system", "name": system.distribution, "version": system.release}
    if system.python:
        yield {
            "type": "application",
            "name": "python",
            "version": system.python,
            "purl": f"pkg:generic/python@{_quoted(system.python)}",
            "cpe": f"cpe:2.3:a:python:python:{system.python}:*:*:*:*:*:*:*",
        }
    yield from (_debian(package, system) for package in system.packages)


def _debian(package: DebianPackage, system: System) -> Component:
    qualifiers = [
        f"arch={_quoted(package.architecture)}",
        f"distro={_quoted(f'{system.distribution}-{system.release}')}",
    ]
    if (package.source, package.source_version) != (package.name, package.version):
        same = package.source_version == package.version
        upstream = package.source if same else f"{package.source}@{package.source_version}"
        qualifiers.append(f"upstream={_quoted(upstream)}")
    url = f"pkg:deb/{_quoted(system.distribution)}/{_quoted(package.name)}@{_quoted(package.version)}"
    return {
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": f"{url}?{'&'.join(qualifiers)}",
    }


def _package(component: Component) -> DebianPackage:
    """The way back of `_debian`."""
    name, version = str(component["name"]), str(component["version"])
    qualifiers = dict(parse_qsl(component["purl"].partition("?")[2]))
    source, _, source_version = qualifiers.get("upstream", name).partition("@")
    return DebianPackage(name, version, qualifiers["arch"], source, source_version or version)


def _wheels(plan: Plan) -> Iterator[Component]:
    """Each wheel once, with the environments that have it."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for prefix, wheels in ((VENV, (*plan["heavy"], *plan["light"])), (TOOLS, plan["tools"])):
        for wheel in sorted(wheels, key=lambda each: str(each["name"])):
            key = (wheel["name"], wheel["version"], wheel["sha256"])
            places.setdefault(key, []).append(prefix)
    for (name, version, sha256), prefixes in places.items():
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": pypi_url(name, version),
            "hashes": _sha256(sha256),
        } | _found_in(*prefixes)


def _trainpack(version: str) -> Component:
    return {
        "type": "application",
        "name": "trainpack",
        "version": version,
        "purl": pypi_url("trainpack", version),
    }


def _code(plan: Plan) -> Component:
    component = {"type": "application", "name": _title(plan)} | _found_in("/opt/app")
    revision = plan["manifest"].get("revision")
    return component | ({"version": revision} if revision else {})


def _title(plan: Plan) -> str:
    return str(plan["name"]).rpartition("/")[2]


def _found_in(*places: str) -> Component:
    return {"evidence": {"occurrences": [{"location": place} for place in places]}}


def _sha256(content: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": content}]


def _quoted(text: str) -> str:
    # A package URL's one difference: the colon of a Debian epoch stays as it is.
    return quote(text, safe=":")
