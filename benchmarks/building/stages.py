"""`trainpack build --push` in a folder, stage by stage; prints the seconds of each as JSON."""

from __future__ import annotations

import builtins
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# Module, function, and what its time is called; without that of the stages inside it.
STAGES = (
    ("builder.rebuild.unchanged", "told_before", "what the last build saw, compared"),
    ("builder.revision", "revision", "git's revision"),
    ("builder.project", "read_plan", "spec, lock and code become a plan"),
    ("builder.code_layer", "code_layer", "the code's layer: tar, compress, hash"),
    ("builder.builders.oci", "OciBuilder", "the plan becomes an image"),
    ("builder.oci.remote.push", "push", "push: ask, send, tag"),
)
IMPORTS, REST = "imports", "the rest of the command"


class Clock:
    """Charges time to the innermost stage that runs."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._stack = [REST]
        self._since = time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        stage = self._stack[-1]
        self.stages[stage] = self.stages.get(stage, 0.0) + now - self._since
        self._since = now

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time charged to a stage."""

        @functools.wraps(function)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self._charge()
            self._stack.append(stage)
            try:
                return function(*arguments, **options)
            finally:
                self._charge()
                self._stack.pop()

        return wrapper


def main() -> int:
    """Run the command and print."""
    clock = Clock()
    load = clock.timed(IMPORTS, builtins.__import__)
    waiting = list(STAGES)

    def importing(*arguments: Any, **options: Any) -> Any:
        loaded = load(*arguments, **options)
        # As soon as a module is there, before anybody takes the function out of it.
        for stage in [each for each in waiting if hasattr(sys.modules.get(each[0]), each[1])]:
            waiting.remove(stage)
            module, name, title = sys.modules[stage[0]], stage[1], stage[2]
            setattr(module, name, _with_methods(clock, title, getattr(module, name)))
        return loaded

    builtins.__import__ = importing
    os.chdir(sys.argv[1])
    sys.argv = ["trainpack", "build", "--builder=oci", "--no-load", "--push", "--no-attest"]
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        from builder.cli import main as command  # noqa: PLC0415

        clock.timed(REST, command)()
    print(json.dumps(clock.stages))
    return 0


def _with_methods(clock: Clock, title: str, found: Any) -> Any:
    if not isinstance(found, type):
        return clock.timed(title, found)
    found.image = clock.timed(title, found.image)  # type: ignore[attr-defined]
    return found


if __name__ == "__main__":
    sys.exit(main())
