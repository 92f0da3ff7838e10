"""The log of a run on its way to the platform: kept within bounds, shown by the protocol, sent in full."""

from __future__ import annotations

import errno
import json
import os
import threading
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from picsellia.exceptions import BadRequestError, UnauthorizedError
from trainpack_entrypoint.display import BATCH_LINES, Display, Message
from trainpack_entrypoint.full_log import write_full_log
from trainpack_entrypoint.relay import Relay
from trainpack_entrypoint.spool import Reader, Spool


def numbered(start: int, stop: int) -> list[bytes]:
    return [b"line %06d" % number for number in range(start, stop)]


def read(spool: Spool) -> list[bytes | int]:
    """Every line that is kept, and how many are missing where some are."""
    reader, found = Reader(spool), list[bytes | int]()
    while True:
        missing, chunk = reader.read(64)
        found += [missing] if missing else []
        if not chunk:
            return found
        found += chunk[:-1].split(b"\n")


def used(spool: Spool) -> int:
    return sum(segment.size for segment in spool._segments)


# The spool.


def test_lines_are_read_in_order_as_they_were_written(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    lines = [b"", b"a", b"\xff\x00" * 10, b"b" * (1 << 20), b"", b"last"]
    for line in lines:
        spool.add([line])
    assert read(spool) == lines
    assert (spool.lines, spool.lost) == (6, 0)


def test_nothing_of_the_log_is_left_in_the_folder(tmp_path: Path) -> None:
    Spool(str(tmp_path)).add([b"line"])
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_container_left_in_the_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".log-{os.getpid()}").write_bytes(b"torn")
    spool = Spool(str(tmp_path))
    for _ in range(20):
        spool.add([b"x" * (1 << 20)])
    assert (len(read(spool)), spool.lost) == (20, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_log_beyond_its_limit_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), limit=16_000)
    for start in range(0, 10_000, 10):
        spool.add(numbered(start, start + 10))
        assert used(spool) <= 16_000
    found = read(spool)
    (gap,) = (entry for entry in found if isinstance(entry, int))
    at = found.index(gap)
    assert found[:at] == numbered(0, at)
    assert found[at + 1 :] == numbered(at + gap, 10_000)
    assert at >= 50
    assert len(found) > 1_000
    assert spool.lost == gap


def test_a_reader_that_is_behind_learns_what_it_missed(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), limit=16_000)
    reader = Reader(spool)
    spool.add(numbered(0, 10))
    assert reader.read(1 << 10) == (0, b"\n".join(numbered(0, 10)) + b"\n")
    for start in range(10, 10_000, 10):
        spool.add(numbered(start, start + 10))
    seen, missed = 10, 0
    while (part := reader.read(1 << 10))[1]:
        missed, seen = missed + part[0], seen + part[1].count(b"\n")
    assert missed > 0
    assert seen + missed == 10_000


class FullDisk(Spool):
    """The disk takes so many bytes, then no more until something is freed."""

    room = 5_000

    def _is_kept(self, data: bytes, first: int, lines: int) -> bool:
        if used(self) + len(data) > self.room:
            return False
        return super()._is_kept(data, first, lines)


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    spool = FullDisk(str(tmp_path), limit=8_000)
    for start in range(0, 1_000, 10):
        spool.add(numbered(start, start + 10))
    spool.room = 0
    spool.add([b"nowhere"])
    spool.room = 5_000
    spool.add([b"there is room again"])
    found = read(spool)
    assert found[0] == b"line 000000"
    assert found[-1] == b"there is room again"
    assert sum(entry if isinstance(entry, int) else 1 for entry in found) == spool.lines == 1_002
    assert spool.lost > 0


