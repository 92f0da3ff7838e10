"""The result of a contract test, kept per image id so that `attach` can ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from builder.errors import UsageError
from builder.records import Record
from builder.workdir import workdir, write_atomically


class CheckResult(Record):
    """What one check found.

    Attributes:
        name: `non-root`, `read-only-root`, …
        proves: The promise, as one sentence.
        detail: What was seen; on failure with the value that was met and what was expected.
        remedy: What to do about a failure.
    """

    name: str
    status: Literal["passed", "failed", "skipped"]
    proves: str
    detail: str = ""
    remedy: str = ""
    seconds: float = 0.0


class LayerSize(Record):
    """One layer: the step that made it, its diff id, and the bytes of its files, unpacked."""

    made_by: str
    digest: str
    size: int


class Report(Record):
    """All checks of one image id, and what its size comes from, base first."""

    reference: str
    image_id: str
    results: tuple[CheckResult, ...]
    layers: tuple[LayerSize, ...] = ()

    @property
    def passed(self) -> bool:
        """At least one check ran and none failed."""
        statuses = {result.status for result in self.results}
        return "passed" in statuses and "failed" not in statuses


def remember_report(folder: Path, report: Report) -> None:
    """Keep the report beside the project."""
    tested = workdir(folder) / "tested"
    tested.mkdir(exist_ok=True)
    write_report(tested / f"{report.image_id.removeprefix('sha256:')}.json", report)


def write_report(path: Path, report: Report) -> None:
    """Write a report to a file, for another CI stage."""
    write_atomically(path, report.model_dump_json(indent=2) + "\n")


def last_report(folder: Path, image_id: str) -> Report | None:
    """The report of this image id from this folder, None when it was not tested here."""
    path = workdir(folder) / "tested" / f"{image_id.removeprefix('sha256:')}.json"
    return read_report(path) if path.is_file() else None


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        UsageError: The file is missing or is no report.
    """
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("there is no test record here", place=str(path)) from None
    except (OSError, ValidationError) as error:
        raise UsageError(f"this is not a test record: {error}", place=str(path)) from None
