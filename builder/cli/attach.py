"""`trainpack attach`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.cli.output import HERE, FolderOption, JsonOption, note, result, table
from builder.models.names import VersionName
from builder.models.records import Attachment, Change

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
    force: Annotated[bool, typer.Option("--force", help="Attach without a passing test record.")] = False,
    as_json: JsonOption = False,
    folder: FolderOption = HERE,
) -> None:
    """Attach the pushed and tested image to a ModelVersion; show what changes, write once, read back."""
    from builder import attach as core  # noqa: PLC0415  (docker and requests, not needed for --help)
    from builder.checks.report import read_report  # noqa: PLC0415
    from builder.errors import ContractError  # noqa: PLC0415
    from builder.models.compare import masked  # noqa: PLC0415
    from builder.models.stores import open_store  # noqa: PLC0415
    from builder.reference import parse_reference  # noqa: PLC0415
    from builder.spec import load_spec  # noqa: PLC0415

    spec = load_spec(folder)
    name = _name(version or spec.model.version)
    record = read_report(tested) if tested else None
    reference = parse_reference(image) if image else core.pushed_reference(folder)
    pushed = core.pushed_image(reference, spec.image.platform)
    try:
        core.check_tested(folder, pushed, record)
    except ContractError as error:
        if not force:
            raise
        note(f"WARNING: attaching with --force although {error.message} ({pushed.name}:{pushed.tag})")
    for edited in core.edited_since_build(spec, pushed):
        note(f"note: {edited} of trainpack.toml changed after the build; what was built is attached")
    for secret in core.secret_parameters(pushed):
        note(f"note: the default of {secret} is not written, its name says that it is a secret")
    fields = core.desired_fields(spec, pushed)
    attachment = core.attach(
        open_store(name.store),
        name,
        fields,
        create=create,
        dry_run=dry_run,
        announce=lambda changes: _announce(name, changes),
    )
    shown = attachment.model_copy(update={"image": masked(fields).image})
    result(shown.model_dump(mode="json"), as_json=as_json, text=lambda: _text(attachment, dry_run))


def _name(text: str | None) -> VersionName:
    from builder.errors import UsageError  # noqa: PLC0415

    if not text:
        raise UsageError(
            "no ModelVersion is named",
            remedy='give MODEL/VERSION, or set version = "MODEL/VERSION" in [model] of trainpack.toml',
        )
    return VersionName.parse(text)


def _announce(name: VersionName, changes: tuple[Change, ...]) -> None:
    if changes:
        rows: list[tuple[str, ...]] = [
            (change.field, _value(change.before), "→", _value(change.after)) for change in changes
        ]
        note(f"{name}\n{table(rows)}")


def _value(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)


def _text(attachment: Attachment, dry_run: bool) -> str:
    image = f"{attachment.image.name}:{attachment.image.tag}@{attachment.image.digest}"
    count = len(attachment.changes)
    fields = "1 field" if count == 1 else f"{count} fields"
    if attachment.written:
        return f"attached {image} to {attachment.version}: {fields} written and read back"
    if dry_run and count:
        return f"dry run: {fields} of {attachment.version} would change, nothing was written"
    return f"{attachment.version} holds {image} already: nothing changed"
