"""Which build of PyTorch the lock takes, where an index offers builds for CPU and for CUDA.

PEP 440 cannot ask for "any +cpu version", so the versions on offer are listed and one is named exactly.
"""

from __future__ import annotations

import html.parser
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from builder.host.certificates import ca_bundle
from builder.host.package_index import IndexSettings, logins, without_credentials

FAMILY = ("torch", "torchvision", "torchaudio")
_TIMEOUT = 30.0  # seconds


def cpu_builds(
    settings: IndexSettings, project: str, tags: Sequence[Tag], environ: Mapping[str, str]
) -> list[Version]:
    """The `+cpu` versions of a project that the configured places offer for these tags, newest first."""
    names = [name for place in settings.find_links for name in _files(place, settings, environ)]
    simple = [] if settings.no_index else [settings.default_index, *settings.indexes]
    for index in filter(None, simple):
        names += _files(f"{index.rstrip('/')}/{project}/", settings, environ)
    return sorted(set(_cpu_versions(names, project, set(tags))), reverse=True)


def fitting(versions: Iterable[Version], specifier: str) -> list[Version]:
    """Those that a requirement's specifier allows, in the same order; pre-releases as PEP 440 has it."""
    return list(SpecifierSet(specifier).filter(versions))


def _cpu_versions(names: Iterable[str], project: str, tags: set[Tag]) -> Iterator[Version]:
    for name in names:
        try:
            found, version, _, wheel_tags = parse_wheel_filename(name)
        except InvalidWheelFilename:
            continue
        if found == project and (version.local or "").startswith("cpu") and wheel_tags & tags:
            yield version


def _files(place: str, settings: IndexSettings, environ: Mapping[str, str]) -> list[str]:
    """File names that a folder, a page of links or a simple index lists; none when it cannot be read."""
    parts = urlsplit(place)
    if parts.scheme in ("http", "https"):
        return _listed(_fetch(place, settings, environ))
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(place)
    page = path / "index.html" if path.is_dir() else path
    if page.is_file():
        return _listed(page.read_text(encoding="utf-8", errors="replace"))
    return [entry.name for entry in path.iterdir()] if path.is_dir() else []


def _fetch(address: str, settings: IndexSettings, environ: Mapping[str, str]) -> str:
    """A page, empty when it is not there; uv will say what is wrong with an index that cannot be reached."""
    host = urlsplit(address).hostname or ""
    bundle = ca_bundle(environ)
    headers = {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.5"}
    try:
        response = requests.get(
            without_credentials(address),
            auth=logins(settings, environ).get(host),
            verify=False if host in settings.trusted_hosts else str(bundle) if bundle else True,
            headers=headers,
            timeout=_TIMEOUT,
        )
    except requests.RequestException:
        return ""
    return response.text if response.ok else ""


class _Links(html.parser.HTMLParser):
    """Collects the file name of every link."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the last part of a link's path."""
        target = dict(attrs).get("href") if tag == "a" else None
        if target:
            self.names.append(unquote(urlsplit(target).path.rpartition("/")[2]))


def _listed(page: str) -> list[str]:
    """File names of a simple index's page, JSON (PEP 691) or HTML (PEP 503)."""
    try:
        return [str(file["filename"]) for file in json.loads(page)["files"]]
    except (ValueError, KeyError, TypeError):
        links = _Links()
        links.feed(page)
        return links.names
