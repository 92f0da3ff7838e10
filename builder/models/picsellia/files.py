"""Files and folders to and from the platform's object storage."""

from __future__ import annotations

import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from trainpack_entrypoint.schema import close_match

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.folders import is_packed, new, pack, refuse_existing, unpack, writable
from builder.models.names import Name
from builder.models.picsellia.platform import Platform
from builder.models.picsellia.speaking import shown
from builder.models.records import StoredFile

_CONTENT = "content"


class Uploaded(NamedTuple):
    """An object in storage."""

    filename: str
    object_name: str
    large: bool
    content_type: str

    @property
    def row(self) -> dict[str, Any]:
        """How the platform's rows of files name it."""
        return {"filename": self.filename, "object_name": self.object_name, "large": self.large}


class StoredObject:
    """An object in storage that no row of the platform names by itself: a thumbnail."""

    def __init__(self, platform: Platform, object_name: str) -> None:
        self._platform = platform
        self.object_name = object_name
        self.filename = object_name.rpartition("/")[2]

    @property
    def url(self) -> str:
        """A fresh address."""
        return self.reset_url()

    def reset_url(self) -> str:
        """A fresh address."""
        return str(self._platform.connection.init_download(self.object_name))


def stored_files(rows: Iterable[Mapping[str, Any]]) -> tuple[StoredFile, ...]:
    """The files of a list's rows, by name; the platform tells neither size nor hash."""
    files = (StoredFile(name=row["name"], filename=row["filename"]) for row in rows)
    return tuple(sorted(files, key=lambda file: file.name))


def stored_name(path: Path) -> str:
    """What a file, or a folder packed into one, is called in storage."""
    name = path.resolve().name
    return f"{name}.zip" if path.is_dir() else name


def upload(
    platform: Platform, path: Path, object_name: Callable[[str], str], connector: Any = None
) -> Uploaded:
    """Send a file, or a folder packed into one; over 25 MiB the SDK does it in parts.

    Args:
        object_name: Asks the platform for the name of a new object, by a filename.
        connector: The id of the storage; the organization's own unless given.

    Raises:
        UsageError: The path cannot be read.
        StoreError: The platform does not answer, or refuses.
    """
    with _one_file(path) as file:
        filename = stored_name(path)

        def send() -> Uploaded:
            name = object_name(filename)
            _, large, content_type = platform.connection.upload_file(name, file, connector)
            return Uploaded(filename, name, large, content_type)

        # An object that is sent twice has two names, and only the second is used.
        return platform.repeat(send)


def fetch(platform: Platform, owner: Name, label: str, file: Any, into: Path) -> Path:
    """Write a stored file below a folder and return its path; a folder comes back as one.

    Args:
        file: An object of the SDK that can be downloaded.

    Raises:
        StoreError: The storage does not have it, or gives something else than it announced.
        UsageError: The target exists, or cannot be written.
    """
    filename = _safe(file.filename, owner)
    target = into / filename
    with writable(into):
        if not filename.endswith(".zip"):
            refuse_existing(target)
        with workspace(into) as folder:
            content = folder / _CONTENT
            receive(platform, owner, {f"file {label}": {content: file}}, folder)
            with content.open("rb") as opened:
                packed = is_packed(opened)
            target = target.with_name(filename.removesuffix(".zip")) if packed else target
            with new(target) as temporary:
                unpack(content, temporary) if packed else content.rename(temporary)
    return target


def receive(platform: Platform, owner: Name, groups: Mapping[str, Mapping[Path, Any]], folder: Path) -> None:
    """Download objects of the SDK: in parallel, resumed, verified where storage gives a checksum.

    Args:
        groups: What they are called in messages, and where each goes.
        folder: On the same disk, for what is not complete.

    Raises:
        StoreError: The storage does not have one, or gives something else than it announced.
        UsageError: The disk is full, or cannot be written.
    """
    from trainpack_entrypoint.failures import RunError  # noqa: PLC0415
    from trainpack_entrypoint.platform.download.fetch import fetch as download  # noqa: PLC0415  (needs `requests`)
    from trainpack_entrypoint.platform.download.links import Item  # noqa: PLC0415

    items = [
        [Item(what, str(path), remote) for path, remote in files.items()] for what, files in groups.items()
    ]
    try:
        with workspace(folder) as parts, platform.speaking():
            download(items, str(parts), platform.patience.seconds, lambda _: None)
    except RunError as error:
        kind = UsageError if error.cause == "workspace" else StoreError
        problems = [
            shown(problem, platform.connection.api_token) for problem in error.problems or [error.message]
        ]
        raise kind(problems[0], place=str(owner), details=tuple(problems[1:])) from None


@contextmanager
def workspace(into: Path) -> Iterator[Path]:
    """A folder below another, on the same disk, that does not stay."""
    into.mkdir(parents=True, exist_ok=True)
    folder = into / f".{uuid.uuid4().hex}.part"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def no_file(owner: Name, label: str, known: Sequence[str]) -> NotFoundError:
    """The error for a file that is not there, with those that are."""
    return NotFoundError(
        f"it has no file {label!r}{close_match(label, known)}",
        place=str(owner),
        remedy=f"it has: {', '.join(known)}" if known else "it has no files",
    )


@contextmanager
def _one_file(path: Path) -> Iterator[Path]:
    """The file itself; of a folder, a packed copy of all its levels."""
    if not path.is_dir():
        with _readable(path):
            if not stat.S_ISREG(path.stat().st_mode):
                raise UsageError("this is no file", place=str(path))
            path.open("rb").close()
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="trainpack-") as folder:
        packed = Path(folder, stored_name(path))
        with _readable(path), packed.open("wb") as file:
            pack(path, file)
        yield packed


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"this cannot be read: {error.strerror}", place=str(error.filename or path)
        ) from None


def _safe(filename: str, owner: Name) -> str:
    """A filename that stays in its folder.

    Raises:
        StoreError: It does not.
    """
    if Path(filename).name != filename or not filename.strip(".") or not filename.isprintable():
        raise StoreError(f"the stored file is called {filename!r}, which is no file's name", place=str(owner))
    return filename
