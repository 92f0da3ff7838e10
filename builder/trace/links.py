"""The links of a trace, from what was found. Pure.

A link is proven when contents were compared and match, recorded when it was only written down, broken when
what is there now is something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trainpack_entrypoint.schema import is_secret

from builder.models.names import DatasetName, ExperimentName, Name, VersionName, VersionSummary
from builder.models.records import DatasetVersion, DockerImage, Experiment, ModelVersion
from builder.reference import Reference
from builder.trace.records import LABELS, FoundImage, Link, Status

EXPERIMENT = "experiment:"
DIRTY = "built from files that were not committed"
LONGEST = 100  # characters of the parameters that are shown


def node(name: Name) -> str:
    """How an object is called in a trace, and as its subject: an experiment says that it is one."""
    return f"{EXPERIMENT}{name}" if isinstance(name, ExperimentName) else str(name)


def link_image(name: VersionName | ExperimentName, image: DockerImage, found: FoundImage) -> Link:
    """From a version or experiment to the image that it names."""
    status, why = _image_status(image, found)
    to = str(Reference(image.name, image.tag or None, image.digest))
    return Link(kind="image", from_=node(name), to=to, status=status, why=why)


def _image_status(image: DockerImage, found: FoundImage) -> tuple[Status, str]:
    if found.missing:
        return "broken", "the registry has no such image"
    if image.digest is None:
        return "recorded", "no digest is held"
    if found.registry_digest is None:
        return "recorded", found.why_not
    if found.registry_digest == image.digest:
        return "proven", "the registry has this digest under the tag"
    return "broken", f"the tag now names {found.registry_digest}"


def link_digest(reference: Reference, found: FoundImage) -> tuple[Link, ...]:
    """From an image to its digest; no link when nobody knows it."""
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
    """From an image to what its labels say of its making."""
    labels = found.labels or {}
    return tuple(
        Link(
            kind=kind,
            from_=image,
            to=labels[label],
            status="recorded",
            why=DIRTY if _is_dirty(kind, labels[label]) else label,
        )
        for kind, label in LABELS.items()
        if labels.get(label)
    )


def _is_dirty(kind: str, value: str) -> bool:
    return kind == "revision" and value.endswith("-dirty")


def link_versions(
    reference: Reference, found: FoundImage, versions: Iterable[VersionSummary]
) -> tuple[Link, ...]:
    """From an image to the versions that hold it, by digest, else by name and tag."""
    digest = found.digest or reference.digest
    return tuple(
        _link_version(reference, digest, found, version)
        for version in versions
        if _holds(version, reference, digest)
    )


def _holds(version: VersionSummary, reference: Reference, digest: str | None) -> bool:
    same_name = version.image == f"{reference.repository}:{reference.tag}"
    return same_name or (digest is not None and version.digest == digest)


def _link_version(
    reference: Reference, digest: str | None, found: FoundImage, version: VersionSummary
) -> Link:
    status, why = _version_status(digest, found, version.digest)
    return Link(kind="version", from_=str(reference), to=str(version.name), status=status, why=why)


def _version_status(digest: str | None, found: FoundImage, held: str | None) -> tuple[Status, str]:
    if found.missing:
        return "broken", "the registry has no such image"
    if held is None or digest is None:
        return "recorded", "by name and tag, there is no digest to compare"
    if held == digest:
        return "proven", "the version holds this digest"
    return "broken", f"the version holds this tag with the digest {held}"


def link_source(version: ModelVersion, experiment: Experiment | None, *, known: bool) -> Iterable[Link]:
    """From a version to the experiment that made it, and to its parameters.

    Args:
        experiment: The source experiment as its store holds it; None when it is not there.
        known: Whether that store was asked.
    """
    source = version.source.experiment if version.source else None
    if source is not None:
        status, why = _source_status(version.fields.image, experiment, known=known)
        yield Link(kind="experiment", from_=str(version.name), to=node(source), status=status, why=why)
    if version.fields.parameters:
        status, why = _parameters_status(version.fields.parameters, experiment)
        to = shown(version.fields.parameters)
        yield Link(kind="parameters", from_=str(version.name), to=to, status=status, why=why)


def _source_status(
    image: DockerImage | None, experiment: Experiment | None, *, known: bool
) -> tuple[Status, str]:
    if experiment is None:
        return ("broken", "its store has no such experiment") if known else ("recorded", "of another store")
    return _same_image(image, experiment.fields.image, "the experiment")


def _same_image(mine: DockerImage | None, theirs: DockerImage | None, whose: str) -> tuple[Status, str]:
    if mine is None or theirs is None or mine.digest is None or theirs.digest is None:
        return "recorded", f"there is no digest to compare with {whose}'s"
    if mine.digest == theirs.digest:
        return "proven", f"{whose} has an image of the same digest"
    return "broken", f"{whose} has the image {theirs.digest}"


def _parameters_status(parameters: Mapping[str, Any], experiment: Experiment | None) -> tuple[Status, str]:
    if experiment is None:
        return "recorded", "there is no experiment to compare with"
    theirs = experiment.fields.parameters or {}
    keys = parameters.keys() | theirs.keys()
    differ = sorted(key for key in keys if not _equal(parameters, theirs, key))
    if not differ:
        return "proven", "the same as the experiment's"
    return "broken", f"the experiment has others: {', '.join(differ[:5])}{', …' if len(differ) > 5 else ''}"


def _equal(mine: Mapping[str, Any], theirs: Mapping[str, Any], key: str) -> bool:
    return key in mine and key in theirs and bool(mine[key] == theirs[key])


def link_experiment(experiment: Experiment, base: ModelVersion | None) -> Iterable[Link]:
    """From an experiment to the version that it was made from, and to its parameters.

    Args:
        base: That version as the store holds it; None when it is not there.
    """
    own = node(experiment.name)
    if experiment.base is not None:
        status, why = _base_status(experiment, base)
        yield Link(kind="base version", from_=own, to=str(experiment.base), status=status, why=why)
    if experiment.fields.parameters:
        yield Link(
            kind="parameters",
            from_=own,
            to=shown(experiment.fields.parameters),
            status="recorded",
            why="what a run of it is given",
        )


def _base_status(experiment: Experiment, base: ModelVersion | None) -> tuple[Status, str]:
    if base is None:
        return "broken", "its store has no such version"
    status, why = _same_image(experiment.fields.image, base.fields.image, "the version")
    # Either may have been given another image since; that says nothing against where it came from.
    return ("recorded" if status == "broken" else status), why


def link_run(experiment: Experiment) -> Iterable[Link]:
    """From an experiment to the image, lock and commit that its last run logged."""
    logs = {log.name: log.data for log in experiment.logs}
    ran = logs.get("trainpack")
    if not isinstance(ran, dict):
        return
    own, image = node(experiment.name), experiment.fields.image
    digest = ran.get("digest")
    if digest:
        status, why = _ran_status(str(digest), image)
        yield Link(kind="run", from_=own, to=str(digest), status=status, why=why)
    for kind in ("lock", "revision"):
        if ran.get(kind):
            value = str(ran[kind])
            why = DIRTY if _is_dirty(kind, value) else "logged by the run"
            yield Link(kind=kind, from_=str(digest or own), to=value, status="recorded", why=why)


def _ran_status(digest: str, image: DockerImage | None) -> tuple[Status, str]:
    if image is None or image.digest is None:
        return "recorded", "logged by the run; the experiment names no digest"
    if image.digest == digest:
        return "proven", "the run logged the digest that the experiment names"
    return "broken", f"the experiment names {image.digest}"


def link_dataset(owner: str, alias: str, name: DatasetName, dataset: DatasetVersion | None) -> Link:
    """From a version or experiment to a dataset version.

    Args:
        owner: The node that it is linked from.
        dataset: As its store holds it; None when it is not there.
    """
    if dataset is None:
        status: Status = "broken"
        why = "its store has no such dataset version"
    elif dataset.digest:
        status, why = "proven", f"its files are held as {dataset.digest}"
    else:
        status, why = "recorded", "the store does not hold its files"
    return Link(kind=f"dataset {alias}", from_=owner, to=str(name), status=status, why=why)


def link_uses(
    owner: str, image: DockerImage | None, users: Iterable[Experiment], kind: str = "experiment"
) -> Iterable[Link]:
    """From a version or image to the experiments that have it."""
    for user in users:
        status, why = _same_image(user.fields.image, image, "it")
        status = "recorded" if status == "broken" else status
        yield Link(kind=kind, from_=owner, to=node(user.name), status=status, why=why)


def link_published(experiment: Experiment, versions: Iterable[ModelVersion]) -> Iterable[Link]:
    """From an experiment to the versions that it was published as."""
    for version in versions:
        status, why = _same_image(experiment.fields.image, version.fields.image, "the version")
        own = node(experiment.name)
        yield Link(kind="version", from_=own, to=str(version.name), status=status, why=why)


def shown(parameters: Mapping[str, Any]) -> str:
    """Parameters in one line, without the values of secrets."""
    pairs = (f"{key}={'***' if is_secret(key) else value}" for key, value in parameters.items())
    text = ", ".join(pairs)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
