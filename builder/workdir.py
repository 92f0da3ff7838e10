"""`.trainpack/` beside `trainpack.toml`: what trainpack remembers of a folder; git and images ignore it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from builder.atomic import new_file
from builder.errors import UsageError
from builder.plan import BuildPlan, BuiltImage, PublishedImage

NAME = ".trainpack"
LAST_BUILD = "last-build.json"
LAST_PLAN = "last-plan.json"
LAST_PUSH = "last-push.json"


def workdir(folder: Path) -> Path:
    """The folder's `.trainpack/`, made when missing, with a `.gitignore` of its own."""
    path = folder / NAME
    path.mkdir(exist_ok=True)
    ignore = path / ".gitignore"
    if not ignore.exists():
        write_atomically(ignore, "*\n")
    return path


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all, whatever interrupts it."""
    write_all_atomically({path: text}, mode)


def write_all_atomically(
    texts: Mapping[Path, str], mode: int = 0o644, *, scratch: Path | None = None
) -> None:
    """Write files whole, all of them or none: each takes its place only once all are on the disk.

    Args:
        scratch: A folder of the same file system, where they wait; without one, beside their places.
    """
    with ExitStack() as stack:
        for path, text in texts.items():
            file = stack.enter_context(new_file(path, mode, scratch=scratch))
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def remember_build(folder: Path, image: BuiltImage) -> None:
    """Make this image the folder's last build."""
    write_atomically(workdir(folder) / LAST_BUILD, image.model_dump_json(indent=2) + "\n")


def last_build(folder: Path) -> BuiltImage:
    """The folder's last build.

    Raises:
        UsageError: Nothing was built here yet.
    """
    path = folder / NAME / LAST_BUILD
    if not path.is_file():
        raise UsageError(
            f"nothing was built in {folder.resolve()} yet",
            remedy="run `trainpack build` first, or name an image",
        )
    return BuiltImage.model_validate_json(path.read_text(encoding="utf-8"))


def remember_plan(folder: Path, plan: BuildPlan) -> None:
    """Keep the plan of the last build, for `plan --diff`."""
    write_atomically(workdir(folder) / LAST_PLAN, plan.model_dump_json() + "\n")


def last_plan(folder: Path) -> BuildPlan | None:
    """The plan of the last build; None when there is none, or one of another trainpack's form."""
    path = folder / NAME / LAST_PLAN
    try:
        return BuildPlan.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def remember_push(folder: Path, image: PublishedImage) -> None:
    """Keep what digest this image id got in which registry."""
    pushed = workdir(folder) / "published"
    pushed.mkdir(exist_ok=True)
    text = image.model_dump_json(indent=2) + "\n"
    write_atomically(pushed / f"{_hex(image.image_id)}.json", text)
    write_atomically(folder / NAME / LAST_PUSH, text)


def previous_push(folder: Path) -> PublishedImage | None:
    """What was pushed from here last, whatever it was; None when nothing was."""
    try:
        return PublishedImage.model_validate_json((folder / NAME / LAST_PUSH).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def last_push(folder: Path, image_id: str) -> PublishedImage | None:
    """Where this image id was pushed from here, None when it was not."""
    path = folder / NAME / "published" / f"{_hex(image_id)}.json"
    return PublishedImage.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
