"""What trainpack promises of its speed, beside what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from building.measures import DOWNLOAD, Values

OURS, UV, PIP = "trainpack", "buildkit-uv", "buildkit-pip"
# Bytes that a changed light dependency may cost, however small its wheel is.
LIGHT_BYTES = 15e6


@dataclass(frozen=True)
class Target:
    """A bound on something measured.

    Attributes:
        measured: None where a side of it was left out.
        bounds: Lock → the least value, or the most where `at_most`.
        unit: Behind the number: ` times`, `MB`.
        bytecode: Whether it is promised with byte code, without it, or either way.
    """

    title: str
    measure: str
    measured: Callable[[Values], float | None]
    bounds: Mapping[str, float]
    unit: str = ""
    at_most: bool = True
    bytecode: tuple[bool, ...] = (True, False)

    def bound(self, lock: str) -> str:
        """`≤ 0.75`."""
        return f"{'≤' if self.at_most else '≥'} {self.bounds[lock]:g}{self.unit}"

    def is_met(self, lock: str, value: float) -> bool:
        """Whether a measured value keeps the promise."""
        bound = self.bounds[lock]
        return value <= bound if self.at_most else value >= bound


def median(values: Values, side: str, what: str = "seconds") -> float | None:
    """The median of the rounds, None where it was not measured."""
    rounds = values.get(side, {}).get(what)
    return statistics.median(rounds) if rounds else None


def ratio(
    side: str, other: str, what: str = "seconds", other_what: str | None = None
) -> Callable[[Values], float | None]:
    """One side's median through another's."""

    def measured(values: Values) -> float | None:
        over, under = median(values, side, what), median(values, other, other_what or what)
        return over / under if over is not None and under else None

    return measured


def faster(than: str) -> Callable[[Values], float | None]:
    """How many times faster trainpack is."""
    return ratio(than, OURS)


def scaled(what: str, divisor: float = 1.0) -> Callable[[Values], float | None]:
    """The median of something that trainpack took."""

    def measured(values: Values) -> float | None:
        found = median(values, OURS, what)
        return None if found is None else found / divisor

    return measured


def pull_beyond_bytes(values: Values) -> float | None:
    """Seconds that a pull took beyond those of its bytes."""
    pull, alone = median(values, OURS, "pull"), median(values, OURS, "pull bytes alone")
    return None if pull is None or alone is None else pull - alone


def light_sent(values: Values) -> float | None:
    """Bytes that a changed light dependency cost, through those that it may."""
    sent, wheel = median(values, OURS, "sent"), median(values, OURS, "wheel")
    return None if sent is None or wheel is None else sent / max(2 * wheel, LIGHT_BYTES)


def _both(bound: float) -> dict[str, float]:
    return {"small": bound, "torch": bound}


TARGETS = (
    Target(
        "cold build + first push, against BuildKit + uv",
        "cold",
        faster(UV),
        {"small": 5, "torch": 10},
        " times",
        False,
    ),
    Target(
        "cold build + first push, against the guide's Dockerfile",
        "cold",
        faster(PIP),
        _both(15),
        " times",
        False,
    ),
    Target(
        "the same with no package there, to downloading alone", "fetch", ratio(OURS, DOWNLOAD), _both(1.3)
    ),
    Target(
        "the same over a line of 100 Mbit/s, to downloading alone", "paced", ratio(OURS, DOWNLOAD), _both(1.3)
    ),
    Target("no-op, to `docker build`", "noop", ratio(OURS, UV), _both(1.0)),
    Target(
        "no-op with the image in the engine, to `docker build`", "noop-loaded", ratio(OURS, UV), _both(1.0)
    ),
    Target("one-line edit, built and pushed, to BuildKit", "edit", ratio(OURS, UV), _both(0.75)),
    Target("one-line edit, sent", "edit", scaled("sent", 1e3), _both(4), " kB"),
    Target("one-line edit, built and loaded, to BuildKit", "edit-loaded", ratio(OURS, UV), _both(1.0)),
    Target("light dependency changed, built and pushed", "light", faster(UV), _both(5), " times", False),
    Target("light dependency changed, sent, to twice its wheel or 15 MB", "light", light_sent, _both(1.0)),
    Target("pull of that, beyond its bytes", "light", pull_beyond_bytes, _both(2), " s"),
    Target("peak memory for an image of 5 GB", "memory", scaled("peak MB"), {"5 GB": 200}, " MB"),
    Target("imports, to a pip install", "imports", ratio(OURS, PIP), _both(1.0), bytecode=(True,)),
    Target("image compressed, to BuildKit + uv", "size", ratio(OURS, UV, "compressed"), _both(1.0)),
    Target("image unpacked, to BuildKit + uv", "size", ratio(OURS, UV, "unpacked"), _both(1.0)),
)
