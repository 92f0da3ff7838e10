"""What is stored with an object: names and sizes as rows in the database, contents among the blobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainpack_entrypoint.schema import close_match

from builder.errors import NotFoundError, StoreError
from builder.models.folders import new, unpack, writable
from builder.models.local.blobs import Blobs, at_once
from builder.models.local.database import Database
from builder.models.names import DatasetName, ExperimentName, Name, VersionName
from builder.models.records import Holder, StoredFile
from builder.records import Record

FILE, THUMBNAIL = "file", "thumbnail"


_HOLDERS = """
    SELECT 'version' AS kind, owners.name AS owner, objects.name AS own, files.name AS file
    FROM files JOIN versions AS objects ON objects.id = owner_id
    JOIN models AS owners ON owners.id = model_id WHERE sha256 = :sha256
    UNION ALL SELECT 'experiment', owners.name, objects.name, files.name
    FROM files JOIN experiments AS objects ON objects.id = owner_id
    JOIN projects AS owners ON owners.id = project_id WHERE sha256 = :sha256
    UNION ALL SELECT 'dataset', owners.name, objects.name, files.name
    FROM files JOIN dataset_versions AS objects ON objects.id = owner_id
    JOIN datasets AS owners ON owners.id = dataset_id WHERE sha256 = :sha256
    ORDER BY 1, 2, 3, 4
"""
_NAMES: dict[str, Callable[[str, str], Name]] = {
    "version": lambda owner, own: VersionName(model=owner, version=own),
    "experiment": lambda owner, own: ExperimentName(project=owner, experiment=own),
    "dataset": lambda owner, own: DatasetName(dataset=owner, version=own),
}


class Damage(Record):
    """A content that is missing or not what was once kept, and who has it."""

    sha256: str
    problem: str
    holders: tuple[Holder, ...]


class Files:
    """The files of all objects; an object is known by its id."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    def of(self, owner_id: str, role: str = FILE) -> tuple[StoredFile, ...]:
        """The files of an object, by name.

        Raises:
            StoreError: The store failed.
        """
        rows = self._database.execute(
            "SELECT name, filename, size, sha256 FROM files WHERE owner_id = ? AND role = ? ORDER BY name",
            (owner_id, role),
        )
        return tuple(StoredFile(**row) for row in rows)

    def put(self, sources: Mapping[str, Path]) -> tuple[StoredFile, ...]:
        """Keep the contents of files and folders; nothing refers to them before `write`.

        Args:
            sources: By the name that each is to have.

        Raises:
            UsageError: A path cannot be read.
            StoreError: The store cannot be written.
        """
        self._sweep()
        blobs = self._blobs.put_all(list(sources.values()))
        return tuple(
            StoredFile(name=name, filename=_filename(path), size=blob.size, sha256=blob.sha256)
            for (name, path), blob in zip(sources.items(), blobs, strict=True)
        )

    def write(self, owner_id: str, files: Sequence[StoredFile], role: str = FILE) -> None:
        """Let an object have files, in place of those of the same name: a part of the open transaction.

        Raises:
            StoreError: The store failed.
        """
        self._blobs.keep(file.sha256 or "" for file in files)
        self._database.insert(
            "INSERT OR REPLACE INTO files (owner_id, role, name, filename, size, sha256)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(owner_id, role, file.name, file.filename, file.size, file.sha256) for file in files],
        )

    def hand_on(self, from_id: str, to_id: str) -> None:
        """Let an object have the files of another: a part of the open transaction.

        Raises:
            StoreError: The store failed.
        """
        self._database.execute(
            "INSERT INTO files SELECT ?, role, name, filename, size, sha256 FROM files"
            " WHERE owner_id = ? AND role = ?",
            (to_id, from_id, FILE),
        )

    def fetch(self, files: Sequence[StoredFile], label: str, owner: Name, into: Path) -> Path:
        """Write the one that is asked for below a folder, verified; a folder comes back as a folder.

        Raises:
            NotFoundError: None has this name.
            StoreError: What is stored is not what was once kept.
            UsageError: The target exists, or cannot be written.
        """
        file = next((file for file in files if file.name == label), None)
        if file is None or file.sha256 is None:
            raise _not_found(files, label, owner)
        with _placed(owner, label), writable(into):
            packed = self._blobs.is_packed(file.sha256)
            target = into / (file.filename.removesuffix(".zip") if packed else file.filename)
            with new(target) as temporary:
                if packed:
                    unpack(self._blobs.check(file.sha256), temporary)
                else:
                    self._blobs.copy(file.sha256, temporary)
        return target

    def fetch_all(self, files: Sequence[StoredFile], owner: Name, target: Path) -> Path:
        """Write all files below a new folder, each by its name as a relative path, verified.

        Raises:
            StoreError: What is stored is not what was once kept.
            UsageError: The target exists, or cannot be written.
        """
        with writable(target), new(target) as temporary:
            for folder in sorted({(temporary / file.name).parent for file in files}):
                folder.mkdir(parents=True, exist_ok=True)

            def copy(file: StoredFile) -> None:
                with _placed(owner, file.name):
                    self._blobs.copy(file.sha256 or "", temporary / file.name)

            at_once(copy, files)
        return target

    def damaged(self) -> Iterator[Damage]:
        """Read every content that is stored, and tell those that are not what was once kept.

        Raises:
            StoreError: The store failed.
        """
        for (sha256,) in self._database.execute("SELECT DISTINCT sha256 FROM files"):
            try:
                self._blobs.check(sha256)
            except StoreError as error:
                yield Damage(sha256=sha256, problem=error.message, holders=self.holders(sha256))

    def holders(self, sha256: str) -> tuple[Holder, ...]:
        """The objects that have a file of this content, by kind and name.

        Raises:
            StoreError: The store failed.
        """
        return tuple(
            Holder(object=_NAMES[kind](owner, own), file=file)
            for kind, owner, own, file in self._database.execute(_HOLDERS, {"sha256": sha256})
        )

    def _sweep(self) -> None:
        """Once a day, remove what crashes left; the lock keeps anybody from referring to it meanwhile."""
        if not self._blobs.sweep_is_due():
            return
        with self._database.transaction():
            rows = self._database.execute("SELECT DISTINCT sha256 FROM files")
            self._blobs.remove_unused({row["sha256"] for row in rows})


def own_name(path: Path) -> str:
    """What a file or folder is called: a link by its own name, `.` by that of the folder."""
    return path.resolve().name if path.name in ("", "..") else path.name


def _filename(path: Path) -> str:
    return f"{own_name(path)}.zip" if path.is_dir() else own_name(path)


def _not_found(files: Sequence[StoredFile], label: str, owner: Name) -> NotFoundError:
    known = [file.name for file in files]
    return NotFoundError(
        f"it has no file {label!r}{close_match(label, known)}",
        place=str(owner),
        remedy=f"it has: {', '.join(known)}" if known else "it has no files",
    )


@contextmanager
def _placed(owner: Name, label: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        details = (error.place,) if error.place else ()
        raise StoreError(
            f"{label}: {error.message}", place=str(owner), remedy=error.remedy, details=details
        ) from None
