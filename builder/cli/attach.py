"""`trainpack attach`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.output import HERE, FolderOption, JsonOption, announcer, note, result, table, value
from builder.models.names import VersionName
from builder.models.records import Attachment

if TYPE_CHECKING:
    from builder.attach import PushedImage
    from builder.models.journal import Journal
    from builder.rollback import Rollback
    from builder.spec import TrainingSpec

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack attach local:pedestrian/v3 --create")
def attach(
    version: Annotated[
        str | None,
        typer.Argument(metavar="[[STORE:]MODEL/VERSION]", help="Default: [model] version of trainpack.toml."),
    ] = None,
    *,
    image: Annotated[
        str | None, typer.Option(help="A pushed image, REPOSITORY:TAG[@DIGEST]. Default: the last build.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference and write nothing.")
    ] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Make the version when it does not exist.")
    ] = False,
    tested: Annotated[
        Path | None, typer.Option(help="A test record of this image, from `trainpack test --record FILE`.")
    ] = None,
    back: Annotated[
        bool, typer.Option("--rollback", help="Write back what the version held before the last attach.")
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Keep what the version held in this file too; with --rollback, take it from there."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Attach without a passing test record; with --rollback, over changes made since the attach.",
        ),
    ] = False,
    allow_latest: Annotated[
        bool, typer.Option("--allow-latest", help="Attach the tag latest, which moves.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="FLAG", help="Let a refused or unknown flag of [run] flags through, by name."),
    ] = None,
    as_json: JsonOption = False,
    folder: FolderOption = HERE,
) -> None:
    """Attach the pushed and tested image to a ModelVersion; show what changes, write once, read back.

    What the version held before is recorded, and --rollback restores it.
    """
    from builder import attach as core  # noqa: PLC0415  (docker and requests, not needed for --help)
    from builder.models.compare import masked  # noqa: PLC0415
    from builder.models.stores import open_store  # noqa: PLC0415
    from builder.reference import parse_reference  # noqa: PLC0415
    from builder.spec import load_spec  # noqa: PLC0415

    if back:
        name = VersionName.parse(version) if version else _name(load_spec(folder, allow or ()))
        _roll_back(name, record, force=force, dry_run=dry_run, as_json=as_json)
        return
    spec = load_spec(folder, allow or ())
    name = VersionName.parse(version) if version else _name(spec)
    reference = parse_reference(image) if image else core.pushed_reference(folder)
    pushed = core.pushed_image(reference, spec.image.platform, allow_latest=allow_latest)
    _check_tested(folder, pushed, tested, force=force)
    _warn(spec, pushed)
    fields = core.desired_fields(spec, pushed)
    attachment = core.attach(
        open_store(name.store),
        name,
        fields,
        create=create,
        dry_run=dry_run,
        journal=_journal(record),
        announce=announcer(name),
    )
    shown = attachment.model_copy(update={"image": masked(fields).image})
    result(shown.model_dump(mode="json"), as_json=as_json, text=lambda: _text(attachment, dry_run))


def _check_tested(folder: Path, pushed: PushedImage, tested: Path | None, *, force: bool) -> None:
    from builder.attach import check_tested  # noqa: PLC0415
    from builder.checks.report import read_report  # noqa: PLC0415
    from builder.errors import ContractError  # noqa: PLC0415

    try:
        check_tested(folder, pushed, read_report(tested) if tested else None)
    except ContractError as error:
        if not force:
            raise
        note(f"WARNING: attaching with --force although {error.message} ({pushed.name}:{pushed.tag})")


def _warn(spec: TrainingSpec, pushed: PushedImage) -> None:
    from builder.attach import edited_since_build, secret_parameters  # noqa: PLC0415

    if pushed.tag == "latest":
        note(f"WARNING: {pushed.name}:latest moves, and what the version runs moves with it")
    for edited in edited_since_build(spec, pushed):
        note(f"note: {edited} of trainpack.toml changed after the build; what was built is attached")
    for secret in secret_parameters(pushed):
        note(f"note: the default of {secret} is not written, its name says that it is a secret")


def _journal(copy: Path | None = None) -> Journal:
    from builder.models.journal import Journal  # noqa: PLC0415
    from builder.models.local.database import default_folder  # noqa: PLC0415

    return Journal(default_folder() / "attached", copy)


def _name(spec: TrainingSpec) -> VersionName:
    from builder.errors import UsageError  # noqa: PLC0415

    if not spec.model.version:
        raise UsageError(
            "no ModelVersion is named",
            remedy='give MODEL/VERSION, or set version = "MODEL/VERSION" in [model] of trainpack.toml',
        )
    return VersionName.parse(spec.model.version)


def _roll_back(name: VersionName, record: Path | None, *, force: bool, dry_run: bool, as_json: bool) -> None:
    from builder.models.journal import read_entry  # noqa: PLC0415
    from builder.models.stores import open_store  # noqa: PLC0415
    from builder.rollback import rollback  # noqa: PLC0415

    journal = _journal()
    kept = ((record, read_entry(record)),) if record else journal.entries(name)
    done = rollback(
        open_store(name.store),
        name,
        [entry for _, entry in kept if entry.version == name],
        force=force,
        dry_run=dry_run,
        announce=announcer(name),
    )
    journal.remove([path for path, _ in kept[: done.used] if path != record])
    result(done.model_dump(mode="json"), as_json=as_json, text=lambda: _rolled_back(done, dry_run))
    if done.left:
        raise typer.Exit(1)


def _rolled_back(done: Rollback, dry_run: bool) -> str:
    count = _count(len(done.changes))
    if dry_run:
        return f"dry run: {count} of {done.version} would change back, nothing was written"
    if done.left:
        rows = [(f"  {change.field}", value(change.before)) for change in done.left]
        head = f"{done.version} was rolled back, but for what its store cannot clear; it still holds"
        return f"{head}\n{table(rows)}"
    made = "; the attach had made the version, which stays, empty" if done.made else ""
    return f"{done.version} is what it was before the attach: {count} written and read back{made}"


def _count(number: int) -> str:
    return "1 field" if number == 1 else f"{number} fields"


def _text(attachment: Attachment, dry_run: bool) -> str:
    image = f"{attachment.image.name}:{attachment.image.tag}@{attachment.image.digest}"
    count = len(attachment.changes)
    if attachment.written:
        head = f"attached {image} to {attachment.version}: {_count(count)} written and read back"
        return "\n".join([head, *_flags(attachment)])
    if dry_run and count:
        return f"dry run: {_count(count)} of {attachment.version} would change, nothing was written"
    return f"{attachment.version} holds {image} already: nothing changed"


def _flags(attachment: Attachment) -> list[str]:
    from builder.flags import explain_flags  # noqa: PLC0415

    explained = explain_flags(attachment.image.flags)
    return (
        ["flags, as they were sent:", table([(f"  {flag}", does) for flag, does in explained])]
        if explained
        else []
    )
