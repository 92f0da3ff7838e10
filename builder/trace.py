"""Trace: from an image to the versions that hold it, from a version to its image, and on to lock and commit.

A link is proven when digests match, recorded when it was only written down, broken when what is there now is
something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from builder import engine
from builder.containers import engine_errors, repo_digest
from builder.errors import (
    EngineError,
    ImageNotFoundError,
    NotFoundError,
    RegistryError,
    UsageError,
)
from builder.models.records import STORES, DockerImage, ModelVersion, VersionName
from builder.models.store import ModelStore
from builder.oci.remote.pull import RegistryClient
from builder.plan import LABEL
from builder.records import Record
from builder.reference import Reference, parse_reference

NAMING = "name a version as [STORE:]MODEL/VERSION, an image as REPOSITORY:TAG"
Status = Literal["proven", "recorded", "broken"]
LABELS = {
    "plan": f"{LABEL}.plan",
    "lock": f"{LABEL}.lock",
    "revision": "org.opencontainers.image.revision",
    "base": "org.opencontainers.image.base.name",
    "base digest": "org.opencontainers.image.base.digest",
}


class Link(Record):
    """One step of a trace.

    Attributes:
        kind: What `to` is of `from_`: `image`, `digest`, `version`, or a key of `LABELS`.
        status: `proven`, `recorded` or `broken`.
        why: What was compared, or why nothing could be.
    """

    kind: str
    from_: str = Field(serialization_alias="from")
    to: str
    status: Status
    why: str


class Trace(Record):
    """All that is linked to one image or version."""

    subject: str
    links: tuple[Link, ...]

    @property
    def broken(self) -> tuple[Link, ...]:
        """The links that no longer hold."""
        return tuple(link for link in self.links if link.status == "broken")


class FoundImage(Record):
    """What could be learned of an image now.

    Attributes:
        registry_digest: What its registry names by the tag or digest; None when it did not say.
        engine_digest: What the engine got from, or gave to, that repository; None when it has no such image.
        missing: The registry answers that it has no such image.
        labels: From the registry, else from the engine; None when neither has the image.
        why_not: Why the registry did not tell.
    """

    registry_digest: str | None = None
    engine_digest: str | None = None
    missing: bool = False
    labels: dict[str, str] | None = None
    why_not: str = ""

    @property
    def digest(self) -> str | None:
        """The digest as the registry says, else as the engine knows it."""
        return self.registry_digest or self.engine_digest


def parse_subject(text: str) -> VersionName | Reference:
    """Tell a version from an image, by the colon of a tag or digest, which only an image has. Pure.

    Args:
        text: `IMAGE` or `[STORE:]MODEL/VERSION`; a version whose name holds a colon needs its store.

    Raises:
        UsageError: It is neither.
    """
    head, colon, rest = text.partition(":")
    if not colon or (head in STORES and "/" in rest):
        return VersionName.parse(text)
    reference = parse_reference(text)
    if reference.tag or reference.digest:
        return reference
    raise UsageError(f"as an image, {text!r} has neither tag nor digest", remedy=NAMING)


def trace_image(reference: Reference, store: ModelStore) -> Trace:
    """From an image to its digest, its labels and the versions of a store that hold it.

    Raises:
        ImageNotFoundError: Neither registry nor engine nor store knows it.
        StoreError: The store failed.
    """
    found = find_image(reference)
    links = (
        *link_digest(reference, found),
        *link_labels(str(reference), found),
        *link_versions(reference, found, store.versions()),
    )
    if not links:
        raise ImageNotFoundError(
            "neither its registry nor the engine nor the local store knows this image",
            place=str(reference),
            remedy="check the name",
            details=(found.why_not,),
        )
    return Trace(subject=str(reference), links=links)


def trace_version(name: VersionName, store: ModelStore) -> Trace:
    """From a version to its image, to what the registry holds now, and to the image's labels.

    Raises:
        NotFoundError: The version does not exist.
        StoreError: The store failed.
    """
    image = _get_version(name, store).fields.image
    if image is None:
        return Trace(subject=str(name), links=())
    # Whoever runs an image without a tag gets its latest.
    found = find_image(Reference(image.name, image.tag or "latest"))
    link = link_image(name, image, found)
    of_this_image = link.status != "broken" and image.digest in (None, found.digest)
    labels = link_labels(link.to, found) if of_this_image else ()
    return Trace(subject=str(name), links=(link, *labels))


def _get_version(name: VersionName, store: ModelStore) -> ModelVersion:
    try:
        return store.get_version(name)
    except NotFoundError as error:
        # There is nothing to trace in a version that would only now be made.
        raise NotFoundError(error.message, place=error.place, remedy=NAMING) from None


def find_image(reference: Reference) -> FoundImage:
    """Ask the image's registry and the engine, whichever answers, by tag where there is one."""
    by_tag = Reference(reference.repository, reference.tag) if reference.tag else reference
    engine_digest, engine_labels = _ask_engine(by_tag)
    client = RegistryClient(by_tag)
    try:
        digest = client.digest()
    except RegistryError as error:
        return FoundImage(
            engine_digest=engine_digest,
            missing=isinstance(error, ImageNotFoundError),
            labels=engine_labels,
            why_not=error.message,
        )
    labels = _registry_labels(client)
    return FoundImage(
        registry_digest=digest,
        engine_digest=engine_digest,
        labels=engine_labels if labels is None and engine_digest == digest else labels,
    )


