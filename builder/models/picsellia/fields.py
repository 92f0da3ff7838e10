"""The fields of a version as the SDK takes them, and as the platform's raw answers hold them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from builder.errors import UsageError
from builder.flags import REFUSED, SHORT, normalise_flags
from builder.models.records import DIGEST_VARIABLE, DockerImage, VersionFields
from builder.models.values import NOT_CONFIGURED, checked_version

STORE = "picsellia"
UNSUPPORTED = "MULTI"  # the SDK lists it as a type, and refuses it for a version
_CLEARABLE: dict[str, Any] = {"description": "", "labels": {}, "base_parameters": {}}
_TIME = TypeAdapter(datetime)


def keywords(
    fields: VersionFields, place: str, framework: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """The SDK's keywords for what is to be written.

    Args:
        framework: The version's present framework, when it exists.
        kind: The version's present type, when it exists.

    Raises:
        UsageError: The platform or its SDK does not take a value.
    """
    checked = checked_version(fields, place)
    given: dict[str, Any] = {
        "description": checked.description,
        "framework": _choice("framework", checked.framework, framework),
        "type": _type(checked.type, kind),
        "notebook_link": checked.notebook_link,
        "labels": checked.labelmap,
        "base_parameters": checked.parameters,
    }
    if checked.image is not None:
        given |= docker_keywords(checked.image)
    return {key: value for key, value in given.items() if value is not None}


def cleared(given: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords, with an empty value for what the version has and should not have.

    Only where the SDK itself knows an empty value; framework, type, notebook link and image stay.
    """
    present = {**raw, "base_parameters": _parameters(raw)}
    emptied = {key: value for key, value in _CLEARABLE.items() if key not in given and present.get(key)}
    return {**given, **emptied}


def docker_keywords(image: DockerImage) -> dict[str, Any]:
    """The SDK's keywords for an image.

    Raises:
        UsageError: The environment holds what trainpack itself sets.
    """
    if DIGEST_VARIABLE in image.env:
        raise UsageError(f"{DIGEST_VARIABLE} is set by trainpack itself", remedy="take it out of [run] env")
    digest = {DIGEST_VARIABLE: image.digest} if image.digest else {}
    return {
        "docker_image_name": image.name,
        "docker_tag": image.tag,
        "docker_flags": list(image.flags),
        "docker_env_variables": {**image.env, **digest},
    }


def _type(wanted: str | None, present: str | None) -> str | None:
    kind = _choice("type", wanted, present)
    if kind == "MASK" and present == "MASK":
        return None
    if kind == "MASK" and present is not None:
        raise UsageError(
            f"the type of an existing version cannot become MASK (it is {present}): the SDK refuses it",
            remedy="attach to a new version with --create, or leave [model] type out",
        )
    return kind


def _choice(field: str, wanted: str | None, present: str | None) -> str | None:
    """The value to send, or None to send nothing.

    Raises:
        UsageError: The platform does not take it, or the field would have to be cleared.
    """
    if wanted == NOT_CONFIGURED and present not in (None, NOT_CONFIGURED):
        raise UsageError(
            f"the {field} of a version cannot go back from {present} to NOT_CONFIGURED: the SDK refuses it",
            remedy=f"leave [model] {field} out, or attach to a new version with --create",
        )
    if wanted == UNSUPPORTED:
        raise UsageError(
            f"Picsellia takes no {field} {UNSUPPORTED} for a version, though it lists it",
            remedy=f"change [model] {field}",
        )
    return None if wanted == NOT_CONFIGURED else wanted


def read_fields(raw: Mapping[str, Any]) -> VersionFields:
    """The fields in a version's raw answer; what was never set is None."""
    return VersionFields(
        description=raw.get("description") or None,
        framework=configured(raw.get("framework")),
        type=configured(raw.get("type")),
        notebook_link=raw.get("notebook_link") or None,
        labelmap=labelmap(raw.get("labels")),
        parameters=_parameters(raw),
        image=read_image(raw),
    )


def _parameters(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """Two names are in use for them."""
    parameters: dict[str, Any] | None = raw.get("parameters")
    return raw.get("base_parameters") if parameters is None else parameters


def configured(value: str | None) -> str | None:
    """An enum's value; None for the platform's word for none."""
    return None if value == NOT_CONFIGURED else value


def labelmap(labels: Mapping[str, Any] | None) -> dict[str, str] | None:
    """A labelmap as it is stored, with text for its indices and names."""
    return None if labels is None else {str(index): str(name) for index, name in labels.items()}


def read_image(raw: Mapping[str, Any]) -> DockerImage | None:
    """The image in a version's raw answer, with the digest that trainpack keeps in the environment."""
    if not raw.get("docker_image"):
        return None
    env = {str(name): str(value) for name, value in (raw.get("docker_env_variables") or {}).items()}
    return DockerImage(
        name=raw["docker_image"],
        tag=raw.get("docker_tag") or "",
        digest=env.pop(DIGEST_VARIABLE, None),
        flags=readable_flags(raw.get("docker_flags") or ()),
        env=env,
    )


def readable_flags(flags: str | Sequence[str]) -> tuple[str, ...]:
    """Flags in canonical form where they can be read as flags at all, else as they are stored.

    Whatever a version holds must be shown, also what trainpack would refuse to write.
    """
    stored = (flags,) if isinstance(flags, str) else tuple(map(str, flags))
    names = re.findall(r"(?<!\S)--?([A-Za-z][\w-]*)", " ".join(stored))
    try:
        return normalise_flags(stored, allow=(*names, *SHORT.values(), *REFUSED))
    except ValueError:
        return stored


def provenance(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Who made an object and when, where the raw answer tells it."""
    return {
        "creator": _creator(raw),
        "created": _time(raw, "created_at"),
        "updated": _time(raw, "updated_at"),
    }


def _creator(raw: Mapping[str, Any]) -> str | None:
    creator = raw.get("created_by") or raw.get("creator")
    name = creator.get("username") if isinstance(creator, Mapping) else creator
    return name if isinstance(name, str) else None


def _time(raw: Mapping[str, Any], key: str) -> datetime | None:
    try:
        time = _TIME.validate_python(raw.get(key))
    except ValidationError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
