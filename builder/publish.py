"""`trainpack push`: an image of the engine goes to its registry, under a tag that never moves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from builder.errors import (
    EngineError,
    ImageNotFoundError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    UsageError,
)
from builder.oci.image import Image, Index
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import Push, push
from builder.plan import BuiltImage, PublishedImage
from builder.reference import Reference, parse_reference

_DONE = ("Pushed", "Layer already exists", "Mounted from")
_DENIED = re.compile(r"denied|unauthorized|no basic auth|authentication required|forbidden", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"connection refused|no such host|timeout|timed out|no route to host|x509|HTTP response to HTTPS",
    re.IGNORECASE,
)


def publish(image: BuiltImage, tell: Callable[[str], None]) -> PublishedImage:
    """Push an image; done already when the registry has this image id under the tag.

    Args:
        tell: Receives one line of progress per layer.

    Raises:
        UsageError: The tag is missing or is `latest`.
        EngineError: The engine does not have that image under that reference.
        RegistryError: The registry refused or failed, or has another image under the tag.
    """
    reference = parse_reference(image.reference)
    _check_tag(reference)
    _check_engine(image)
    published = _published(reference, image.image_id)
    if published:
        return _there_already(reference, image, published, tell)
    digest = _push(reference, tell)
    _read_back(reference, digest)
    return PublishedImage(reference=str(reference), image_id=image.image_id, digest=digest, new=True)


def start_push(reference: Reference, tell: Callable[[str], None]) -> Push:
    """A push whose layers may go ahead of their image.

    Raises:
        UsageError: The tag is missing or is `latest`.
    """
    _check_tag(reference)
    return Push(reference, tell)


def publish_kept(
    image: Image,
    built: BuiltImage,
    tell: Callable[[str], None],
    pushing: Push,
    before: PublishedImage | None = None,
) -> PublishedImage:
    """Push an image straight from the cache, without an engine; done already when the registry has it.

    Args:
        image: What is pushed, as the oci builder made it.
        built: What it is called.
        tell: Receives one line of progress per layer.
        pushing: From `start_push`; some layers may be on their way already.
        before: What was pushed before, whose layers need not be asked for one by one.

    Raises:
        RegistryError: The registry refused or failed, or has another image under the tag.
    """
    reference = parse_reference(built.reference)
    published = _published(reference, image.id)
    if published:
        return _there_already(reference, built, published, tell)
    same = before and parse_reference(before.reference).repository == reference.repository
    digest = pushing.finish(image, like=before.digest if before and same else None).digest
    return PublishedImage(reference=str(reference), image_id=built.image_id, digest=digest, new=True)


def _there_already(
    reference: Reference, image: BuiltImage, digest: str, tell: Callable[[str], None]
) -> PublishedImage:
    tell(f"{reference} is in the registry already, with this image id")
    return PublishedImage(reference=str(reference), image_id=image.image_id, digest=digest)


def publish_index(index: Index, reference: Reference, tell: Callable[[str], None]) -> PublishedImage:
    """Push the images of several platforms under one tag; an index is its own image id.

    Raises:
        UsageError: The tag is missing or is `latest`.
        RegistryError: The registry refused or failed, or has something else under the tag.
    """
    _check_tag(reference)
    try:
        found = RegistryClient(reference).digest()
    except (ImageNotFoundError, RegistryDeniedError):
        digest = push(index, reference, tell=tell).digest
        return PublishedImage(reference=str(reference), image_id=digest, digest=digest, new=True)
    if found != index.digest:
        raise RegistryError(
            f"the registry has {found} under this tag, not {index.digest}; a tag is never moved",
            place=str(reference),
        )
    tell(f"{reference} is in the registry already")
    return PublishedImage(reference=str(reference), image_id=found, digest=found)


def adopt(image: BuiltImage, tell: Callable[[str], None]) -> tuple[BuiltImage, PublishedImage]:
    """Take the image that the registry already has under this tag in place of the engine's own.

    Two engines that build the same plan make images of different ids, since an engine records the time.

    Raises:
        UsageError: The tag is missing or is `latest`.
        EngineError: The engine could not pull it.
        RegistryError: The registry has nothing under the tag, or failed.
    """
    from builder.engine import client  # noqa: PLC0415
    from builder.engine.containers import engine_errors, find_image  # noqa: PLC0415  (an image of the cache needs none)

    reference = parse_reference(image.reference)
    _check_tag(reference)
    digest = RegistryClient(reference).digest()
    tell(f"pulling {reference}@{digest}")
    with engine_errors(str(reference)):
        client().images.pull(reference.repository, tag=reference.tag)
    adopted = find_image(image.reference)
    return adopted, PublishedImage(reference=str(reference), image_id=adopted.image_id, digest=digest)


def _check_tag(reference: Reference) -> None:
    if reference.tag in (None, "latest"):
        raise UsageError(
            "an image is published under a tag that never moves, so not as latest",
            place=str(reference),
            remedy="`trainpack build` gives the image a tag of its own: push that one",
        )


def _check_engine(image: BuiltImage) -> None:
    from builder.engine.containers import find_image  # noqa: PLC0415

    found = find_image(image.reference).image_id
    if found != image.image_id:
        raise EngineError(
            f"the engine has the image {found} under this tag, expected {image.image_id}",
            place=image.reference,
            remedy="`trainpack build` makes it anew",
        )


def _published(reference: Reference, image_id: str) -> str | None:
    """The digest under which the registry has this image already; None when the tag is free."""
    registry = RegistryClient(reference)
    try:
        found = registry.image_ids()
    except (ImageNotFoundError, RegistryDeniedError):
        # Some registries deny reading a repository that the first push will make; where credentials are
        # really missing, the push is denied too.
        return None
    if image_id in found:
        return registry.digest()
    raise RegistryError(
        f"the registry has another image under this tag: {found[0]}, not {image_id}; a tag is never moved",
        place=str(reference),
        remedy="the same plan was built elsewhere: `trainpack push --adopt` takes that image, to be tested; "
        "or set another [image] version",
    )


def _push(reference: Reference, tell: Callable[[str], None]) -> str:
    from builder.engine import client  # noqa: PLC0415
    from builder.engine.containers import engine_errors  # noqa: PLC0415

    with engine_errors(str(reference)):
        events = client().api.push(reference.repository, tag=reference.tag, stream=True, decode=True)
        return follow_push(reference, events, tell)


def follow_push(reference: Reference, events: Iterable[dict[str, Any]], tell: Callable[[str], None]) -> str:
    """Tell the engine's push events as lines; returns the manifest digest that the registry gave.

    Raises:
        RegistryError: The push failed, or ended without a digest.
    """
    digest = None
    for event in events:
        if "error" in event:
            raise push_error(reference, str(event["error"]))
        for line in _lines(event):
            tell(line)
        digest = event.get("aux", {}).get("Digest", digest)
    if digest is None:
        raise RegistryError("the push ended without a digest", place=str(reference))
    return str(digest)


def _lines(event: dict[str, Any]) -> Iterator[str]:
    status = event.get("status", "")
    if event.get("id") and status.startswith(_DONE):
        yield f"{event['id']}: {status[0].lower()}{status[1:]}"


def push_error(reference: Reference, message: str) -> RegistryError:
    """What the engine said of a failed push, told with a remedy."""
    said = f"the push failed: {message}"
    if _DENIED.search(message):
        login = " ".join(["docker login", *filter(None, [reference.registry])])
        remedy = f"`{login}` with an account that may push there"
        return RegistryDeniedError(said, place=str(reference), remedy=remedy)
    if _UNREACHABLE.search(message):
        remedy = "check the registry's name and the engine's network; `trainpack doctor` checks the registry"
        return RegistryUnavailableError(said, place=str(reference), remedy=remedy)
    return RegistryError(said, place=str(reference))


def _read_back(reference: Reference, digest: str) -> None:
    found = RegistryClient(reference).digest()
    if found != digest:
        raise RegistryError(
            f"the registry now has {found} under this tag, expected {digest}: somebody else pushed it too",
            place=str(reference),
        )