def _registry_labels(client: RegistryClient) -> dict[str, str] | None:
    try:
        return client.labels()
    except RegistryError:
        # The digest is known, which is what a trace is for; of another platform only the labels are not.
        return None


def _ask_engine(reference: Reference) -> tuple[str | None, dict[str, str] | None]:
    try:
        with engine_errors(str(reference)):
            image = engine.client().images.get(str(reference))
    except EngineError:
        return None, None
    digests = image.attrs.get("RepoDigests") or ()
    return repo_digest(digests, reference.repository), dict(image.labels)


def link_image(name: VersionName, image: DockerImage, found: FoundImage) -> Link:
    """From a version to the image that it names. Pure."""
    status, why = _image_status(image, found)
    to = str(Reference(image.name, image.tag, image.digest))
    return Link(kind="image", from_=str(name), to=to, status=status, why=why)


def _image_status(image: DockerImage, found: FoundImage) -> tuple[Status, str]:
    if found.missing:
        return "broken", "the registry has no such image"
    if image.digest is None:
        return "recorded", "the version holds no digest"
    if found.registry_digest is None:
        return "recorded", found.why_not
    if found.registry_digest == image.digest:
        return "proven", "the registry has this digest under the tag"
    return "broken", f"the tag now names {found.registry_digest}"


def link_digest(reference: Reference, found: FoundImage) -> tuple[Link, ...]:
    """From an image to its digest; no link when nobody knows it. Pure."""
    known = reference.digest or found.engine_digest
    to = found.registry_digest or known
    if to is None:
        return ()
    status, why = _digest_status(known, found)
    return (Link(kind="digest", from_=str(reference), to=to, status=status, why=why),)


def _digest_status(known: str | None, found: FoundImage) -> tuple[Status, str]:
    if found.missing:
        return "broken", "the registry no longer has it"
    if found.registry_digest is None:
        return "recorded", f"as the engine or the reference says; {found.why_not}"
    if known in (None, found.registry_digest):
        return "proven", "the registry has it, and its content matches"
    return "broken", f"the registry names this digest, expected {known}"


def link_labels(image: str, found: FoundImage) -> tuple[Link, ...]:
    """From an image to what its labels say of its making. Pure."""
    labels = found.labels or {}
    return tuple(
        Link(
            kind=kind,
            from_=image,
            to=labels[label],
            status="recorded",
            why="built from files that were not committed" if _is_dirty(kind, labels[label]) else label,
        )
        for kind, label in LABELS.items()
        if labels.get(label)
    )


def _is_dirty(kind: str, value: str) -> bool:
    return kind == "revision" and value.endswith("-dirty")


def link_versions(
    reference: Reference, found: FoundImage, versions: Iterable[ModelVersion]
) -> tuple[Link, ...]:
    """From an image to the versions that hold it, by digest, else by name and tag. Pure."""
    digest = found.digest or reference.digest
    return tuple(
        _link_version(reference, digest, found, version, version.fields.image)
        for version in versions
        if version.fields.image and _holds(version.fields.image, reference, digest)
    )


def _holds(image: DockerImage, reference: Reference, digest: str | None) -> bool:
    same_name = (image.name, image.tag) == (reference.repository, reference.tag)
    return same_name or (digest is not None and image.digest == digest)


def _link_version(
    reference: Reference, digest: str | None, found: FoundImage, version: ModelVersion, image: DockerImage
) -> Link:
    status, why = _version_status(digest, found, image)
    return Link(kind="version", from_=str(reference), to=str(version.name), status=status, why=why)


def _version_status(digest: str | None, found: FoundImage, image: DockerImage) -> tuple[Status, str]:
    if found.missing:
        return "broken", "the registry has no such image"
    if image.digest is None or digest is None:
        return "recorded", "by name and tag, there is no digest to compare"
    if image.digest == digest:
        return "proven", "the version holds this digest"
    return "broken", f"the version holds this tag with the digest {image.digest}"
