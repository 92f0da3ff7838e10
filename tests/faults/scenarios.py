"""The faults as data: what the script does, what is done to it and its platform, what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from docker.errors import APIError
from picsellia_standin import Standin

from faults.stage import Stage, staged

ON_THE_PLATFORM, IN_THE_WORKSPACE, NO_OUTPUTS = "on the platform", "in the workspace", "none"
EVERY_LINE, WHAT_WAS_SENT, NOTHING = "every line", "what was sent before", "nothing was printed"


def nothing(_: Any) -> None:
    """Leave it alone."""


class Ending(NamedTuple):
    """What must come of it.

    Attributes:
        exit_code: The container's.
        cause: Of failure.json; empty when there is none.
        status: The experiment's last status on the platform.
        job: The job's.
        outputs: Where every one of them is: on the platform, or in the workspace only.
        log: What the platform holds of the lines that the script printed.
    """

    exit_code: int = 0
    cause: str = ""
    status: str = "SUCCESS"
    job: str = "SUCCEEDED"
    outputs: str = ON_THE_PLATFORM
    log: str = EVERY_LINE


SUCCEEDED = Ending()
FAILED = Ending(1, "script", "FAILED", "FAILED")
PREEMPTED = Ending(143, "signal", "TERMINATED", "FAILED")
UNHEARD = Ending(74, "platform", "RUNNING", "RUNNING", IN_THE_WORKSPACE, WHAT_WAS_SENT)
NEVER_STARTED = Ending(69, "platform", "WAITING", "PENDING", NO_OUTPUTS, NOTHING)


@dataclass(frozen=True)
class Scenario:
    """One fault.

    Attributes:
        do: What the script does, one of the functions of tests/scripts/train_faults.py.
        before: Done to the platform before the container is started.
        act: Done to the run while it is under way.
        environment: Of the container, beside what every one of them gets.
        options: For the SDK's `containers.create`.
        megabytes: The size of the workspace, when that matters.
    """

    name: str
    ending: Ending = SUCCEEDED
    do: str = "train"
    before: Callable[[Standin], None] = nothing
    act: Callable[[Stage], None] = nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    megabytes: int | None = None


def storm(status: int, **more: Any) -> Callable[[Standin], None]:
    """A third of all requests fail, from the first to the last; status 0 drops the connection."""
    return lambda platform: platform.fail("*", "^/api|^/storage", status, None, share=1 / 3, **more)


def comes_back_at_the_start(stage: Stage) -> None:
    stage.wait_for("does not answer")
    stage.platform.start()


def away_in_the_middle(stage: Stage) -> None:
    stage.wait_for("half way")
    stage.platform.stop()
    stage.go()
    stage.wait_for("second half done")
    stage.platform.start()


def away_from_the_middle(stage: Stage) -> None:
    stage.wait_for("half way")
    stage.platform.stop()
    stage.go()


def revoked_in_the_middle(stage: Stage) -> None:
    stage.wait_for("half way")
    stage.platform.token = "another-token"
    stage.go()


def stopped_while_waiting(stage: Stage) -> None:
    stage.wait_for("waiting")
    stage.container.kill(signal="SIGTERM")


def stopped_twice(stage: Stage) -> None:
    stopped_while_waiting(stage)
    stage.wait_for("saving")
    # It saves in a moment, and may have ended before the signal comes.
    with suppress(APIError):
        stage.container.kill(signal="SIGTERM")


def stopped_while_away(stage: Stage) -> None:
    stage.wait_for("waiting")
    stage.platform.stop()
    stage.container.kill(signal="SIGTERM")


def slow(platform: Standin) -> None:
    platform.delay = 0.3


IMPATIENT = {"TRAINPACK_CONNECT_TIMEOUT": "2", "TRAINPACK_SAVE_TIMEOUT": "2"}
SCENARIOS = (
    Scenario("nothing goes wrong"),
    Scenario(
        "the platform is down at the start, and comes back", before=Standin.stop, act=comes_back_at_the_start
    ),
    Scenario(
        "the platform is down at the start, for good",
        NEVER_STARTED,
        before=Standin.stop,
        environment=IMPATIENT,
    ),
    Scenario("the platform is down in the middle, and comes back", do="gate", act=away_in_the_middle),
    Scenario(
        "the platform is down from the middle on, for good",
        UNHEARD,
        do="gate",
        act=away_from_the_middle,
        environment=IMPATIENT,
    ),
    Scenario("a storm of 500", before=storm(500)),
    Scenario("a storm of 503", before=storm(503)),
    Scenario("a storm of 429 that asks for pauses", before=storm(429, headers={"Retry-After": "1"})),
    Scenario("slow answers", before=slow),
    Scenario("dropped connections", before=storm(0)),
    Scenario("answers that are lost after the request took effect", before=storm(0, after=True)),
    Scenario("the token is revoked in the middle", UNHEARD, do="gate", act=revoked_in_the_middle),
    Scenario(
        "the disk is full while the script saves",
        FAILED._replace(cause="disk-full"),
        do="full",
        megabytes=8,
    ),
    Scenario(
        "the disk is full while a folder is packed for the platform",
        FAILED._replace(exit_code=74, cause="disk-full", outputs=IN_THE_WORKSPACE),
        do="folder",
        megabytes=8,
    ),
    Scenario(
        "the kernel kills the script for its memory",
        FAILED._replace(exit_code=137, cause="out-of-memory"),
        do="hungry",
        options={"mem_limit": "256m", "memswap_limit": "256m"},
    ),
    Scenario(
        "the script ends at once",
        FAILED._replace(exit_code=3, outputs=NO_OUTPUTS, log=NOTHING),
        do="instant",
    ),
    Scenario("the script raises an exception", FAILED, do="crash"),
    Scenario("the script prints the platform's control lines", FAILED._replace(exit_code=5), do="control"),
    Scenario("the script leaves children behind", do="fork"),
    Scenario("the script ignores SIGTERM", PREEMPTED, do="stubborn", act=stopped_while_waiting),
    Scenario("the script saves on SIGTERM and exits 0", PREEMPTED, do="saver", act=stopped_while_waiting),
    Scenario("SIGTERM comes a second time while it saves", PREEMPTED, do="saver", act=stopped_twice),
    Scenario(
        "SIGTERM while the platform is down",
        UNHEARD._replace(exit_code=143, cause="signal"),
        do="saver",
        act=stopped_while_away,
        environment=IMPATIENT,
    ),
    Scenario("200,000 lines as fast as the script can print", do="flood"),
)


@contextmanager
def played(scenario: Scenario, image: str, platform: Standin) -> Iterator[Stage]:
    """The stage of a scenario: its container is created, its platform is prepared."""
    words = ("--do", scenario.do)
    more = (scenario.environment, scenario.options, scenario.megabytes)
    with staged(image, platform, words, *more) as stage:
        scenario.before(platform)
        yield stage
