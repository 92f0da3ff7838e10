"""BuildKit's plain progress, read as events."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from builder.builders.buildkit import failure
from builder.builders.progress import Step, read_progress, step_places, tell, watch

OUTPUT = """#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 3.49kB done
#1 DONE 0.0s

#4 [stage-0 1/3] FROM registry.example.com/base
#4 CACHED

#6 [stage-0 2/3] RUN --mount=type=secret,id=ca     pip install x
#6 0.812 Collecting x
#6 1.918 error: no such package
#6 ERROR: process "/bin/sh -c pip install x" did not complete successfully: exit code: 2
------
 > [stage-0 2/3] RUN --mount=type=secret,id=ca     pip install x:
------
"""
DOCKERFILE = """# base
FROM base

ENV A="1" \\
    RUN="2"
# packages
# hadolint ignore=DL3008
RUN --mount=type=secret,id=ca \\
    pip install x
# code
COPY a b
"""
PLACES = step_places(DOCKERFILE)
TITLES = {place: title for place, (_, title) in PLACES.items()}


def followed(lines: Iterable[str]) -> list[Step]:
    return tell(read_progress(lines, TITLES), lambda line: None)


def test_steps_end_as_buildkit_says() -> None:
    steps = {id(step): step for step, _ in read_progress(OUTPUT.splitlines(), TITLES)}.values()
    assert [(step.place, step.state) for step in steps if step.place] == [
        ("stage-0 1", "cached"),
        ("stage-0 2", "failed"),
    ]


def test_a_failure_shows_the_last_lines_and_the_line_of_the_dockerfile() -> None:
    steps = followed(OUTPUT.splitlines())
    error = failure(steps, PLACES)
    assert error.place == "Dockerfile:8"
    assert error.details == ("Collecting x", "error: no such package")
    assert error.message == "the step failed: packages"


def test_a_full_disk_names_its_remedy() -> None:
    output = OUTPUT.replace("error: no such package", "error: No space left on device (os error 28)")
    error = failure(followed(output.splitlines()), PLACES)
    assert error.remedy is not None
    assert "docker system df" in error.remedy


def test_an_end_without_a_failed_step_tells_what_was_printed() -> None:
    error = failure(followed(["ERROR: denied", "try again"]), PLACES)
    assert error.details == ("ERROR: denied", "try again")


def test_steps_are_counted_over_continued_lines_and_titled_by_the_comment_above() -> None:
    assert PLACES == {
        "stage-0 1": (2, "base"),
        "stage-0 2": (8, "packages"),
        "stage-0 3": (11, "code"),
    }


def test_each_stage_is_counted_from_one_and_scratch_is_no_step() -> None:
    dockerfile = "FROM scratch AS os\n# system\nADD a /\nFROM scratch\n# one layer\nCOPY --from=os / /\n"
    assert step_places(dockerfile) == {"os 1": (3, "system"), "stage-1 1": (6, "one layer")}
    lines = ["#1 [linux/amd64 os  1/12] ADD a /", "#2 [stage-1 1/1] COPY --from=os / /", "#3 [1/2] FROM base"]
    steps = [step for step, _ in read_progress(lines, {"os 1": "system", "stage-1 1": "one layer"})]
    assert [step.text for step in steps[:2]] == ["system", "one layer"]
    assert steps[2].place == "stage-0 1"


def test_plain_progress_says_one_line_for_each_ended_step() -> None:
    said: list[str] = []
    tell(read_progress(OUTPUT.splitlines(), TITLES), said.append)
    assert said == ["base (cached)", "packages"]


def test_a_terminal_shows_the_same_steps(capsys: pytest.CaptureFixture[str]) -> None:
    watch(read_progress(OUTPUT.replace("Collecting x", "Collecting [x]").splitlines(), TITLES))
    assert "base (cached)" in capsys.readouterr().err


def test_what_a_failed_step_printed_is_told_without_passwords() -> None:
    output = OUTPUT.replace("no such package", "GET https://me:hidden@index.example.com/simple")
    assert "hidden" not in str(failure(followed(output.splitlines()), PLACES).details)
