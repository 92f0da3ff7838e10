"""Make a version, or edit one, by hand: what is to be written, and the one write that is read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from trainpack_entrypoint.schema import close_match

from builder.errors import NotFoundError, StoreError, UsageError
from builder.flags import normalise_flags
from builder.models.compare import diff
from builder.models.names import VersionName
from builder.models.records import Change, DockerImage, ExperimentFields, ModelVersion, VersionFields
from builder.models.store import ModelStore
from builder.models.values import checked_version
from builder.models.writing import write_fields
from builder.records import Record
from builder.reference import parse_reference


class Edits(Record):
    """What was asked for; None and empty leave a field as it is.

    Attributes:
        parameters: Set one by one, as JSON or else as text.
        labelmap: Replaces the whole.
        image: `REPOSITORY:TAG[@DIGEST]`; flags and env stay.
        flags: Replace all flags; one empty word takes them all away.
        env: Set one by one.
        allow: Flags to let through though they are refused or unknown.
        unset: `parameters.NAME` and `env.NAME`, taken away.
    """

    description: str | None = None
    framework: str | None = None
    type: str | None = None
    notebook_link: str | None = None
    parameters: dict[str, str] = Field(default_factory=dict)
    labelmap: dict[str, str] | None = None
    image: str | None = None
    flags: tuple[str, ...] | None = None
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    allow: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()


class Edited(Record):
    """The result of an edit.

    Attributes:
        thumbnail: Whether a picture was stored.
    """

    version: VersionName
    changes: tuple[Change, ...]
    written: bool
    thumbnail: bool


def create(
    store: ModelStore, name: VersionName, fields: VersionFields, thumbnail: Path | None = None
) -> ModelVersion:
    """Make a version with these fields, read it back, and give it a picture.

    Raises:
        UsageError: The store takes no such name or value.
        StoreError: It exists already, or the store failed; it says what was written.
    """
    if _exists(store, name):
        raise StoreError("this version exists already", place=str(name), remedy="`trainpack models edit`")
    made = write_fields(store, name, None, fields)
    if thumbnail is None:
        return made
    _store_picture(store, name, thumbnail, "the version with its fields")
    return store.versions.get(name)


def edit(
    store: ModelStore,
    name: VersionName,
    edits: Edits,
    *,
    thumbnail: Path | None = None,
    dry_run: bool = False,
    announce: Callable[[tuple[Change, ...]], None] = lambda changes: None,
) -> Edited:
    """Write what was asked for, in one request, and read it back; then the picture.

    Args:
        announce: Is given what will change, before anything is written.

    Raises:
        UsageError: A value cannot be, or the store does not take it.
        NotFoundError: There is no such version.
        StoreError: The store failed; it says what was written.
    """
    held = store.versions.get(name)
    fields = edited(held.fields, edits)
    changes = diff(held.fields, fields)
    announce(changes)
    if changes and not dry_run:
        write_fields(store, name, held, fields)
    if thumbnail and not dry_run:
        _store_picture(store, name, thumbnail, ", ".join(each.field for each in changes) or "nothing else")
    return Edited(
        version=name,
        changes=changes,
        written=bool(changes or thumbnail) and not dry_run,
        thumbnail=bool(thumbnail) and not dry_run,
    )


def _store_picture(store: ModelStore, name: VersionName, path: Path, written: str) -> None:
    try:
        store.versions.store_thumbnail(name, path)
    except StoreError as error:
        raise StoreError(
            error.message,
            place=error.place,
            details=(*error.details, f"written: {written}", "not written, or not known to be: thumbnail"),
            remedy=error.remedy,
        ) from None


def _exists(store: ModelStore, name: VersionName) -> bool:
    try:
        store.versions.get(name)
    except NotFoundError:
        return False
    return True


def edited(held: VersionFields, edits: Edits) -> VersionFields:
    """The fields to write over what is held: those that are edited, whole, and None for the others. Pure.

    Raises:
        UsageError: A value cannot be, flags or env have no image, or there is nothing of the name to unset.
    """
    fields = VersionFields(
        description=edits.description,
        framework=edits.framework,
        type=edits.type,
        notebook_link=edits.notebook_link,
        labelmap=edits.labelmap,
        parameters=_parameters(held.parameters or {}, edits),
        image=_image(held.image, edits),
    )
    return checked_version(fields, "the edit")


def parse_value(name: str, text: str) -> Any:
    """A parameter's value as it was typed: JSON, else text.

    Raises:
        UsageError: It is a number that JSON cannot say.
    """
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):
        raise UsageError(
            f"{text[:60]!r} is nothing that JSON can say",
            place=f"--parameter {name}",
            remedy=f"""to store it as text, quote it: --parameter '{name}="{text[:60]}"'""",
        ) from None
    return value


def _parameters(held: dict[str, Any], edits: Edits) -> dict[str, Any] | None:
    gone = _unset("parameters", held, edits.unset)
    if not edits.parameters and not gone:
        return None
    kept = {name: value for name, value in held.items() if name not in gone}
    return kept | {name: parse_value(name, text) for name, text in edits.parameters.items()}


def _image(held: DockerImage | None, edits: Edits) -> DockerImage | None:
    gone = _unset("env", held.env if held else {}, edits.unset)
    if not (edits.image or edits.env or gone) and edits.flags is None:
        return None
    image = _named(held, edits.image) if edits.image else held
    if image is None:
        raise UsageError("flags and env belong to an image, and there is none", remedy="name it with --image")
    env = {name: value for name, value in image.env.items() if name not in gone} | edits.env
    flags = image.flags if edits.flags is None else _flags(edits.flags, edits.allow)
    return image.model_copy(update={"env": env, "flags": flags})


def _named(held: DockerImage | None, text: str) -> DockerImage:
    reference = parse_reference(text)
    if not reference.tag or reference.tag == "latest":
        raise UsageError(
            f"{text!r}: a version names its image by a tag that does not move",
            place="--image",
            remedy="name it as REPOSITORY:TAG[@DIGEST], not latest",
        )
    new = DockerImage(name=reference.repository, tag=reference.tag, digest=reference.digest)
    if held is None:
        return new
    same = (held.name, held.tag) == (new.name, new.tag) and new.digest is None
    digest = held.digest if same else new.digest
    return new.model_copy(update={"digest": digest, "flags": held.flags, "env": held.env})


def _flags(flags: Sequence[str], allow: Sequence[str]) -> tuple[str, ...]:
    try:
        return normalise_flags([flag for flag in flags if flag], allow)
    except ValueError as error:
        raise UsageError(
            str(error), place="--flag", remedy="--allow NAME lets a flag through by its name"
        ) from None


def _unset(table: str, held: dict[str, Any], unset: Sequence[str]) -> set[str]:
    names = set()
    for text in unset:
        head, dot, name = text.partition(".")
        if head not in ("parameters", "env") or not dot:
            raise UsageError(f"{text!r} is neither parameters.NAME nor env.NAME", place="--unset")
        if head == table:
            if name not in held:
                raise UsageError(f"there is no {text}{close_match(name, sorted(held))}", place="--unset")
            names.add(name)
    return names


def experiment_fields(received: VersionFields, edits: Edits) -> ExperimentFields:
    """The fields of an experiment that starts from a version's; None where it just receives them. Pure.

    Raises:
        UsageError: A value cannot be, or flags or env have no image.
    """
    fields = edited(received, edits)
    return ExperimentFields(
        description=fields.description,
        parameters=fields.parameters,
        labelmap=fields.labelmap,
        image=fields.image,
    )
