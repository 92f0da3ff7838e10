"""Attach an image to a ModelVersion: what would be stored, what differs, and the one write that is read back.

What belongs to the image (parameters, labelmap) is read from the image itself, as its registry holds it, so
that an edit of `trainpack.toml` after the build cannot be attached as if it had been built. What belongs to
the version (flags, env, framework, type, description) comes from `trainpack.toml`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainpack_entrypoint.manifest import PATH as MANIFEST_PATH
from trainpack_entrypoint.manifest import Manifest
from trainpack_entrypoint.schema import Parameter

from builder.checks.report import Report, last_report
from builder.errors import ContractError, NotFoundError, UsageError
from builder.models.compare import diff
from builder.models.journal import Entry, Journal
from builder.models.names import VersionName
from builder.models.records import Attachment, Change, DockerImage, ModelVersion, VersionFields
from builder.models.store import ModelStore
from builder.models.writing import write_fields
from builder.oci.remote.pull import RegistryClient
from builder.plan import LABEL
from builder.records import Record
from builder.reference import Reference, parse_reference
from builder.spec import TrainingSpec
from builder.workdir import last_build, last_push

NOT_CONFIGURED = "NOT_CONFIGURED"


class PushedImage(Record):
    """An image as its registry holds it.

    Attributes:
        name: The repository, registry included.
        image_ids: All that an engine may call its id (digest of config, manifest or index).
        manifest: The baked `image.json`.
    """

    name: str
    tag: str
    digest: str
    image_ids: tuple[str, ...]
    manifest: dict[str, Any]


def check_tag(reference: Reference, *, allow_latest: bool = False) -> str:
    """The tag, if it is one that never moves.

    Raises:
        UsageError: There is none, or it is `latest` and that is not allowed.
    """
    if not reference.tag:
        raise UsageError(
            f"{str(reference)!r} has no tag; a ModelVersion names its image by tag",
            remedy="name it as REPOSITORY:TAG, or REPOSITORY:TAG@DIGEST",
        )
    if reference.tag == "latest" and not allow_latest:
        raise UsageError(
            f"{str(reference)!r}: the tag latest moves, and the version would change with it",
            remedy="attach the tag that `trainpack build` gave: <version>-<plan hash>; or --allow-latest",
        )
    return reference.tag


def pushed_reference(folder: Path) -> Reference:
    """Where the folder's last build was pushed to: its tag, and the digest that it got there.

    Raises:
        UsageError: Nothing was built here, or the last build was not pushed.
    """
    built = last_build(folder)
    published = last_push(folder, built.image_id)
    if published is None:
        raise UsageError(
            f"the last build, {built.reference}, was not pushed from {folder.resolve()}",
            remedy="`trainpack push` it first, or name a pushed image with --image",
        )
    reference = parse_reference(published.reference)
    return Reference(reference.repository, reference.tag, published.digest)


def pushed_image(reference: Reference, platform: str, *, allow_latest: bool = False) -> PushedImage:
    """Read an image from its registry, by tag.

    Args:
        reference: With tag; with a digest, the tag must still name it.
        platform: Which image of an index.
        allow_latest: Take the tag `latest` too.

    Raises:
        UsageError: No tag, or `latest` and that is not allowed.
        ContractError: The tag names another image now, or it is no image of trainpack.
        RegistryError: The registry has no such image, refuses or fails.
    """
    tag = check_tag(reference, allow_latest=allow_latest)
    client = RegistryClient(Reference(reference.repository, tag), platform)
    if reference.digest and client.digest() != reference.digest:
        raise ContractError(
            f"the tag was pushed with the digest {reference.digest}, and now names {client.digest()}",
            place=str(client.reference),
            remedy="build and push again: a tag of trainpack's own is never moved",
        )
    return PushedImage(
        name=reference.repository,
        tag=tag,
        digest=client.digest(),
        image_ids=client.image_ids(),
        manifest=_baked(client),
    )


def _baked(client: RegistryClient) -> dict[str, Any]:
    # The label spares an image of someone else from being downloaded whole in search of the file.
    content = client.read_file(MANIFEST_PATH[1:]) if f"{LABEL}.contract" in client.labels() else None
    if content is None:
        raise ContractError(
            "this image was not built by trainpack: it holds no " + MANIFEST_PATH,
            place=str(client.reference),
            remedy="`trainpack build`, `trainpack push`, and attach that image",
        )
    try:
        document: dict[str, Any] = json.loads(content)
        Manifest.from_json(document)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ContractError(
            f"the baked {MANIFEST_PATH} cannot be read: {error}", place=str(client.reference)
        ) from None
    return document


def check_tested(folder: Path, image: PushedImage, record: Report | None) -> None:
    """Ask for a passing test record of this very image.

    Args:
        folder: Where records of the project are kept.
        image: The image to attach.
        record: The record to look at instead (`--tested FILE`).

    Raises:
        ContractError: It was not tested, did not pass, or the record is of another image.
    """
    place = f"{image.name}:{image.tag}"
    remedy = "`trainpack test`, or give its record with --tested FILE, or --force"
    reports = [record] if record else [last_report(folder, image_id) for image_id in image.image_ids]
    report = next((report for report in reports if report), None)
    if report is None:
        raise ContractError("this image was not tested", place=place, remedy=remedy)
    if report.image_id not in image.image_ids:
        raise ContractError(
            f"the test record is of the image {report.image_id}, expected {image.image_ids[0]}",
            place=place,
            remedy=remedy,
        )
    if not report.passed:
        failed = [result.name for result in report.results if result.status == "failed"]
        what = f"failed: {', '.join(failed)}" if failed else "ran no check"
        raise ContractError(f"its test {what}", place=place, remedy=remedy)


def desired_fields(spec: TrainingSpec, image: PushedImage) -> VersionFields:
    """What the version should hold. Pure.

    NOT_CONFIGURED is not written. Base parameters are the defaults of the declared parameters, without
    required ones, which have none, and without those whose name says that the value is a secret.
    """
    baked = Manifest.from_json(image.manifest)
    return VersionFields(
        description=spec.model.description,
        framework=_configured(spec.model.framework),
        type=_configured(spec.model.type),
        notebook_link=spec.model.notebook_link,
        labelmap=baked.labelmap,
        parameters={
            name: parameter.default
            for name, parameter in baked.parameters.items()
            if not (parameter.required or name in secret_parameters(image))
        },
        image=DockerImage(
            name=image.name,
            tag=image.tag,
            digest=image.digest,
            flags=spec.run.flags,
            env=dict(spec.run.env),
        ),
    )


def secret_parameters(image: PushedImage) -> tuple[str, ...]:
    """The parameters whose default is not written to a store, since their name says it is a secret."""
    parameters = Manifest.from_json(image.manifest).parameters
    return tuple(name for name, entry in parameters.items() if entry.is_secret and entry.default)


def _configured(value: str) -> str | None:
    return None if value == NOT_CONFIGURED else value


def edited_since_build(spec: TrainingSpec, image: PushedImage) -> tuple[str, ...]:
    """The tables of `trainpack.toml` that no longer say what is baked into the image."""
    baked = Manifest.from_json(image.manifest)
    declared = {name: entry.parameter(name) for name, entry in spec.parameters.items()}
    pairs = {
        "[parameters]": (_declared(declared), _declared(baked.parameters)),
        "[labelmap]": (spec.labelmap, baked.labelmap),
    }
    return tuple(table for table, (now, then) in pairs.items() if now != then)


def _declared(parameters: dict[str, Parameter]) -> dict[str, dict[str, Any]]:
    # The options may have been read from the script at build time.
    return {
        name: entry._replace(argument=None, argument_false=None).to_json()
        for name, entry in parameters.items()
    }


def attach(  # noqa: PLR0913  (each is a choice of the caller)
    store: ModelStore,
    name: VersionName,
    fields: VersionFields,
    *,
    create: bool = False,
    dry_run: bool = False,
    journal: Journal | None = None,
    announce: Callable[[tuple[Change, ...]], None] = lambda changes: None,
) -> Attachment:
    """Write the fields onto the version in one request, and read them back.

    Args:
        store: Where the version lives.
        name: Which version.
        fields: What to write; `image` is required.
        create: Make the version, and its model, when it does not exist.
        dry_run: Write nothing.
        journal: Where to record what the version held before.
        announce: Is given what will change, before anything is written.

    Raises:
        NotFoundError: The version does not exist and `create` is off.
        ReadBackError: What the store holds afterwards is not what was written; it names each field.
        StoreError: The store failed; it says what was written.
    """
    if fields.image is None:
        raise UsageError("there is no image to attach", place=str(name))
    before = _existing(store, name, create=create)
    changes = diff(before.fields if before else VersionFields(), fields)
    announce(changes)
    written = not dry_run and (bool(changes) or before is None)
    if written:
        _write_recorded(store, name, before, fields, journal)
    return Attachment(version=name, image=fields.image, changes=changes, written=written)


def _existing(store: ModelStore, name: VersionName, *, create: bool) -> ModelVersion | None:
    try:
        return store.versions.get(name)
    except NotFoundError:
        if not create:
            raise
        return None


def _write_recorded(
    store: ModelStore,
    name: VersionName,
    before: ModelVersion | None,
    fields: VersionFields,
    journal: Journal | None,
) -> None:
    """Write, with what the version holds now recorded first: a crash in between must not lose it."""
    if journal is None:
        write_fields(store, name, before, fields)
        return
    was = before.fields if before else VersionFields()
    entry = Entry(
        version=name,
        version_id=before.id if before else None,
        attached=datetime.now(UTC),
        before=before.fields if before else None,
        after=was.model_copy(update={key: value for key, value in fields if value is not None}),
    )
    path = journal.add(entry)
    held = write_fields(store, name, before, fields)
    journal.settle(path, entry.model_copy(update={"version_id": held.id, "after": held.fields}))
