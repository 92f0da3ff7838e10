"""Trace: from an image, a version, an experiment or a file to all that it is linked to, both ways.

What is linked is said in `links`, without looking; what is there now is found in `looking` and the stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from builder.errors import ImageNotFoundError, NotFoundError
from builder.models.names import (
    DatasetName,
    ExperimentName,
    ExperimentSummary,
    Name,
    VersionName,
    VersionSummary,
)
from builder.models.records import DatasetVersion, DockerImage, Experiment, ModelVersion
from builder.models.store import ModelStore
from builder.reference import Reference
from builder.trace import links as link
from builder.trace.looking import find_image, reference_of
from builder.trace.records import FoundImage, Link, Trace
from builder.trace.subjects import NAMING, Subject, parse_subject

__all__ = ["FoundImage", "Link", "Trace", "parse_subject", "trace"]
_BLOCK = 1 << 20
Named = TypeVar("Named", bound=Name)
Held = TypeVar("Held")


def trace(subject: Subject, store: ModelStore) -> Trace:
    """Follow a subject through a store, its registry and the engine.

    Args:
        store: Where a version or experiment lives, and where versions and experiments of an image or file
            are looked for.

    Raises:
        NotFoundError: There is no such version or experiment, or nothing has that file.
        ImageNotFoundError: Neither registry nor engine nor store knows the image.
        StoreError: The store failed.
    """
    if isinstance(subject, VersionName):
        return _trace(str(subject), version_links(_named(subject, store.versions.get), store))
    if isinstance(subject, ExperimentName):
        experiment = _named(subject, store.experiments.get)
        return _trace(link.node(subject), experiment_links(experiment, store))
    if isinstance(subject, Path):
        return _trace(str(subject), file_links(subject, store))
    reference = _reference(subject, store) if isinstance(subject, str) else subject
    return _trace(str(reference), image_links(reference, store))


def version_links(version: ModelVersion, store: ModelStore) -> Iterator[Link]:
    """A version's image and its making, its source with data and parameters, and what was made from it."""
    yield from _image_links(version.name, version.fields.image)
    yield from source_links(version, store)
    users = [_experiment(each.name, store) for each in _experiments(store) if each.base == version.name]
    yield from link.link_uses(
        str(version.name), version.fields.image, filter(None, users), "experiment from it"
    )


def source_links(version: ModelVersion, store: ModelStore) -> Iterator[Link]:
    """Where a version came from: its experiment, the data that it has seen, its parameters."""
    source = version.source
    name = source.experiment if source else None
    known = name is not None and name.store == store.name
    experiment = _experiment(name, store) if name is not None and known else None
    yield from link.link_source(version, experiment, known=known)
    if source:
        yield from _dataset_links(str(version.name), source.datasets, store)
    if experiment:
        yield from link.link_run(experiment)


def experiment_links(experiment: Experiment, store: ModelStore) -> Iterator[Link]:
    """An experiment's image and run, the version that it was made from, its data, and what was published."""
    yield from _image_links(experiment.name, experiment.fields.image)
    yield from link.link_run(experiment)
    base = _version(experiment.base, store) if experiment.base else None
    yield from link.link_experiment(experiment, base)
    yield from _dataset_links(link.node(experiment.name), experiment.datasets, store)
    published = (_version(name, store) for name in experiment.published)
    yield from link.link_published(experiment, filter(None, published))


def image_links(reference: Reference, store: ModelStore) -> Iterator[Link]:
    """An image's digest and making, and the versions and experiments of a store that have it.

    Raises:
        ImageNotFoundError: Nobody knows it.
    """
    found = find_image(reference)
    digest = found.digest or reference.digest
    held = tuple(link.link_versions(reference, found, store.versions.list()))
    named = DockerImage(name=reference.repository, tag=reference.tag or "", digest=digest)
    experiments = (_experiment(each.name, store) for each in _experiments(store))
    users = [each for each in experiments if each and _has(each, digest)]
    told = (
        *link.link_digest(reference, found),
        *link.link_labels(str(reference), found),
        *held,
        *link.link_uses(str(reference), named, users),
    )
    if not told:
        raise ImageNotFoundError(
            f"neither its registry nor the engine nor the store {store.name} knows this image",
            place=str(reference),
            remedy="check the name",
            details=(found.why_not,),
        )
    yield from told
    for each in held:
        version = _version(VersionName.parse(each.to), store)
        yield from source_links(version, store) if version else ()


