"""BuildKit's plain progress as events, and how they are shown."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner

_LINE = re.compile(r"#(\d+) (.*)")
_STEP = re.compile(r"\[(?:\S+/\S+ )?(?:(\S+) +)? *(\d+)/\d+\] ")
_COUNTED = re.compile(r"(FROM|RUN|COPY|ADD|WORKDIR)\s+(\S+)(?:\s+AS\s+(\S+))?")
_LOG = re.compile(r"[\d.]+ (.*)")
_TAIL = 30
_ENDS = ("done", "cached", "failed")


@dataclass
class Step:
    """One step; `place` is `<stage> <number>` for an instruction of the Dockerfile, None for others."""

    text: str
    place: str | None = None
    state: str = "running"
    seconds: float | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))

    def __str__(self) -> str:
        took = f" {self.seconds:.1f}s" if self.seconds is not None else ""
        return f"{self.text}{took}{' (cached)' if self.state == 'cached' else ''}"


Events = Iterator[tuple[Step, str]]


def read_progress(lines: Iterable[str], titles: Mapping[str, str] = MappingProxyType({})) -> Events:
    """Follow the lines of `docker build --progress=plain`: the step and what each line says of it.

    The event is `started`, `log`, `done`, `cached` or `failed`. Lines of no step are events of a step
    without a place, so that none is lost.

    Args:
        lines: As they come.
        titles: What to call a step, by its place.
    """
    steps: dict[str, Step] = {}
    loose = Step("")
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        if not match:
            if line.strip():
                loose.tail.append(line.rstrip("\n"))
                yield loose, "log"
            continue
        identifier, text = match.groups()
        if identifier not in steps:
            placed = _STEP.match(text)
            place = f"{placed[1] or 'stage-0'} {placed[2]}" if placed else None
            steps[identifier] = Step(titles.get(place or "", text), place)
            yield steps[identifier], "started"
        else:
            yield steps[identifier], _advance(steps[identifier], text)


def _advance(step: Step, text: str) -> str:
    if done := re.fullmatch(r"DONE ([\d.]+)s", text):
        step.state, step.seconds = "done", float(done[1])
        return "done"
    if text == "CACHED":
        step.state = "cached"
        return "cached"
    if text.startswith("ERROR"):
        step.state = "failed"
        if not step.tail:
            step.tail.append(text)
        return "failed"
    log = _LOG.fullmatch(text)
    if log:
        step.tail.append(log[1])
    return "log"


def step_places(dockerfile: str) -> dict[str, tuple[int, str]]:
    """Line and title of each instruction that BuildKit counts, by place; the comment above is the title.

    It numbers the instructions of each stage from 1, and does not count `FROM scratch`.
    """
    places: dict[str, tuple[int, str]] = {}
    title, stage, stages, count, continued = "", "", 0, 0, False
    for line_number, line in enumerate(dockerfile.splitlines(), 1):
        if line.startswith("# ") and not line.startswith("# hadolint"):
            title = line[2:]
        elif not continued and (match := _COUNTED.match(line)):
            if match[1] == "FROM":
                stage, count = match[3] or f"stage-{stages}", -1 if match[2] == "scratch" else 0
                stages += 1
            count += 1
            if count:
                places[f"{stage} {count}"] = line_number, title
        continued = line.endswith("\\")
    return places


def tell(events: Events, say: Callable[[str], None]) -> list[Step]:
    """Say one plain line for each step that ended, for logs; returns the steps."""
    steps: list[Step] = []
    for step, event in events:
        _collect(steps, step)
        if event in _ENDS and step.place:
            say(str(step))
    return steps


def watch(events: Events) -> list[Step]:
    """Show one moving line on the terminal and a plain one for each step that ended; returns the steps."""
    steps: list[Step] = []
    console = Console(stderr=True, highlight=False)
    with Live(console=console, transient=True, refresh_per_second=8) as display:
        for step, event in events:
            _collect(steps, step)
            last = escape(step.tail[-1] if step.tail else "")[: console.width - 4]
            display.update(Spinner("dots", text=f"{escape(step.text)}\n  [dim]{last}"))
            if event in _ENDS and step.place:
                console.print(str(step)[: console.width], markup=False)
    return steps


def _collect(steps: list[Step], step: Step) -> None:
    if step not in steps:
        steps.append(step)