class HalfFull:
    """A file that takes half of what is written once, then nothing, then all again."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._answers = iter([errno.ENOSPC])
        self._is_first = True
        self.truncate, self.fileno = file.truncate, file.fileno

    def write(self, view: memoryview) -> int:
        if self._is_first:
            self._is_first = False
            return self._file.write(view[: len(view) // 2])
        if error := next(self._answers, None):
            raise OSError(error, "No space left on device")
        return self._file.write(view)


def test_a_write_that_fails_half_way_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(str(tmp_path), limit=16_000)
    for start in range(0, 300, 10):
        spool.add(numbered(start, start + 10))
    spool.add([b"before"])
    monkeypatch.setattr(spool._segments[-1], "file", HalfFull(spool._segments[-1].file))
    spool.add([b"x" * 80])
    monkeypatch.undo()
    spool.add([b"after"])
    assert read(spool)[-3:] == [b"before", b"x" * 80, b"after"]
    assert spool.lost > 0


def test_a_folder_that_cannot_be_written_is_replaced_by_bounded_memory() -> None:
    spool = Spool("/proc/nowhere")
    for _ in range(40):
        spool.add([b"x" * (1 << 20)])
    assert used(spool) <= 1 << 24
    assert spool.lost > 0


def test_a_line_longer_than_the_limit_is_lost_alone(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), limit=1_000)
    spool.add([b"before"])
    spool.add([b"x" * 2_000])
    spool.add([b"after"])
    assert read(spool) == [b"before", 1, b"after"]


# The display.


def shown(lines: list[str]) -> list[tuple[int, str | list[str]]]:
    return [(message.number, message.content) for message in Display().messages(lines)]


def test_plain_lines_go_in_batches() -> None:
    messages = list(Display().messages(str(number) for number in range(2 * BATCH_LINES + 1)))
    assert [len(message.content) for message in messages] == [BATCH_LINES, BATCH_LINES, 1]
    assert [message.number for message in messages] == [0, BATCH_LINES, 2 * BATCH_LINES]
    assert {message.special for message in messages} == {"buffer"}


def test_a_chapter_opens_a_part() -> None:
    messages = list(Display().messages(["a", "--#--Evaluate", "b"]))
    assert [message.part for message in messages] == ["--#--Training", "--#--Evaluate", "--#--Evaluate"]
    assert [message.content for message in messages] == [["a\n"], "--#--Evaluate", ["b\n"]]


def test_a_progress_line_is_replaced_until_it_ends() -> None:
    lines = ["a", "-----", "1 %", "50 %", "100 %", "--*--", "b"]
    assert shown(lines) == [(0, ["a\n"]), (1, "100 %\n"), (2, ["--*--\n", "b\n"])]


def test_a_progress_line_keeps_its_number_from_batch_to_batch() -> None:
    display = Display()
    messages = [message for line in ("-----", "1 %", "50 %", "--*--") for message in display.messages([line])]
    assert [message.number for message in messages] == [0, 0, 0, 1]
    assert sum(message.stands_for for message in messages) == 4


def test_a_second_progress_line_stands_below_the_first() -> None:
    assert shown(["-----", "1 %", "-----", "2 %"]) == [(0, "1 %\n"), (1, "2 %\n")]


def test_lines_of_a_buffer_replace_nothing() -> None:
    lines = ["-----", "1 %", "--3--", "x", "y", "---3---", "2 %"]
    assert shown(lines) == [(0, "1 %\n"), (1, ["--3--\n", "x\n", "y\n"]), (0, "2 %\n")]


def test_a_heading_is_never_replaced() -> None:
    assert shown(["-----", "1 %", "--#--Next", "a"]) == [(0, "1 %\n"), (1, "--#--Next"), (2, ["a\n"])]


def test_an_exit_line_is_only_ever_sent_in_a_buffer() -> None:
    for lines in (["--ec-- 0"], ["-----", "--ec-- 1"], ["-----", "done --ec-- 1"]):
        (message,) = Display().messages(lines)
        assert (message.special, message.content) == ("buffer", [lines[-1] + "\n"])


# The relay.


class Platform:
    """Takes messages; `failure` is raised instead while it is set."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.failure: Exception | None = None
        self.changed = threading.Condition()

    def send(self, message: Message) -> None:
        with self.changed:
            self.changed.notify_all()
            if self.failure:
                raise self.failure
            self.got.append(message)

    def wait(self, until: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: until in self.lines, 10), self.lines

    @property
    def lines(self) -> list[str]:
        contents = (message.content for message in list(self.got))
        return [line.rstrip("\n") for content in contents if isinstance(content, list) for line in content]


@pytest.fixture
def platform() -> Platform:
    return Platform()


def test_lines_arrive_while_the_script_runs_and_the_exit_code_last(
    tmp_path: Path, platform: Platform
) -> None:
    relay = Relay(Spool(str(tmp_path)), [platform.send])
    relay.add([b"first"])
    platform.wait("first")
    relay.add([b"last"])
    assert relay.close(3, 10) == 0
    assert platform.lines == ["first", "last"]
    assert (platform.got[-1].content, platform.got[-1].special) == ("3", "exit_code")


def test_what_a_failing_platform_missed_is_delivered_when_it_is_back(
    tmp_path: Path, platform: Platform
) -> None:
    platform.failure = RuntimeError("away")
    relay = Relay(Spool(str(tmp_path)), [platform.send])
    relay.add(numbered(0, 5_000))
    with platform.changed:
        assert platform.changed.wait(10)
        platform.failure = None
    assert relay.close(0, 10) == 0
    assert platform.lines == [line.decode() for line in numbered(0, 5_000)]


