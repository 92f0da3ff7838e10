"""Results as data, as Markdown tables, and as the page in docs."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from builder import __version__
from builder.engine import buildkit_cli, client
from builder.host.tools import host_uv
from building.measures import DOWNLOAD, Values
from building.targets import OURS, TARGETS, median

LOCKS = ("small", "torch", "5 GB")
TITLES = {
    "trainpack": "trainpack",
    "buildkit-uv": "BuildKit + uv",
    "buildkit-pip": "BuildKit + pip",
    "legacy": "legacy builder",
    "buildah": "buildah",
}
# Measure → what its row is called, what is shown of it, in which unit and with how many digits.
ROWS = (
    ("cold", "cold build + first push, s", "seconds", 1.0, 2),
    ("uncompiled", "the same, no wheel packed yet, s", "seconds", 1.0, 2),
    ("fetch", "the same, no package there, s", "seconds", 1.0, 2),
    ("paced", "the same, over a line of 100 Mbit/s, s", "seconds", 1.0, 2),
    ("noop", "no-op, s", "seconds", 1.0, 3),
    ("noop-loaded", "no-op, image in the engine, s", "seconds", 1.0, 3),
    ("edit", "one-line edit, built and pushed, s", "seconds", 1.0, 3),
    ("edit", "one-line edit, sent, kB", "sent", 1e3, 1),
    ("edit-loaded", "one-line edit, built, image in the engine, s", "seconds", 1.0, 3),
    ("light", "light dependency changed, built and pushed, s", "seconds", 1.0, 2),
    ("light", "light dependency changed, sent, MB", "sent", 1e6, 2),
    ("light", "pull of that, s", "pull", 1.0, 2),
    ("light", "its bytes alone, s", "pull bytes alone", 1.0, 2),
    ("imports", "imports in the container, s", "seconds", 1.0, 2),
    ("size", "image compressed, MB", "compressed", 1.0, 1),
    ("size", "image unpacked, MB", "unpacked", 1.0, 1),
    ("size", "layers", "layers", 1.0, 0),
)


@dataclass(frozen=True)
class Run:
    """One measure of one lock.

    Attributes:
        bytecode: Whether the images hold byte code.
        load: The machine's load average when it began and when it ended.
        seconds: What the measure took.
    """

    measure: str
    lock: str
    bytecode: bool
    rounds: int
    load: tuple[float, float]
    values: Values
    seconds: float = 0.0


@dataclass
class Results:
    """The newest run of each measure, and the machine that they are from."""

    machine: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Take a run in, in place of an older one of the same."""
        same = (run.measure, run.lock, run.bytecode)
        self.runs = [each for each in self.runs if (each.measure, each.lock, each.bytecode) != same]
        self.runs.append(run)

    def find(self, measure: str, lock: str, bytecode: bool) -> Run | None:
        """The run of a measure."""
        wanted = (measure, lock, bytecode)
        return next((run for run in self.runs if (run.measure, run.lock, run.bytecode) == wanted), None)

    def json(self) -> str:
        """Everything, as one document."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_results(path: Path) -> Results:
    """What earlier runs kept; nothing where there is no file."""
    if not path.exists():
        return Results()
    document = json.loads(path.read_text(encoding="utf-8"))
    runs = [Run(**{**run, "load": tuple(run["load"])}) for run in document["runs"]]
    return Results(document["machine"], runs)


def this_machine() -> dict[str, str]:
    """What decides the figures, beside the code."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    engine = client().version()
    return {
        "cores": str(os.cpu_count()),
        "processor": model[1] if model else platform.machine(),
        "memory": f"{int(memory[1]) / 1e6:.0f} GB" if memory else "unknown",
        "Docker engine": str(engine["Version"]),
        "docker command": _version([buildkit_cli(), "--version"]),
        "buildah": _version(["buildah", "--version"]),
        "uv": _version([str(host_uv()), "--version"]),
        "Python": platform.python_version(),
        "trainpack": __version__,
    }


