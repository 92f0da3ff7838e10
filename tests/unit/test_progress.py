"""BuildKit's plain progress, read as events."""

from __future__ import annotations

import pytest

from builder.builders.docker import _failure, _line_of_step
from builder.builders.progress import read_progress, show

OUTPUT = """#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 3.49kB done
#1 DONE 0.0s

#4 [stage-0 1/3] FROM docker.io/library/base
#4 CACHED

#6 [stage-0 2/3] RUN --mount=type=secret,id=ca     pip install x
#6 0.812 Collecting x
#6 1.918 error: no such package
#6 ERROR: process "/bin/sh -c pip install x" did not complete successfully: exit code: 2
------
 > [stage-0 2/3] RUN --mount=type=secret,id=ca     pip install x:
------
"""
DOCKERFILE = """# a comment
FROM base

ENV A="1" \\
    RUN="2"
# another
RUN --mount=type=secret,id=ca \\
    pip install x
COPY a b
"""


def test_steps_end_as_buildkit_says() -> None:
    steps = {id(step): step for step, _ in read_progress(OUTPUT.splitlines())}.values()
    assert [(step.number, step.state) for step in steps if step.number] == [(1, "cached"), (2, "failed")]


def test_a_failure_shows_the_last_lines_and_the_line_of_the_dockerfile() -> None:
    steps = show(read_progress(OUTPUT.splitlines()), live=False)
    error = _failure(steps, DOCKERFILE)
    assert error.place == "Dockerfile:7"
    assert error.details == ("Collecting x", "error: no such package")
    assert "RUN pip install x" in error.message


def test_a_full_disk_names_its_remedy() -> None:
    output = OUTPUT.replace("error: no such package", "error: No space left on device (os error 28)")
    error = _failure(show(read_progress(output.splitlines()), live=False), DOCKERFILE)
    assert error.remedy is not None
    assert "docker system df" in error.remedy


def test_an_end_without_a_failed_step_tells_what_was_printed() -> None:
    error = _failure(show(read_progress(["ERROR: denied", "try again"]), live=False), DOCKERFILE)
    assert error.details == ("ERROR: denied", "try again")


@pytest.mark.parametrize(("number", "line"), [(1, 2), (2, 7), (3, 9), (4, None)])
def test_steps_are_counted_over_continued_lines(number: int, line: int | None) -> None:
    assert _line_of_step(DOCKERFILE, number) == line


def test_plain_progress_prints_one_line_for_each_ended_step(capsys: pytest.CaptureFixture[str]) -> None:
    show(read_progress(OUTPUT.splitlines()), live=False)
    assert capsys.readouterr().err.splitlines() == [
        "[stage-0 1/3] FROM docker.io/library/base (cached)",
        "[stage-0 2/3] RUN pip install x",
    ]