def test_one_reader_that_fails_does_not_hold_up_the_other(tmp_path: Path, platform: Platform) -> None:
    other = Platform()
    other.failure = RuntimeError("away")
    relay = Relay(Spool(str(tmp_path)), [other.send, platform.send])
    relay.add([b"line"])
    platform.wait("line")
    assert relay.close(0, 0.2) == 1
    assert platform.lines == ["line"]


def test_the_end_waits_no_longer_than_it_may(tmp_path: Path, platform: Platform) -> None:
    platform.failure = RuntimeError("away")
    relay = Relay(Spool(str(tmp_path)), [platform.send])
    relay.add(numbered(0, 7))
    assert relay.close(0, 0.3) == 7


def test_the_end_does_not_wait_for_a_platform_that_refuses(tmp_path: Path, platform: Platform) -> None:
    platform.failure = UnauthorizedError("revoked")
    relay = Relay(Spool(str(tmp_path)), [platform.send])
    relay.add(numbered(0, 7))
    started = datetime.now()
    assert relay.close(0, 60) == 7
    assert (datetime.now() - started).total_seconds() < 5


def test_what_the_platform_cannot_take_is_skipped_and_counted(tmp_path: Path, platform: Platform) -> None:
    def send(message: Message) -> None:
        if "poison\n" in message.content:
            raise BadRequestError("too strange")
        platform.send(message)

    relay = Relay(Spool(str(tmp_path)), [send])
    relay.add([b"before", b"--#--Next", b"poison", b"--#--Last", b"after"])
    assert relay.close(0, 10) == 1
    assert platform.lines == ["before", "after"]


def test_missing_lines_are_told_where_they_would_be(tmp_path: Path, platform: Platform) -> None:
    platform.failure = RuntimeError("away")
    spool = Spool(str(tmp_path), limit=16_000)
    relay = Relay(spool, [platform.send])
    for start in range(0, 10_000, 10):
        relay.add(numbered(start, start + 10))
    platform.failure = None
    unsent = relay.close(0, 10)
    lines = platform.lines
    told = [line for line in lines if line.startswith("trainpack: ")]
    assert 0 < unsent <= spool.lost
    assert len(lines) - len(told) == 10_000 - unsent
    assert "TRAINPACK_LOG_LIMIT" in told[0]
    assert lines[-1] == "line 009999"


# The full log.


def full_log(spool: Spool, folder: Path) -> dict[str, dict[str, Any]]:
    write_full_log(str(folder / "log.json"), spool, 3)
    document = json.loads((folder / "log.json").read_text(), object_pairs_hook=unique)
    assert isinstance(document, dict)
    return document


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_the_full_log_has_every_line_in_its_chapter(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.add([b"a", b"-----", b"1 %", b"2 %", b"--*--"])
    spool.add([b"--#--Epoch", b'"quoted" \xff\x00', b"10 %\r20 %\r", b"--#--Epoch", b"--#--Epoch (2)", b"z"])
    document = full_log(spool, tmp_path)
    assert {name: list(part["logs"].values()) for name, part in document.items() if name != "exit_code"} == {
        "--#--Training": ["a\n", "-----\n", "1 %\n", "2 %\n", "--*--\n"],
        "--#--Epoch": ["--#--Epoch\n", '"quoted" \ufffd\ufffd\n', "20 %\n"],
        "--#--Epoch (2)": ["--#--Epoch\n"],
        "--#--Epoch (2) (2)": ["--#--Epoch (2)\n", "z\n"],
    }
    numbers = [int(number) for part in list(document.values())[:-1] for number in part["logs"]]
    assert numbers == list(range(1, 12))
    assert document["exit_code"]["exit_code"] == 3
    assert all(datetime.fromisoformat(str(part["datetime"])) for part in document.values())


def test_the_full_log_of_a_run_without_lines_is_a_document(tmp_path: Path) -> None:
    assert full_log(Spool(str(tmp_path)), tmp_path)["--#--Training"]["logs"] == {}


def test_the_full_log_says_when_its_end_is_missing(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), limit=1_000)
    spool.add([b"before"])
    spool.add([b"x" * 2_000, b"y"])
    lines = list(full_log(spool, tmp_path)["--#--Training"]["logs"].values())
    assert lines[0] == "before\n"
    assert lines[1].startswith("trainpack: 2 lines are missing here")


def test_the_full_log_says_where_lines_are_missing(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), limit=16_000)
    for start in range(0, 10_000, 10):
        spool.add(numbered(start, start + 10))
    lines = full_log(spool, tmp_path)["--#--Training"]["logs"]
    (told,) = (line for line in lines.values() if line.startswith("trainpack: "))
    assert f"trainpack: {spool.lost} lines are missing here" in told
    assert lines["1"] == "line 000000\n"
    assert lines["10000"] == "line 009999\n"
