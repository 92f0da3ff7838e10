"""`trainpack doctor`."""

from __future__ import annotations

import os

import typer

from builder.cli.output import HERE, FolderOption, JsonOption, result
from builder.doctor import Finding, examine

app = typer.Typer(rich_markup_mode=None)
_SIGNS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@app.command(epilog="Example: trainpack doctor --json")
def doctor(folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Check engine, BuildKit, package index, CA and platform, each with its remedy.

    Ends with 1 when something that is needed does not work. Nothing is changed.
    """
    findings = examine(folder, os.environ)
    failed = any(finding.status == "failed" for finding in findings)
    data = {"passed": not failed, "findings": [finding.model_dump() for finding in findings]}
    result(data, as_json=as_json, text=lambda: "\n".join(map(_describe, findings)))
    if failed:
        raise typer.Exit(1)


def _describe(finding: Finding) -> str:
    line = f"{_SIGNS[finding.status]}  {finding.name:<13}  {finding.message}"
    return f"{line}\n           → {finding.remedy}" if finding.remedy else line
