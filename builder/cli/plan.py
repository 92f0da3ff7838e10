"""`trainpack plan`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from builder.builders.dockerfile import render_dockerfile
from builder.changes import Difference, compare
from builder.cli.output import HERE, FolderOption, JsonOption, note, result, table
from builder.errors import UsageError
from builder.plan import BuildPlan
from builder.project import ensure_lock, read_plan
from builder.workdir import last_plan

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack plan --dockerfile > Dockerfile")
def plan(
    folder: FolderOption = HERE,
    dockerfile: Annotated[bool, typer.Option("--dockerfile", help="Print the Dockerfile.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Compare with the last build of this folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what would be built and why, without building it."""
    if ensure_lock(folder, os.environ, update=False):
        note("resolved the requirements to pylock.toml")
    planned = read_plan(folder, os.environ)
    if dockerfile:
        print(render_dockerfile(planned), end="")
    elif diff:
        _print_differences(folder, planned, as_json=as_json)
    else:
        data = planned.model_dump(mode="json") | {"tag": planned.tag, "hash": planned.hash}
        result(data, as_json=as_json, text=lambda: describe(planned))


def _print_differences(folder: Path, planned: BuildPlan, *, as_json: bool) -> None:
    before = last_plan(folder)
    if before is None:
        raise UsageError("nothing was built here yet, so there is nothing to compare with")
    differences = compare(before, planned)
    data = [difference.model_dump() for difference in differences]
    result(data, as_json=as_json, text=lambda: _describe_differences(differences))


def _describe_differences(differences: tuple[Difference, ...]) -> str:
    if not differences:
        return "nothing differs from the last build"
    rows = [(d.layer, d.item, d.before or "-", d.after or "-") for d in differences]
    return table(rows, ("layer", "what", "last build", "now")) + f"\nbuilt anew from: {differences[0].layer}"


def describe(planned: BuildPlan) -> str:
    """The plan as a person reads it: layers from the base up, then the reasons."""
    base = planned.base.image_id or "not built yet: the tag will change"
    rows = [
        ("image", str(planned.reference)),
        ("base", f"{planned.base.origin or planned.base.reference} ({base})"),
        ("system packages", ", ".join(planned.system_packages) or "none"),
        ("heavy wheels", ", ".join(f"{p.name} {p.version}" for p in planned.heavy) or "none"),
        ("light wheels", f"{len(planned.light)} packages"),
        ("entrypoint", f"{len(planned.tools)} packages in /opt/trainpack"),
        ("code", f"{len(planned.code)} files, {sum(file.size for file in planned.code):,} bytes"),
        ("revision", planned.manifest["revision"] or "none"),
    ]
    reasons = [(reason.choice, f"{reason.value}: {reason.because}") for reason in planned.reasons]
    return table(rows) + "\n\nwhy\n" + table(reasons)