def _version(command: Sequence[str]) -> str:
    if not shutil.which(command[0]):
        return "none"
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d[\w.+~-]*", text)
    return found[0].rstrip(".") if found else "unknown"


def verdicts(results: Results) -> Iterator[tuple[str, str, str, str, bool]]:
    """Target, what of, bound, measured, met: for each that was measured."""
    for target in TARGETS:
        for lock in target.bounds:
            for bytecode in target.bytecode:
                run = results.find(target.measure, lock, bytecode)
                value = target.measured(run.values) if run else None
                if value is None:
                    continue
                which = lock if target.measure == "memory" else f"{lock}, {_bytecode(bytecode)}"
                shown = f"{value:.2f}{target.unit}"
                yield target.title, which, target.bound(lock), shown, target.is_met(lock, value)


def _bytecode(there: bool) -> str:
    return "with byte code" if there else "without"


def tables(results: Results) -> str:
    """Every table, as Markdown."""
    return "\n".join(line for part in _parts(results) for line in part)


def _parts(results: Results) -> Iterator[list[str]]:
    rows = [(*row[:-1], "met" if row[-1] else "**not met**") for row in verdicts(results)]
    if rows:
        yield ["## Targets", "", *_table(("", "of", "target", "measured", ""), rows), ""]
    for bytecode in (True, False):
        for lock in LOCKS[:2]:
            yield _medians(results, lock, bytecode)
    yield _where(results)


def _medians(results: Results, lock: str, bytecode: bool) -> list[str]:
    sides = [side for side in (*TITLES, DOWNLOAD) if _measured(results, lock, bytecode, side)]
    rows = []
    for measure, title, what, divisor, digits in ROWS:
        run = results.find(measure, lock, bytecode)
        found = [median(run.values, side, what) for side in sides] if run else []
        if run and any(value is not None for value in found):
            cells = ["" if value is None else f"{value / divisor:.{digits}f}" for value in found]
            rows.append((title, *cells, _rounds(run, what), f"{max(run.load):.1f}"))
    if not rows:
        return []
    head = ("medians", *(TITLES.get(side, side) for side in sides), "rounds", "load")
    return [f"## The {lock} lock, {_bytecode(bytecode)}", "", *_table(head, rows), ""]


def _rounds(run: Run, what: str) -> str:
    """`3`, or `1 to 3` where some sides were measured less often."""
    counts = {len(values[what]) for values in run.values.values() if what in values}
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))


def _measured(results: Results, lock: str, bytecode: bool, side: str) -> bool:
    shown = {row[0] for row in ROWS}
    return any(
        side in run.values
        for run in results.runs
        if (run.lock, run.bytecode) == (lock, bytecode) and run.measure in shown
    )


def _where(results: Results) -> list[str]:
    lines = []
    for measure, title, unit, scale in (
        ("profile", "One-line edit, built and pushed", "ms", 1000),
        ("parts", "What a one-line edit sends", "bytes", 1),
        ("floors", "Floors of a cold build", "ms", 1000),
    ):
        for run in (run for run in results.runs if run.measure == measure):
            rows = [
                (what, f"{(median(run.values, OURS, what) or 0) * scale:.0f}")
                for what in run.values.get(OURS, {})
            ]
            head = (f"{title}, {run.lock} lock, {_bytecode(run.bytecode)}", unit)
            lines += [*_table(head, rows), ""]
    for run in (run for run in results.runs if run.measure == "memory"):
        rows = [(what, f"{median(run.values, OURS, what):.0f}") for what in run.values[OURS]]
        lines += [*_table(("An image of 5 GB, built and pushed", ""), rows), ""]
    return ["## Where the time goes", "", *lines] if lines else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = "|".join(["---", *(["---:"] * (len(head) - 1))])
    return [f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]


def page(results: Results) -> str:
    """The page of docs."""
    machine = ", ".join(f"{what} {value}" for what, value in results.machine.items())
    text = Path(__file__).with_name("page.md").read_text(encoding="utf-8")
    minutes = round(sum(run.seconds for run in results.runs) / 60)
    return text.format(machine=machine, minutes=minutes, tables=tables(results))
