"""The cache: layers as blobs by digest, which of them was made for which key, and the bases below them.

Several builds may use it at once: who wants a key that another process is making waits for it and takes its
layer. A kill at any moment leaves stray files only, which `prune` sweeps away.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.errors import ImageFormatError, UsageError
from builder.host.tools import cache_folder
from builder.oci.blobs import Blobs
from builder.oci.image import Layer
from builder.oci.layer import FORMAT, compress, kept_layer
from builder.oci.layout import Held, held_images, keep_images
from builder.oci.manifest import OCI_LAYER, canonical_json, check_digest, digest_of, parse_object

LIMIT = "TRAINPACK_CACHE_LIMIT"
DEFAULT_LIMIT = 20 * 10**9
# What was used this recently may be in use by another build: it is never pruned.
GRACE_SECONDS = 600
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", re.IGNORECASE)


@dataclass(frozen=True)
class LayerRecord:
    """What a key's layer is; its bytes are the blob of that digest."""

    digest: str
    diff_id: str
    size: int
    unpacked: int | None
    media_type: str


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds.

    Attributes:
        blobs: Number of layers, wheels and packages.
        layers: Number of keys that have a layer.
        size: Bytes of these blobs.
        bases: Number of bases.
        bases_size: Bytes of their blobs, and of what is left of bases that were replaced.
        stray: Bytes of what killed processes left behind.
        limit: What `size` and `bases_size` are cut down to.
    """

    folder: str
    blobs: int
    layers: int
    size: int
    bases: int
    bases_size: int
    stray: int
    limit: int


@dataclass(frozen=True)
class _Item:
    what: Path | Held
    size: int
    used: float


@dataclass(frozen=True)
class Removed:
    """What was taken out of a cache."""

    files: int
    size: int


class Cache:
    """A folder of blobs and an index over them.

    Attributes:
        blobs: Where layers are written to.
        limit: Bytes that `trim` cuts it down to, the bases with it.
        bases: The layout of the bases, beside the folder.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self.blobs = Blobs(folder)
        self.bases = Blobs(folder.with_name("bases"))
        self._keys = folder / "keys"
        self._locks = folder / "locks"

    def layer(self, key: str, make: Callable[[], Layer]) -> Layer:
        """The layer of a key; made once where it is missing or damaged, however many ask at once.

        Args:
            key: From `cache_key`.
            make: Writes the layer into `blobs`.
        """
        if kept := self.recall(key):
            return kept
        with self.lock(key):
            return self.recall(key) or self._remember(key, make())

    def recall(self, key: str) -> Layer | None:
        """The layer of a key, None where it was not made or its bytes are not what they were."""
        record = self._record(key)
        if record is None or not self.blobs.has(record.digest, record.size):
            return None
        return kept_layer(self.blobs, **asdict(record))

    def compressed(self, layer: Layer) -> Layer:
        """A layer as it may travel: one that is not compressed, as `docker save` writes it, is, and kept."""
        if layer.media_type != OCI_LAYER:
            return layer
        return self.layer(cache_key("compressed", layer.diff_id), lambda: compress(layer, self.blobs))

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold a key against other threads and processes; a process that ends lets go of it."""
        self._locks.mkdir(parents=True, exist_ok=True)
        path = self._locks / key
        while True:
            with path.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _is_same(file.fileno(), path):
                    yield
                    return

    def info(self) -> CacheInfo:
        """Count what is there."""
        sizes = [status.st_size for _, status in _stats(self.blobs.paths())]
        below = [status.st_size for _, status in _stats(self.bases.paths())]
        return CacheInfo(
            folder=str(self.folder),
            blobs=len(sizes),
            layers=len(_files(self._keys)),
            size=sum(sizes),
            bases=len(held_images(self.bases.folder)),
            bases_size=sum(below),
            stray=sum(status.st_size for _, status in _stats(self._strays())),
            limit=self.limit,
        )

    def trim(self) -> Removed:
        """What a build does at its end: nothing while the cache is within its limit."""
        return self.prune(self.limit)

    def prune(self, limit: int, grace: float = GRACE_SECONDS) -> Removed:
        """Remove what was used longest ago until all fits into `limit`, and what nothing refers to.

        Args:
            grace: Seconds for which a blob or a base is kept after its last use, whatever the limit.
        """
        unused = time.time() - grace
        blobs = [_Item(path, status.st_size, status.st_atime) for path, status in _stats(self.blobs.paths())]
        bases = [_Item(base, base.size, base.used) for base in held_images(self.bases.folder)]
        excess = sum(item.size for item in (*blobs, *bases)) - limit
        doomed, dropped = self._strays(), set[Held]()
        for item in sorted((*blobs, *bases), key=lambda item: item.used):
            if excess <= 0 or item.used > unused:
                break
            excess -= item.size
            if isinstance(item.what, Path):
                doomed.append(item.what)
            else:
                dropped.add(item.what)
        removed = _remove([*doomed, *self._drop_bases(dropped, unused)])
        self._forget_orphans()
        return removed

    def clear(self) -> Removed:
        """Remove everything that no other process is writing just now; the bases stay."""
        removed = _remove([*self.blobs.paths(), *self._strays()])
        self._forget_orphans()
        return removed

    def verify(self) -> tuple[str, ...]:
        """Hash every blob; returns the digests of those that were corrupt, which are removed."""
        places = (self.blobs, self.bases)
        corrupt = [digest for blobs in places for digest in blobs.digests() if not blobs.verify(digest)]
        self._forget_orphans()
        keep_images(self.bases.folder, lambda base: True)
        return tuple(sorted(corrupt))

    def _strays(self) -> list[Path]:
        return [*self.blobs.strays(), *self.bases.strays()]

    def _drop_bases(self, dropped: Set[Held], unused: float) -> list[Path]:
        """Forget bases; returns what only they needed, and what no base needs since that moment."""
        own = frozenset[Path]().union(*(base.blobs for base in dropped))
        spare = keep_images(self.bases.folder, lambda base: base not in dropped)
        return [path for path, status in _stats(spare) if path in own or status.st_atime <= unused]

    def _record(self, key: str) -> LayerRecord | None:
        try:
            content = (self._keys / key).read_bytes()
            digest, _, document = content.partition(b"\n")
            record = LayerRecord(**parse_object(document, key))
            check_digest(record.digest, key)
        except (FileNotFoundError, TypeError, ImageFormatError):
            return None
        return record if digest == digest_of(document).encode() else None

    def _remember(self, key: str, layer: Layer) -> Layer:
        record = LayerRecord(
            digest=layer.digest,
            diff_id=layer.diff_id,
            size=layer.size,
            unpacked=layer.unpacked,
            media_type=layer.media_type,
        )
        self._keys.mkdir(parents=True, exist_ok=True)
        document = canonical_json(asdict(record))
        with self.blobs.scratch() as file:
            # Not all that a record says can be seen in its blob: a changed diff id would be another image.
            file.write(digest_of(document).encode() + b"\n" + document)
            file.flush()
            Path(file.name).rename(self._keys / key)
        return layer

    def _forget_orphans(self) -> None:
        for path in _files(self._keys):
            record = self._record(path.name)
            if record is None or not self.blobs.path(record.digest).exists():
                path.unlink(missing_ok=True)
        for path in _files(self._locks):
            with suppress(OSError), path.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def open_cache() -> Cache:
    """The user's cache, below the folder that `TRAINPACK_CACHE` names.

    Raises:
        UsageError: `TRAINPACK_CACHE_LIMIT` is no size.
    """
    text = os.environ.get(LIMIT)
    return Cache(cache_folder() / "oci", parse_size(text, LIMIT) if text else DEFAULT_LIMIT)


def cache_key(*parts: object) -> str:
    """A key over everything that decides a layer's bytes; the way in which they are written is part of it."""
    return digest_of(canonical_json([FORMAT, *parts])).removeprefix("sha256:")


def parse_size(text: str, place: str) -> int:
    """A number of bytes: `500MB`, `20 GB`, `1e9` as `1000000000`.

    Raises:
        UsageError: It is none.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].upper() if match else ""
    if not match or (unit and unit not in _UNITS and f"{unit}B" not in _UNITS):
        raise UsageError(f"{text!r} is no size, expected one like 500MB or 20GB", place=place)
    return int(float(match[1]) * (_UNITS.get(unit) or _UNITS[f"{unit}B"]))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _stats(paths: list[Path]) -> list[tuple[Path, os.stat_result]]:
    """What is known of these files; another process may have removed some by now."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return found


def _remove(paths: list[Path]) -> Removed:
    files = size = 0
    for path, status in _stats(paths):
        with suppress(FileNotFoundError):
            path.unlink()
            files, size = files + 1, size + status.st_size
    return Removed(files=files, size=size)


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to the file that was opened: `prune` removes locks that nobody holds."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
