"""The same for many things at once, in threads that never hold the end of the process."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

THREADS = 8
TICK_SECONDS = 1.0

Given = TypeVar("Given")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Given], Result], things: Iterable[Given], tick: Callable[[], None] = lambda: None
) -> list[Result]:
    """Do the same with many things in daemon threads, and wait for them as signals allow.

    Args:
        tick: Called every now and then while it waits.

    Raises:
        Exception: The first that one of them raised; the others are left to themselves.
    """
    waiting: queue.SimpleQueue[Given] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Result | None, Exception | None]] = queue.SimpleQueue()
    for thing in things:
        waiting.put(thing)

    def run() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                thing = waiting.get_nowait()
                try:
                    done.put((work(thing), None))
                except Exception as error:
                    done.put((None, error))

    count = waiting.qsize()
    for number in range(min(THREADS, count)):
        threading.Thread(target=run, name=f"input-{number}", daemon=True).start()
    try:
        return [_next(done, tick) for _ in range(count)]
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()


def _next(done: queue.SimpleQueue[tuple[Any, Exception | None]], tick: Callable[[], None]) -> Any:
    while True:
        try:
            result, error = done.get(timeout=TICK_SECONDS)
        except queue.Empty:
            tick()
            continue
        tick()
        if error is not None:
            raise error
        return result
