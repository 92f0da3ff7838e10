"""Outputs as artifacts: a file as it is, a folder as one archive with everything below it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple


class Artifact(NamedTuple):
    """One output of a run.

    Attributes:
        name: The name of the file, or of the folder.
        folder: Where the paths start.
        paths: The file's own, or all those below the folder.
    """

    name: str
    folder: str
    paths: tuple[str, ...]

    def pack(self, place: str) -> str:
        """The path of the file to send, which has the name that it is to have.

        Args:
            place: An empty folder, for what has to be made.

        Raises:
            OSError: There is no room, or a file cannot be read.
        """
        if os.sep in self.paths[0]:
            return self._archived(os.path.join(place, f"{self.name}.zip"))
        path = os.path.join(self.folder, self.paths[0])
        if self.name == self.paths[0]:
            return path
        link = os.path.join(place, self.name)
        os.symlink(path, link)
        return link

    def _archived(self, path: str) -> str:
        import zipfile

        # Weights do not get smaller; a time that the format cannot hold must not lose a file.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            archive.comment = b"trainpack folder"  # so that a store gives it back as a folder
            for member in self.paths:
                archive.write(os.path.join(self.folder, member), _text(member.partition(os.sep)[2]))
        return path


def artifacts(folder: str, paths: Iterable[str]) -> list[Artifact]:
    """Group the files of a folder by what is at its top."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.partition(os.sep)[0], []).append(path)
    return [Artifact(_text(name), folder, tuple(members)) for name, members in groups.items()]


def _text(path: str) -> str:
    """A path that need not be UTF-8 as text, different for different paths."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
