"""What came of a fault, as one row of docs/faults.md, and that file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from picsellia_standin import Experiment

from faults.scenarios import (
    EVERY_LINE,
    IN_THE_WORKSPACE,
    NO_OUTPUTS,
    NOTHING,
    ON_THE_PLATFORM,
    WHAT_WAS_SENT,
    Scenario,
)
from faults.stage import Ended, Stage

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"
HEADER = ("fault", "exit code", "cause", "experiment", "job", "outputs", "log on the platform")
TEXT = """\
# What comes of a fault

Every row is a real container of a real image, with the unmodified Picsellia SDK in it, whose platform is
played by the strict stand-in of the tests. `make faults` runs them all and rewrites this file; `make test`
runs them all and fails when one no longer does what is written here. `tests/faults/scenarios.py` says what
each does.
Exit codes and causes: [contract.md](contract.md#exit-codes).

"""


def row(scenario: Scenario, stage: Stage, ended: Ended) -> tuple[str, ...]:
    """What was seen."""
    return (
        scenario.name,
        str(ended.exit_code),
        ended.failure.get("cause") or "",
        stage.experiment.status,
        stage.job.status,
        kept(stage.experiment, ended),
        log_of(stage, ended.printed),
    )


def expected(scenario: Scenario) -> tuple[str, ...]:
    """What must be seen."""
    return (scenario.name, *map(str, scenario.ending))


def kept(experiment: Experiment, ended: Ended) -> str:
    """Where all outputs are; the workspace is looked at only where the platform lacks one."""
    if not ended.outputs:
        return NO_OUTPUTS
    held = _artifacts(experiment)
    if ended.outputs.items() <= held.items():
        return ON_THE_PLATFORM
    listed = {output["path"] for output in ended.result["outputs"]}
    return IN_THE_WORKSPACE if listed == ended.outputs.keys() else "lost"


def _artifacts(experiment: Experiment) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for file in experiment.artifacts.values():
        files[file.name] = file.data
        if file.filename.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
                files |= {f"{file.name}/{name}": archive.read(name) for name in archive.namelist()}
    return files


def log_of(stage: Stage, printed: Sequence[str]) -> str:
    """What the platform holds of the script's lines, in order: in the full log, else in what was sent."""
    if not printed:
        return NOTHING
    held = iter(_full_log(stage) or [line.rstrip("\n") for line in stage.experiment.lines])
    return EVERY_LINE if all(line in held for line in printed) else WHAT_WAS_SENT


def _full_log(stage: Stage) -> list[str]:
    if stage.experiment.logging_file is None:
        return []
    chapters = json.loads(stage.platform.objects[stage.experiment.logging_file])
    texts = [
        [heading, *chapter["logs"].values()]
        for heading, chapter in chapters.items()
        if heading != "exit_code"
    ]
    return [text.rstrip("\n") for lines in texts for text in lines]


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """The document with these rows."""
    lines = [HEADER, tuple("---" for _ in HEADER), *rows]
    return TEXT + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def documented() -> set[tuple[str, ...]]:
    """The rows of the document."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    return {
        tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")
    }
