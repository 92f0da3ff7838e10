"""How a run ends early, and with which exit code; `diagnosis` says why a script failed."""

from __future__ import annotations

from collections.abc import Sequence

CODES = {
    "missing-input": 66,
    "platform": 69,
    "internal": 70,
    "gpu": 71,
    "disk-full": 74,
    "workspace": 74,
    "configuration": 78,
}
UNSAVED = 74


class RunError(Exception):
    """The run cannot go on, for a reason that is told without a traceback.

    Args:
        cause: One of the causes of `failure.json`.
        message: What happened, in one line.
        problems: Every problem found, when there can be several.
        code: The container's exit code; the cause's own unless given.
    """

    def __init__(
        self, cause: str, message: str, problems: Sequence[str] = (), *, code: int | None = None
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.problems = tuple(problems)
        self.code = CODES[cause] if code is None else code


class InterruptedEarlyError(BaseException):
    """A signal to stop arrived before the script was started."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
