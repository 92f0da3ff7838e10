"""Files from object storage: in parallel, resumed where they broke off, verified, after a look at the disk.

Imported only where a platform is configured: `requests` comes with its SDK.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import requests

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.journal import Journal, is_encoded
from trainpack_entrypoint.links import Item, Link
from trainpack_entrypoint.parallel import in_parallel

# How often content that is not what storage announced is fetched again.
ATTEMPTS = 3
PROGRESS_SECONDS = 5.0
# Beyond so many files of a group its size is estimated: asking for each would take as long as small files.
SAMPLE = 1000
_CHUNK = 1 << 18

Say = Callable[[str], None]


def fetch(groups: Sequence[Sequence[Item]], folder: str, patience: float, say: Say) -> None:
    """Fetch every file that is not there already; what a former run of the same workspace has, it keeps.

    Args:
        groups: Files of about the same size in each, so that a sample tells the size of many.
        folder: On the disk of the files; holds what is not complete, and what is known of the rest.
        patience: Seconds without a byte after which a file is given up.

    Raises:
        RunError: `missing-input` for what storage does not have, refuses or serves wrong, `platform` when
            nothing arrives, `workspace` when the disk has no room.
    """
    items = [item for group in groups for item in group]
    if not items:
        return
    journal = Journal(folder, items)
    stop = threading.Event()
    progress = _Progress(say)

    def link(item: Item) -> Link:
        return Link(item, patience, stop)

    try:
        _require_room(groups, journal, link, folder, progress)
        in_parallel(lambda item: _fetch(item, journal, link(item), progress), items, progress.tick)
    finally:
        # A signal ends the wait; what is still under way must not go on behind the report.
        stop.set()
    journal.close()
    progress.end()


def _total(response: requests.Response) -> int | None:
    """The size of the whole object, where the answer tells it."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() and not is_encoded(response.headers) else None
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def _fetch(item: Item, journal: Journal, link: Link, progress: _Progress) -> None:
    problem = None
    for _ in range(ATTEMPTS):
        with _disk(os.path.dirname(journal.folder), item.what):
            problem = _attempt(item, journal, link, progress)
            if problem is None:
                progress.done()
                return
            journal.drop(item)
    raise RunError("missing-input", f"{item.what}: {problem}, {ATTEMPTS} times")


def _attempt(item: Item, journal: Journal, link: Link, progress: _Progress) -> str | None:
    """Bring one file in place, over as many connections as it takes; the problem, when it is a wrong one."""
    while True:
        conditions = journal.conditions(item)
        with link.get(conditions) as response:
            if response.status_code == 304:
                return None
            if problem := _mismatch(response, conditions, journal, item):
                return problem
            try:
                _receive(response, item, journal, link, progress)
            except requests.RequestException as error:
                link.failed(error)
                continue
        return journal.finish(item, _total(response))


def _mismatch(
    response: requests.Response, conditions: Mapping[str, str], journal: Journal, item: Item
) -> str | None:
    """What is wrong with an answer to a question for the rest of a file."""
    if response.status_code == 200:
        return None
    if "Range" not in conditions:
        return f"storage answers {response.status_code} where the whole was asked for"
    offset = journal.received(item)
    if response.status_code == 416:
        # All of it came, and then the container was ended.
        return None if _total(response) == offset else f"storage has no byte {offset}"
    starts = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    if not starts or response.headers.get("ETag", journal.etag(item)) != journal.etag(item):
        return "storage gives another part than was asked for"
    return None


def _receive(
    response: requests.Response, item: Item, journal: Journal, link: Link, progress: _Progress
) -> None:
    if response.status_code == 416:
        return
    if response.status_code == 200:
        journal.begin(item, response.headers)
    with open(journal.part(item.path), "ab" if response.status_code == 206 else "wb") as file:
        progress.at(item, file.tell())
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            progress.add(item, len(chunk))
            link.progressed()


