"""`trainpack models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli import version_options as options
from builder.cli.options import opened, owner_name
from builder.cli.output import JsonOption, announcer, difference, note, result
from builder.cli.version_list import print_versions

if TYPE_CHECKING:
    from builder.models.copy import Copied, CopyPlan
    from builder.models.edit import Edited
    from builder.models.lineage import Step
    from builder.models.records import ModelVersion
    from builder.models.requirements import Requirement

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The ModelVersions of a store: list, show, edit, check, compare and copy them, and their files.",
    epilog="Example: trainpack models show local:pedestrian/v3",
)
NameArgument = Annotated[str, typer.Argument(metavar="[STORE:]MODEL/VERSION")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference and write nothing.")]


@app.command("list", epilog="Example: trainpack models list --model pedestrian --json")
def list_(
    store: Annotated[str, typer.Argument(metavar="[STORE]", help="local or picsellia.")] = "local",
    model: Annotated[str | None, typer.Option(help="Only the versions of this model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List every version of a store with its image."""
    print_versions(store, model, as_json=as_json)


@app.command(epilog="Example: trainpack models show pedestrian/v3")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show everything that a version holds, without the values of secrets."""
    from builder.cli.shown import version_details  # noqa: PLC0415

    version = _get(name)
    result(_document(version), as_json=as_json, text=lambda: version_details(version))


@app.command(
    epilog="Example: trainpack models create pedestrian/v3 --framework PYTORCH --labelmap labels.json"
)
def create(
    name: NameArgument,
    *,
    description: options.Description = None,
    framework: options.Framework = None,
    type_: options.Type = None,
    notebook_link: options.NotebookLink = None,
    thumbnail: options.Thumbnail = None,
    parameter: options.Parameters = None,
    labelmap: options.Labelmap = None,
    image: options.Image = None,
    flag: options.Flags = None,
    env: options.Env = None,
    allow: options.Allow = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version, and its model when there is none yet; empty but for what is given."""
    from builder.models import edit as core  # noqa: PLC0415
    from builder.models.names import VersionName  # noqa: PLC0415
    from builder.models.records import VersionFields  # noqa: PLC0415

    parsed = VersionName.parse(name)
    edits = options.edits(
        parameters=parameter,
        labelmap=labelmap,
        flags=flag,
        env=env,
        allow=allow,
        description=description,
        framework=framework,
        type=type_,
        notebook_link=notebook_link,
        image=image,
    )
    options.check_picture(thumbnail)
    made = core.create(opened(parsed.store), parsed, core.edited(VersionFields(), edits), thumbnail=thumbnail)
    result(_document(made), as_json=as_json, text=lambda: f"created {made.name}")


