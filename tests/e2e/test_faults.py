"""Real containers, a hostile platform: exit code, status on the platform, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults.image import fault_image
from faults.scenarios import SCENARIOS, Scenario, played
from faults.stage import Ended, Stage, run
from faults.table import documented, expected, row
from picsellia_standin import Standin

from builder.plan import Base

pytestmark = [pytest.mark.engine, pytest.mark.slow]
ENTRYPOINT_KIB = 100_000


@pytest.fixture(scope="module")
def image(base: Base) -> Iterator[str]:
    with fault_image() as built:
        yield built


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_a_fault_ends_as_it_must_and_as_is_documented(scenario: Scenario, image: str) -> None:
    with Standin() as platform:
        with played(scenario, image, platform) as stage:
            ended = run(stage, scenario.act)
        assert row(scenario, stage, ended) == expected(scenario), ended.told
        assert row(scenario, stage, ended) in documented(), "`make faults` rewrites docs/faults.md"
        assert_told_once(stage)
        assert_documents(ended)
        assert platform.token not in ended.told


def assert_told_once(stage: Stage) -> None:
    """Each status is set once, whatever answers were lost: a platform may notify people of it."""
    assert len(set(stage.job.history)) == len(stage.job.history)
    finals = [status for status in stage.experiment.statuses if status != "RUNNING"]
    assert len(finals) <= 1, stage.experiment.statuses


def assert_documents(ended: Ended) -> None:
    assert ended.result["exit_code"] == ended.exit_code
    assert bool(ended.failure) == bool(ended.exit_code)


def test_a_flood_of_lines_leaves_the_entrypoint_small(image: str) -> None:
    with Standin() as platform, played(Scenario("flood", do="flood"), image, platform) as stage:
        ended = run(stage, lambda stage: None)
        assert ended.exit_code == 0
        assert [line for line in ended.printed if line.startswith("line ")] == [
            f"line {number} of a script that prints as fast as it can" for number in range(200_000)
        ]
        assert int(ended.printed[-1].split()[-1]) < ENTRYPOINT_KIB
