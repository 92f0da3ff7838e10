"""Tracebacks of real interpreters, and of programs that are too heavy to run here, copied from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainpack_entrypoint.outcome.tracebacks import Location, Raised, last_raised

CODE = "/workspace/code"


def raised_by(folder: Path, source: str) -> Raised | None:
    """What a real script's standard error says."""
    (folder / "train.py").write_text(dedent(source))
    command = [sys.executable, "train.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return last_raised(done.stderr.splitlines(), str(folder))


def said(text: str) -> Raised | None:
    return last_raised(dedent(text).strip("\n").splitlines(), CODE)


def test_the_place_is_the_innermost_line_of_the_users_code(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path,
        """
        import json
        def load(text):
            return json.loads(text)
        load("{")
        """,
    )
    assert raised
    assert raised.type == "json.decoder.JSONDecodeError"
    assert raised.message.startswith("Expecting property name")
    assert raised.location == Location("train.py", 4, "load")
    assert raised.text.startswith("Traceback (most recent call last):\n")
    assert raised.text.endswith(raised.message)


def test_a_package_of_the_users_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/net.py").write_text("def build():\n    raise KeyError('resnet')\n")
    raised = raised_by(tmp_path, "from models import net\nnet.build()\n")
    assert raised
    assert (raised.type, raised.message) == ("KeyError", "'resnet'")
    assert raised.location == Location("models/net.py", 2, "build")


def test_of_chained_exceptions_the_last_counts_and_all_are_in_the_text(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path,
        """
        def read():
            try:
                1 / 0
            except ZeroDivisionError as error:
                try:
                    {}["path"]
                except KeyError:
                    raise RuntimeError("cannot read\\nthe data\\n\\nafter a blank line") from error
        read()
        """,
    )
    assert raised
    assert (raised.type, raised.message) == ("RuntimeError", "cannot read\nthe data")
    assert raised.location == Location("train.py", 9, "read")
    assert raised.text.count("Traceback (most recent call last):") == 2
    assert raised.text.startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError: division by zero" in raised.text


def test_where_the_last_of_a_chain_is_not_the_users_an_earlier_one_gives_the_place() -> None:
    raised = said("""
        Traceback (most recent call last):
          File "/workspace/code/train.py", line 7, in collate
        ValueError: ragged

        During handling of the above exception, another exception occurred:

        Traceback (most recent call last):
          File "/opt/venv/lib/python3.11/site-packages/library/run.py", line 3, in main
        library.Failed: step 3
    """)
    assert raised
    assert (raised.type, raised.location) == ("library.Failed", Location("train.py", 7, "collate"))


def test_an_earlier_exception_that_was_only_logged_is_another_one(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path,
        """
        import logging
        try:
            1 / 0
        except ZeroDivisionError:
            logging.exception("survived")
        raise ValueError
        """,
    )
    assert raised
    assert (raised.type, raised.message) == ("ValueError", "")
    assert "ZeroDivisionError" not in raised.text
    assert str(raised) == "ValueError"


def test_of_a_group_the_first_leaf_counts_however_deep(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path,
        """
        def fail():
            raise TypeError("inner")
        def group():
            try:
                fail()
            except TypeError as error:
                raise ExceptionGroup("deep", [error, KeyError("second")])
        try:
            group()
        except ExceptionGroup as error:
            raise ExceptionGroup("outer", [error, OSError("third")]) from None
        """,
    )
    assert raised
    assert (raised.type, raised.message) == ("TypeError", "inner")
    assert raised.location == Location("train.py", 3, "fail")
    assert "third" in raised.text


def test_a_leaf_that_was_never_raised_has_the_place_of_its_group(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path, "def f():\n    raise ExceptionGroup('g', [ValueError('a'), ValueError('b')])\nf()\n"
    )
    assert raised
    assert (raised.type, raised.message) == ("ValueError", "a")
    assert raised.location == Location("train.py", 2, "f")


def test_a_script_that_does_not_compile_has_a_place_without_a_function(tmp_path: Path) -> None:
    raised = raised_by(tmp_path, "epochs = 3\nrate = = 1\n")
    assert raised
    assert (raised.type, raised.message) == ("SyntaxError", "invalid syntax")
    assert raised.location == Location("train.py", 2, None)


def test_what_is_ignored_at_the_interpreters_end_does_not_count(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path,
        """
        class Writer:
            def __del__(self):
                raise OSError("closed")
        writer = Writer()
        raise ValueError("real")
        """,
    )
    assert raised
    assert (raised.type, raised.message) == ("ValueError", "real")


def test_a_pools_worker_and_its_parent_are_one(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path,
        """
        import multiprocessing
        def work(number):
            raise ValueError(f"item {number}")
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(1) as pool:
                pool.map(work, [1])
        """,
    )
    assert raised
    assert (raised.type, raised.message) == ("ValueError", "item 1")
    assert "in work" in raised.text


def test_typers_boxed_tracebacks_are_read(tmp_path: Path) -> None:
    raised = raised_by(
        tmp_path,
        """
        import typer
        app = typer.Typer()
        @app.command()
        def main() -> None:
            raise ValueError("boxed")
        app()
        """,
    )
    assert raised
    assert (raised.type, raised.message) == ("ValueError", "boxed")
    assert raised.text.startswith("╭")


def test_a_boxed_frame_gives_the_place() -> None:
    raised = said("""
        ╭───────────── Traceback (most recent call last) ─────────────╮
        │ /workspace/code/train.py:6 in main                          │
        │                                                             │
        │ ❱ 6 │   raise ValueError("boxed")                           │
        ╰─────────────────────────────────────────────────────────────╯
        ValueError: boxed
    """)
    assert raised
    assert raised.location == Location("train.py", 6, "main")


def test_a_data_loaders_worker_gives_exception_and_place() -> None:
    raised = said("""
        Traceback (most recent call last):
          File "/workspace/code/train.py", line 30, in <module>
            for batch in loader:
          File "/opt/venv/lib/python3.11/site-packages/torch/_utils.py", line 733, in reraise
            raise exception
        ValueError: Caught ValueError in DataLoader worker process 0.
        Original Traceback (most recent call last):
          File "/opt/venv/lib/python3.11/site-packages/torch/utils/data/worker.py", line 351, in _worker
            data = fetcher.fetch(index)
          File "/workspace/code/data/images.py", line 12, in __getitem__
            raise ValueError("no such image")
        ValueError: no such image
    """)
    assert raised
    assert raised.message == "no such image"
    assert raised.location == Location("data/images.py", 12, "__getitem__")
    assert "line 30, in <module>" in raised.text


TORCHRUN = """
    [rank1]: Traceback (most recent call last):
    [rank0]: Traceback (most recent call last):
    [rank1]:   File "/workspace/code/train.py", line 5, in main
    [rank0]:   File "/workspace/code/train.py", line 9, in main
    [rank1]:     raise ValueError("rank one")
    [rank1]: ValueError: rank one
    [rank0]: RuntimeError: peer went away
    E1125 13:00:00.000000 12 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1)
    Traceback (most recent call last):
      File "/opt/venv/bin/torchrun", line 8, in <module>
        sys.exit(main())
    torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
    ============================================================
    train.py FAILED
"""


def test_torchruns_first_rank_to_fail_counts() -> None:
    raised = said(TORCHRUN)
    assert raised
    assert (raised.message, raised.location) == ("rank one", Location("train.py", 5, "main"))
    assert raised.text.startswith("Traceback (most recent call last):\n  File")


ACCELERATE = """
    Traceback (most recent call last):
      File "/opt/venv/bin/accelerate", line 8, in <module>
        sys.exit(main())
    subprocess.CalledProcessError: Command '['python', 'train.py']' returned non-zero exit status 1.
"""


def test_a_launchers_word_that_its_script_failed_gives_way_to_the_scripts_own() -> None:
    raised = said("""
    Traceback (most recent call last):
      File "/workspace/code/train.py", line 5, in main
    ValueError: the script's
    """ + ACCELERATE.removeprefix("\n"))  # fmt: skip
    assert raised
    assert raised.message == "the script's"


def test_a_launchers_word_alone_counts() -> None:
    raised = said(ACCELERATE)
    assert raised
    assert raised.type == "subprocess.CalledProcessError"


def test_a_progress_bar_before_the_traceback_and_colours_are_no_hindrance() -> None:
    raised = said("""
         45%|████      | 45/100Traceback (most recent call last):
          File \x1b[35m"/workspace/code/train.py"\x1b[0m, line \x1b[35m3\x1b[0m, in \x1b[35m<module>\x1b[0m
        \x1b[1;35mValueError\x1b[0m: \x1b[35mcoloured\x1b[0m
    """)
    assert raised
    assert raised.message == "coloured"
    assert raised.location == Location("train.py", 3, "<module>")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "train.sh: line 3: python: not found",
        "error: no GPU",
        'Traceback (most recent call last):\n  File "x", line 1',
    ],
)
def test_what_is_no_traceback_raises_nothing(text: str) -> None:
    assert last_raised(text.splitlines(), CODE) is None


_PIECES = st.sampled_from(
    [
        "Traceback (most recent call last):",
        "  + Exception Group Traceback (most recent call last):",
        "  | ExceptionGroup: g (2 sub-exceptions)",
        "  +-+---------------- 1 ----------------",
        "    +------------------------------------",
        "Original Traceback (most recent call last):",
        "╭── Traceback (most recent call last) ──╮",
        "│ /workspace/code/train.py:6 in main │",
        "╰──╯",
        '  File "/workspace/code/train.py", line 3',
        '  File "train.py", line 3, in main',
        "    raise ValueError",
        "ValueError: x",
        "SyntaxError: y",
        "During handling of the above exception, another exception occurred:",
        "Exception ignored in: <f>",
        "[rank0]: Traceback (most recent call last):",
        "[rank0]: ValueError",
        "",
    ]
)


@given(lines=st.lists(_PIECES | st.text(max_size=20), max_size=30))
def test_no_text_whatever_breaks_the_reader(lines: list[str]) -> None:
    raised = last_raised(lines, CODE)
    assert raised is None or raised.type