@app.command(epilog="Example: trainpack models edit pedestrian/v3 -p epochs=20 --unset parameters.debug")
def edit(
    name: NameArgument,
    *,
    description: options.Description = None,
    framework: options.Framework = None,
    type_: options.Type = None,
    notebook_link: options.NotebookLink = None,
    thumbnail: options.Thumbnail = None,
    parameter: options.Parameters = None,
    labelmap: options.Labelmap = None,
    image: options.Image = None,
    flag: options.Flags = None,
    env: options.Env = None,
    allow: options.Allow = None,
    unset: options.Unset = None,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Change what a version holds: show the difference, write once, read back."""
    from builder.models import edit as core  # noqa: PLC0415
    from builder.models.names import VersionName  # noqa: PLC0415

    parsed = VersionName.parse(name)
    edits = options.edits(
        parameters=parameter,
        labelmap=labelmap,
        flags=flag,
        env=env,
        allow=allow,
        unset=unset,
        description=description,
        framework=framework,
        type=type_,
        notebook_link=notebook_link,
        image=image,
    )
    options.check_picture(thumbnail)
    done = core.edit(
        opened(parsed.store),
        parsed,
        edits,
        thumbnail=thumbnail,
        dry_run=dry_run,
        announce=announcer(parsed),
    )
    result(done.model_dump(mode="json"), as_json=as_json, text=lambda: _edited(done, dry_run))


@app.command(epilog="Example: trainpack models check pedestrian/v3 --for training")
def check(
    name: NameArgument,
    use: Annotated[
        str, typer.Option("--for", metavar="training|inference|experiment|publishing", help="The use.")
    ],
    as_json: JsonOption = False,
) -> None:
    """List what a version lacks for a use, why it is needed, and the command that adds it.

    Ends with 1 when something needed is missing; what is only advised is listed too.
    """
    from builder.models.requirements import parse_use, unmet  # noqa: PLC0415

    wanted = parse_use(use)
    version = _get(name)
    found = unmet(version, wanted)
    missing = [requirement for requirement in found if requirement.needed]
    data = {
        "version": str(version.name),
        "for": use,
        "fit": not missing,
        "unmet": [each.model_dump(mode="json") for each in found],
    }
    result(data, as_json=as_json, text=lambda: _unmet(f"{version.name} for {use}", found))
    if missing:
        raise typer.Exit(1)


@app.command(epilog="Example: trainpack models log pedestrian")
def log(model: Annotated[str, typer.Argument(metavar="[STORE:]MODEL")], as_json: JsonOption = False) -> None:
    """Show how a model's versions changed from one to the next, and each version's own edits."""
    from builder.models import lineage  # noqa: PLC0415

    store_name, owner = owner_name(model)
    steps = lineage.log(opened(store_name), owner)
    result(
        [step.model_dump(mode="json") for step in steps],
        as_json=as_json,
        text=lambda: "\n\n".join(map(_step, steps)) or f"{model} has no versions",
    )


@app.command(epilog="Example: trainpack models diff local:pedestrian/v3 picsellia:pedestrian/v3")
def diff(
    before: NameArgument,
    after: NameArgument,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions, also of different stores: fields, files and source."""
    from builder.models.compare import diff_versions  # noqa: PLC0415
    from builder.models.names import VersionName  # noqa: PLC0415

    names = (VersionName.parse(before), VersionName.parse(after))
    old, new = (opened(name.store).versions.get(name) for name in names)
    changes = diff_versions(old, new)
    data = {
        "before": str(old.name),
        "after": str(new.name),
        "changes": [change.model_dump(mode="json") for change in changes],
    }
    same = f"{old.name} and {new.name} hold the same"
    result(data, as_json=as_json, text=lambda: difference(changes) if changes else same)


@app.command(epilog="Example: trainpack models copy local:pedestrian/v3 picsellia:pedestrian/v3")
def copy(
    source: NameArgument,
    target: NameArgument,
    *,
    update: Annotated[bool, typer.Option("--update", help="Write over a target that exists.")] = False,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a version with its fields, files and thumbnail, to another store or within one.

    What the target cannot hold is told.
    """
    from builder.models.copy import copy_version  # noqa: PLC0415
    from builder.models.names import VersionName  # noqa: PLC0415

    names = (VersionName.parse(source), VersionName.parse(target))
    first = opened(names[0].store)
    second = first if names[0].store == names[1].store else opened(names[1].store)
    done = copy_version(
        (first, second), names, update=update, dry_run=dry_run, tell=note, announce=_announce_copy
    )
    result(done.model_dump(mode="json"), as_json=as_json, text=lambda: _copied(done))


@app.command(epilog="Example: trainpack models files pedestrian/v3")
def files(name: NameArgument, as_json: JsonOption = False) -> None:
    """List the files of a version."""
    from builder.cli.shown import file_table  # noqa: PLC0415

    version = _get(name)
    result(
        [file.model_dump(mode="json") for file in version.files],
        as_json=as_json,
        text=lambda: file_table(version.files),
    )


@app.command(epilog="Example: trainpack models store pedestrian/v3 runs/best.pt --as weights")
def store(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(help="A file, or a folder with all its levels.")],
    label: Annotated[
        str | None, typer.Option("--as", metavar="LABEL", help="The name to get it by; its own if none.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a file or folder with a version; one of the same name is replaced."""
    from builder.models.names import VersionName  # noqa: PLC0415

    parsed = VersionName.parse(name)
    file = opened(parsed.store).versions.store_file(parsed, path, label)
    result(file.model_dump(mode="json"), as_json=as_json, text=lambda: f"stored {file.name} with {parsed}")


@app.command(epilog="Example: trainpack models get pedestrian/v3 weights --into ./weights")
def get(
    name: NameArgument,
    label: Annotated[str, typer.Argument(metavar="LABEL")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write it to.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a file of a version to a folder, verified where its hash is known; nothing is replaced."""
    from builder.models.names import VersionName  # noqa: PLC0415

    parsed = VersionName.parse(name)
    into.mkdir(parents=True, exist_ok=True)
    path = opened(parsed.store).versions.fetch_file(parsed, label, into)
    result({"path": str(path)}, as_json=as_json, text=lambda: str(path))


def _get(name: str) -> ModelVersion:
    from builder.models.names import VersionName  # noqa: PLC0415

    parsed = VersionName.parse(name)
    return opened(parsed.store).versions.get(parsed)


def _document(version: ModelVersion) -> dict[str, Any]:
    from builder.models.compare import masked  # noqa: PLC0415

    return version.model_copy(update={"fields": masked(version.fields)}).model_dump(mode="json")


def _edited(done: Edited, dry_run: bool) -> str:
    count = "1 field" if len(done.changes) == 1 else f"{len(done.changes)} fields"
    if dry_run:
        return f"dry run: {count} of {done.version} would change, nothing was written"
    if not done.changes and not done.thumbnail:
        return f"{done.version} holds this already: nothing changed"
    picture = " and the thumbnail" if done.thumbnail else ""
    return f"{done.version}: {count}{picture} written and read back"


def _unmet(what: str, found: tuple[Requirement, ...]) -> str:
    if not found:
        return f"{what}: nothing is missing"
    lines = []
    for each in found:
        lines.append(f"{'missing' if each.needed else 'advised'}  {each.field}: {each.why}")
        lines.append(f"         → {each.command}")
    missing = sum(each.needed for each in found)
    return "\n".join([*lines, f"{what}: {f'{missing} missing' if missing else 'fit'}"])


def _step(step: Step) -> str:
    when = f"{step.created:%Y-%m-%d %H:%M} UTC" if step.created else "at an unknown time"
    by = f" by {step.creator}" if step.creator else ""
    since = f"changed since {step.since.version}" if step.since else "the first"
    lines = [f"{step.version}  {when}{by}, {since}:"]
    lines += _indented(difference(step.changes) if step.changes else "nothing")
    for edit in step.edits:
        lines.append(f"  edited {edit.when:%Y-%m-%d %H:%M} UTC:")
        lines += _indented(difference(edit.changes), "    ")
    return "\n".join(lines)


def _indented(text: str, by: str = "  ") -> list[str]:
    return [f"{by}{line}" for line in text.splitlines()]


def _announce_copy(plan: CopyPlan) -> None:
    target = f"{plan.target}, which {'exists' if plan.exists else 'is new'}"
    note(f"{plan.source} → {target}\n{difference(plan.changes) if plan.changes else 'the same already'}")
    if plan.kept:
        note(f"kept, though only the target has them: {', '.join(plan.kept)}")


def _copied(done: Copied) -> str:
    plan = done.plan
    if not done.written:
        write = plan.changes or plan.files or plan.thumbnail or not plan.exists
        return "dry run: nothing was written" if write else f"{plan.target} is the same: nothing changed"
    head = f"copied {plan.source} to {plan.target}, with {len(plan.files)} files"
    return "\n".join([head, *(f"not carried: {line}" for line in done.not_carried)])
