"""`trainpack test`: check that the image keeps the contract."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from builder.changes import compare
from builder.checks.junit import junit
from builder.checks.report import CheckResult, Report, remember_report, write_report
from builder.checks.runner import Train, check_image
from builder.cli.options import pairs
from builder.cli.output import HERE, FolderOption, JsonOption, note, result, table
from builder.engine.containers import find_image
from builder.errors import TrainpackError, UsageError
from builder.last_image import engine_image
from builder.project import read_plan
from builder.workdir import last_plan, write_atomically

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack test --train --data train=./images --junit report.xml")
def check(
    image: Annotated[
        str | None, typer.Argument(help="An image of the engine; the last build if none.")
    ] = None,
    *,
    train: Annotated[
        bool, typer.Option("--train", help="Also run the real script, with its defaults.")
    ] = False,
    data: Annotated[
        list[str] | None, typer.Option(metavar="ALIAS=DIR", help="A dataset's folder for --train.")
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    record: Annotated[Path | None, typer.Option(help="Write the record for `attach --tested` here.")] = None,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Check that the image keeps the contract, through its own entrypoint.

    A probe is laid over the script's file; entrypoint and manifest stay the image's own. Ends with 1 when a
    check fails.
    """
    folders = {alias: Path(path) for alias, path in pairs(data, "--data").items()}
    _check_folders(folders)
    # As Ctrl-C, so that a cancelled CI job leaves no container behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    built = find_image(image) if image else engine_image(folder, os.environ, note)
    note(f"testing {built.reference}: a probe takes the script's place, the entrypoint is the image's own")
    if changed := changed_since(folder, built.tag):
        note(changed)
    report = check_image(built, train=Train(folders) if train else None, tell=_tell)
    remember_report(folder, report)
    if record:
        write_report(record, report)
    if junit_file:
        write_atomically(junit_file, junit(report))
    result({**report.model_dump(), "passed": report.passed}, as_json=as_json, text=lambda: text(report))
    raise typer.Exit(0 if report.passed else 1)


def changed_since(folder: Path, tag: str) -> str | None:
    """What the folder holds that its last build, if that is this image, does not; None for nothing."""
    before = last_plan(folder)
    if before is None or before.tag != tag:
        return None
    try:
        now = read_plan(folder, os.environ)
    except TrainpackError as error:
        return f"this image is older than its folder, which cannot be built: {error}"
    layers = dict.fromkeys(difference.layer for difference in compare(before, now))
    if not layers:
        return None
    hashes = {
        "lock": (before.lock_hash, now.lock_hash),
        "revision": (before.manifest["revision"], now.manifest["revision"]),
    }
    moved = [f"{name} {_short(old)}, now {_short(new)}" for name, (old, new) in hashes.items() if old != new]
    what = "; ".join([", ".join(layers), *moved])
    return f"this image is older than its folder, where this changed: {what}; `trainpack build` builds it"


def _short(text: str | None) -> str:
    # A revision's end says whether it is dirty.
    digest, dash, rest = (text or "none").partition("-")
    return f"{digest[:12]}{dash}{rest}"


def _check_folders(folders: dict[str, Path]) -> None:
    for alias, path in folders.items():
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder", place=f"--data {alias}")


def _tell(done: CheckResult) -> None:
    note(f"{done.name}: {done.status} ({done.seconds:.1f} s)")


def text(report: Report) -> str:
    """The report as a table, and what to do about each failure."""
    rows: list[tuple[str, ...]] = [(each.name, each.status.upper(), each.detail) for each in report.results]
    failures = [each for each in report.results if each.status == "failed"]
    lines = [table(rows, ("CHECK", "STATUS", "SEEN"))]
    lines += [f"\n{each.name}: {each.proves}\n  → {each.remedy}" for each in failures]
    lines += [f"\n{_layers(report)}"] if report.layers else []
    passed = sum(each.status == "passed" for each in report.results)
    lines.append(f"\n{report.reference}: {passed} of {len(report.results)} checks passed")
    return "\n".join(lines)


def _layers(report: Report) -> str:
    rows = [
        (str(number), f"{each.size / 1e6:.1f} MB", each.made_by)
        for number, each in enumerate(report.layers, 1)
    ]
    return table(rows, ("LAYER", "SIZE", "MADE BY"))
