"""pytest fixtures that build a training image once and run it, for the tests of a training repo.

    def test_it_learns(trainpack_run):
        run = trainpack_run(parameters={"epochs": 1})
        assert run.exit_code == 0
        assert run.metrics["accuracy"] > 0.8
        assert "model.joblib" in run.outputs

pytest loads this module in every session of an environment that has trainpack, so it imports no more than
pytest does, until a test asks for an image.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

MARKER = "trainpack"
GRACE = 10


@dataclass(frozen=True, repr=False)
class Run:
    """What a run of the image came to.

    Attributes:
        exit_code: The container's own, which is the script's where that ran.
        status: `success`, `failed` or `preempted`, from `result.json`; `failed` where there is none.
        metrics: The last value of each metric.
        outputs: The collected files, by their path: `outputs["model.pt"].read_bytes()`.
        stdout, stderr: What the container printed.
        result: `result.json`; empty where the container left none.
        failure: `failure.json`, of a run that failed.
    """

    exit_code: int
    status: str
    metrics: Mapping[str, float]
    outputs: Mapping[str, Path]
    stdout: str
    stderr: str
    result: Mapping[str, Any]
    failure: Mapping[str, Any] | None

    def __repr__(self) -> str:
        why = f": {self.failure.get('cause')}: {self.failure.get('message')}" if self.failure else ""
        return f"<Run {self.status}, exit code {self.exit_code}{why}>"


@dataclass
class Runner:
    """Runs an image through its own entrypoint; every call is a container of its own.

    Attributes:
        image: A reference or an image id.
        folder: Of `trainpack.toml`, whose flags the container gets.
        into: Where the outputs of each run go, in a folder of their own.
    """

    image: str
    folder: Path
    into: Path
    runs: int = 0

    def __call__(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        labelmap: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        **options: Any,
    ) -> Run:
        """Train, and wait for the end.

        Args:
            parameters: What `trainpack run -p` sets.
            labelmap: Class names by index.
            arguments: Words for the script, after its parameters.
            options: Further fields of `builder.run.RunRequest`: `data={"train": Path(…)}`, `env={…}`,
                `gpus="all"`, `network="none"`, …
        """
        # Not at the top: pytest imports this module in sessions that never run an image.
        from builder.run import RunRequest  # noqa: PLC0415

        self.runs += 1
        place = self.into / f"run-{self.runs}"
        with explained():
            request = RunRequest(
                image=self.image,
                output=place / "output",
                parameters={name: as_text(value) for name, value in (parameters or {}).items()},
                labelmap=_written(place / "labelmap.json", labelmap),
                arguments=tuple(arguments),
                **{"flags": _flags(self.folder), "grace": GRACE, **options},
            )
            return _run(request)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--trainpack-image`."""
    parser.getgroup("trainpack").addoption(
        "--trainpack-image",
        metavar="REF",
        help="run this image of the engine in `trainpack_run`, instead of building one",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", f"{MARKER}: runs the training image (given to what uses its fixtures)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs an engine, so that `-m "not trainpack"` leaves it out."""
    for item in items:
        if {"trainpack_image", "trainpack_run"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKER)


@pytest.fixture(scope="session")
def trainpack_folder(pytestconfig: pytest.Config) -> Path:
    """The folder of `trainpack.toml`: where pytest was started, else its root; override it for another."""
    started = pytestconfig.invocation_params.dir
    return started if (started / "trainpack.toml").is_file() else pytestconfig.rootpath


@pytest.fixture(scope="session")
def trainpack_image(
    pytestconfig: pytest.Config, trainpack_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The image under test: built once in a session, by whichever xdist worker comes first."""
    with explained():
        from builder.engine import client  # noqa: PLC0415

        client()
        given: str | None = pytestconfig.getoption("trainpack_image")
        temporary = tmp_path_factory.getbasetemp()
        # The parent is what the workers of one session have in common; without workers, many sessions.
        shared = temporary.parent if hasattr(pytestconfig, "workerinput") else temporary
        return given or _build_once(trainpack_folder, shared)


@pytest.fixture
def trainpack_run(trainpack_image: str, trainpack_folder: Path, tmp_path: Path) -> Runner:
    """Runs the image under test: `trainpack_run(parameters={"epochs": 1})`."""
    return Runner(trainpack_image, trainpack_folder, tmp_path / "trainpack")


@contextmanager
def explained() -> Iterator[None]:
    """Tell a failure of trainpack in its own words; without an engine, skip, but in CI fail."""
    from builder.errors import EngineUnavailableError, TrainpackError  # noqa: PLC0415

    try:
        yield
    except EngineUnavailableError as error:
        if not os.environ.get("CI"):
            pytest.skip(error.explained)
        _fail(error.explained)
    except TrainpackError as error:
        _fail(error.explained)


def as_text(value: Any) -> str:
    """A parameter's value as `-p` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _fail(text: str) -> NoReturn:
    pytest.fail(text, pytrace=False)


def _build_once(folder: Path, shared: Path) -> str:
    record = shared / "trainpack-image.json"
    with (shared / "trainpack-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            record.write_text(json.dumps(_build(folder)))
        built = json.loads(record.read_text())
    if built["failure"]:
        _fail(built["failure"])
    return str(built["image"])


def _build(folder: Path) -> dict[str, str | None]:
    from builder.builders.progress import tell  # noqa: PLC0415
    from builder.building import BuildRequest, build_project  # noqa: PLC0415
    from builder.errors import EngineUnavailableError, TrainpackError  # noqa: PLC0415
    from builder.last_image import engine_image  # noqa: PLC0415

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        request = BuildRequest(load=True)
        build_project(folder, os.environ, request, follow=lambda events: tell(events, say), say=say)
        image = engine_image(folder, os.environ, say)
    except EngineUnavailableError:
        raise
    except TrainpackError as error:
        return {"image": None, "failure": error.explained}
    return {"image": image.image_id, "failure": None}


def _run(request: Any) -> Run:
    from builder.engine.containers import remove_volume  # noqa: PLC0415
    from builder.run import run_container  # noqa: PLC0415

    stdout, stderr = io.BytesIO(), io.BytesIO()
    told: list[str] = []
    try:
        outcome = run_container(request, stdout=stdout, stderr=stderr, tell=told.append)
    finally:
        # pytest shows them with a test that fails.
        print(text := stdout.getvalue().decode(errors="replace"), end="")
        print(errors := stderr.getvalue().decode(errors="replace"), *told, file=sys.stderr, sep="\n")
    if outcome.volume:
        remove_volume(outcome.volume)
    result = outcome.result or {}
    if result.get("status") == "preempted":
        # Nothing but Ctrl-C stops these containers; the script had its time to end.
        raise KeyboardInterrupt
    files = outcome.output / "outputs"
    return Run(
        exit_code=outcome.exit_code,
        status=result.get("status", "failed"),
        metrics=result.get("metrics", {}),
        outputs={
            path.relative_to(files).as_posix(): path for path in sorted(files.rglob("*")) if path.is_file()
        },
        stdout=text,
        stderr=errors,
        result=result,
        failure=outcome.failure,
    )


def _written(path: Path, labelmap: Mapping[str, str] | None) -> Path | None:
    if labelmap is None:
        return None
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(labelmap))
    return path


def _flags(folder: Path) -> tuple[str, ...]:
    from builder.spec import FILE, load_spec  # noqa: PLC0415

    return load_spec(folder).run.flags if (folder / FILE).is_file() else ()