def file_links(path: Path, store: ModelStore) -> Iterator[Link]:
    """The objects that have a file of this content, and all that these are linked to.

    Raises:
        NotFoundError: None has it.
    """
    sha256 = _sha256(path)
    holders = list(_holders(sha256, store))
    if not holders:
        raise NotFoundError(
            f"no version, experiment or dataset of the store {store.name} has a file of this content",
            place=str(path),
            details=(f"sha256 {sha256}",),
            remedy="only the local store tells by content; `trainpack models store` keeps a file there",
        )
    for name, label in holders:
        why = f"the same content, sha256 {sha256}"
        yield Link(kind=f"file {label}", from_=str(path), to=link.node(name), status="proven", why=why)
    for name in dict.fromkeys(name for name, _ in holders):
        if isinstance(name, VersionName) and (version := _version(name, store)):
            yield from version_links(version, store)
        elif isinstance(name, ExperimentName) and (experiment := _experiment(name, store)):
            yield from experiment_links(experiment, store)


def _trace(subject: str, links: Iterator[Link]) -> Trace:
    return Trace(subject=subject, links=tuple(dict.fromkeys(links)))


def _named(name: Named, get: Callable[[Named], Held]) -> Held:
    try:
        return get(name)
    except NotFoundError as error:
        # There is nothing to trace in an object that would only now be made.
        raise NotFoundError(error.message, place=error.place, remedy=NAMING) from None


def _image_links(name: VersionName | ExperimentName, image: DockerImage | None) -> Iterator[Link]:
    if image is None:
        return
    # Whoever runs an image without a tag gets its latest.
    found = find_image(Reference(image.name, image.tag or "latest"))
    held = link.link_image(name, image, found)
    yield held
    if held.status != "broken" and image.digest in (None, found.digest):
        yield from link.link_labels(held.to, found)


def _dataset_links(owner: str, datasets: dict[str, DatasetName], store: ModelStore) -> Iterator[Link]:
    for alias, name in datasets.items():
        if name.store == store.name:
            yield link.link_dataset(owner, alias, name, _dataset(name, store))
        else:
            yield Link(
                kind=f"dataset {alias}", from_=owner, to=str(name), status="recorded", why="of another store"
            )


def _reference(digest: str, store: ModelStore) -> Reference:
    """An image by its digest alone: named by a version, an experiment, or the engine."""
    for version in store.versions.list():
        if version.digest == digest and version.image:
            return Reference(_repository(version), None, digest)
    for summary in _experiments(store):
        experiment = _experiment(summary.name, store)
        image = experiment.fields.image if experiment else None
        if image and image.digest == digest:
            return Reference(image.name, None, digest)
    found = reference_of(digest)
    if found is None:
        raise ImageNotFoundError(
            f"neither the engine nor the store {store.name} knows this digest",
            place=digest,
            remedy="name the image with its repository: REPOSITORY@DIGEST",
        )
    return found


def _repository(version: VersionSummary) -> str:
    head, colon, tag = (version.image or "").rpartition(":")
    return head if colon and "/" not in tag else str(version.image)


def _has(experiment: Experiment, digest: str | None) -> bool:
    image = experiment.fields.image
    return digest is not None and image is not None and image.digest == digest


def _experiments(store: ModelStore) -> Iterator[ExperimentSummary]:
    # A platform may have thousands, each a request: there, only what names them is followed.
    yield from store.experiments.list() if store.name == "local" else ()


def _experiment(name: ExperimentName, store: ModelStore) -> Experiment | None:
    try:
        return store.experiments.get(name)
    except NotFoundError:
        return None


def _version(name: VersionName, store: ModelStore) -> ModelVersion | None:
    try:
        return store.versions.get(name)
    except NotFoundError:
        return None


def _dataset(name: DatasetName, store: ModelStore) -> DatasetVersion | None:
    try:
        return store.datasets.get(name)
    except NotFoundError:
        return None


def _holders(sha256: str, store: ModelStore) -> Iterator[tuple[Name, str]]:
    holders = getattr(store, "holders", None)
    for holder in holders(sha256) if holders else ():
        yield holder.object, holder.file


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