@contextlib.contextmanager
def _disk(folder: str, what: str) -> Iterator[None]:
    """Turns a failed write into the error that says how much room there is.

    Raises:
        RunError: `workspace`.
    """
    try:
        yield
    except requests.RequestException:
        raise
    except OSError as error:
        message = f"{what}: {error.strerror}; {folder} has {size(_free(folder))} free"
        raise RunError("workspace", message) from None


def _free(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _require_room(
    groups: Sequence[Sequence[Item]],
    journal: Journal,
    link: Callable[[Item], Link],
    folder: str,
    progress: _Progress,
) -> None:
    needed, is_exact, count = 0, True, 0
    for group in groups:
        missing = [item for item in group if not journal.is_complete(item)]
        sample = missing[:: -(-len(missing) // SAMPLE)] if missing else []
        sizes = [known for known in _sizes(sample, link) if known is not None]
        is_exact = is_exact and len(sizes) == len(missing)
        whole = sum(sizes) if len(sizes) == len(missing) else len(missing) * sum(sizes) // max(len(sizes), 1)
        needed += whole
        progress.here += sum(map(journal.received, missing))
        count += len(missing)
    progress.begin(sum(map(len, groups)), count, needed, is_exact=is_exact)
    free = _free(folder)
    if needed - progress.here > free:
        about = "" if is_exact else "about "
        message = (
            f"the inputs need {about}{size(needed - progress.here)} more and {folder} has {size(free)} free"
        )
        raise RunError("workspace", f"{message}; mount a volume with room for them and for the outputs")


def _sizes(items: Sequence[Item], link: Callable[[Item], Link]) -> list[int | None]:
    def measured(item: Item) -> tuple[int | None, str]:
        try:
            # A URL that is signed for GET refuses HEAD.
            with link(item).get({"Range": "bytes=0-0"}) as response:
                return (0 if response.status_code == 416 else _total(response)), ""
        except RunError as error:
            if error.cause != "missing-input":
                raise
            return None, error.message

    results = in_parallel(measured, items)
    if problems := [problem for _, problem in results if problem]:
        raise RunError("missing-input", "inputs that the platform names cannot be had", sorted(problems))
    return [known for known, _ in results]


class _Progress:
    """Counts what arrives, and says so every now and then."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        self._arrived = 0
        self._started = self._told = time.monotonic()
        self._total = self._needed = 0
        self._files = self.here = 0

    def begin(self, files: int, missing: int, needed: int, *, is_exact: bool) -> None:
        """The first byte is about to be fetched."""
        self._total, self._needed = files, needed
        kept = [f"{files - missing} are here already"] if missing < files else []
        kept += [f"{size(self.here)} of the rest are, too"] if self.here else []
        about = "" if is_exact else "about "
        self._say("; ".join([f"inputs: {missing} files to download, {about}{size(needed)}", *kept]))
        self._started = self._told = time.monotonic()

    def at(self, item: Item, offset: int) -> None:
        """So much of a file is there."""
        with self._lock:
            self._bytes[item.path] = offset

    def add(self, item: Item, count: int) -> None:
        """More of it came."""
        with self._lock:
            self._bytes[item.path] += count
            self._arrived += count

    def done(self) -> None:
        """One file is in place."""
        with self._lock:
            self._files += 1

    def tick(self) -> None:
        """Say how far it is, if nothing was said for a while."""
        if not self._total or time.monotonic() - self._told < PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        with self._lock:
            held = sum(self._bytes.values())
        files = f"{self._files} of {self._total} files"
        self._say(f"inputs: {files}, {size(held)} of {size(self._needed)}, {self._rate}")

    def end(self) -> None:
        """Everything is there."""
        seconds = time.monotonic() - self._started
        self._say(f"inputs: {self._files} files, {size(self._arrived)} in {seconds:.1f} s, {self._rate}")

    @property
    def _rate(self) -> str:
        return f"{size(int(self._arrived / max(time.monotonic() - self._started, 0.001)))}/s"


def size(count: int) -> str:
    """A number of bytes as people read it."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
