"""`trainpack run`: train in a container of any engine, local or remote, through the image's own entrypoint.

`/workspace` is a named volume and every file goes in and out through the engine's API, so that nothing but
data folders and files on a local engine is ever shared with the host.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import Any, BinaryIO, Self

import requests
from docker.errors import DockerException
from docker.models.containers import Container
from docker.types import DeviceRequest, Mount
from pydantic import Field

from builder.engine import has_gpu, is_local
from builder.engine.containers import (
    CDI,
    INPUTS,
    WORKSPACE,
    Entry,
    copy_out,
    create_volume,
    created,
    engine_errors,
    file_entry,
    find_image,
    folder_entry,
    host_options,
    path_entries,
    put,
    remove_volume,
    temporary_volume,
)
from builder.errors import EngineError, TrainpackError, UsageError
from builder.flags import asks_for_gpu, gpus_of
from builder.labelmap import read_labelmap
from builder.models.records import DIGEST_VARIABLE, Experiment, ModelVersion
from builder.plan import BuiltImage
from builder.records import Record

GRACE = 60
COLLECTED = ("outputs", "result.json", "failure.json")
Tell = Callable[[str], None]


class RunRequest(Record):
    """One local training run.

    Attributes:
        image: A reference or an image id that the engine has.
        parameters: `-p name=value`, as text; they win over every other source.
        arguments: Given to the script last, verbatim.
        data: Dataset alias → folder of this machine.
        files: Name below the script's `inputs/files` → file or folder of this machine.
        version: The ModelVersion whose parameters and labelmap the run starts from.
        experiment: The experiment of a store on this machine, whose own win over the version's.
        digest: The image's digest, where the engine may not know it.
        env: Passed to the container; may hold secrets.
        output: An empty or new folder for outputs, `result.json` and `failure.json`.
        flags: Canonical `docker run` flags (builder.flags).
        gpus: `all`, a number or `device=…`, when asked for on top of the flags.
        grace: Seconds the script has to save after a stop.
        network: A network of the engine, `host` or `none`.
    """

    image: str
    output: Path
    parameters: dict[str, str] = Field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    labelmap: Path | None = None
    parameters_file: Path | None = None
    data: dict[str, Path] = Field(default_factory=dict)
    files: dict[str, Path] = Field(default_factory=dict)
    version: ModelVersion | None = None
    experiment: Experiment | None = None
    digest: str | None = None
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    flags: tuple[str, ...] = ()
    gpus: str | None = None
    grace: int = Field(default=GRACE, ge=0)
    network: str | None = None


class RunOutcome(Record):
    """How a run ended.

    Attributes:
        exit_code: The container's own.
        result, failure: `result.json` and `failure.json`, None where the container left none.
        output: The folder that holds what was collected.
        volume: The workspace that was kept after a failure.
        left_out: Outputs that cannot be copied: pipes, devices, links that lead outside.
    """

    exit_code: int
    result: dict[str, Any] | None
    failure: dict[str, Any] | None
    output: Path
    volume: str | None
    left_out: tuple[str, ...] = ()


def run_container(request: RunRequest, *, stdout: BinaryIO, stderr: BinaryIO, tell: Tell) -> RunOutcome:
    """Run the training, stream its output, and copy out what it left.

    The first SIGINT or SIGTERM asks the script to save and end, the second kills it.

    Args:
        stdout, stderr: Receive what the container prints, byte for byte.
        tell: Receives one-line messages about the run itself.

    Raises:
        UsageError: A file or folder that the request names is missing or malformed.
        EngineError: The engine has no such image or GPU, or failed.
    """
    entries = input_entries(request)
    image = find_image(request.image)
    flags = fitting_flags(request, tell)
    options = container_options(request, flags)
    options["environment"] = container_environment(request, image, flags)
    output = _empty_folder(request.output)
    with ExitStack() as stack:
        stack.enter_context(engine_errors(request.image))
        stopper = stack.enter_context(Stopper(request.grace, tell))
        inputs = stack.enter_context(temporary_volume("inputs"))
        workspace = stack.enter_context(_Workspace(tell))
        mounts = [Mount(INPUTS, inputs), Mount(WORKSPACE, workspace.name), *_binds(request)]
        container = stack.enter_context(
            created(image.image_id, command=list(request.arguments), mounts=mounts, **options)
        )
        put(container, entries)
        code = _follow(container, stopper, workspace, (stdout, stderr))
        left_out = _collect(container, output)
        result = _read_json(output / "result.json")
        workspace.keep = code != 0 and _may_hold_work(result)
        return RunOutcome(
            exit_code=code,
            result=result,
            failure=_read_json(output / "failure.json"),
            output=output,
            volume=workspace.name if workspace.keep else None,
            left_out=left_out,
        )


def input_entries(request: RunRequest) -> list[Entry]:
    """What is put below `/mnt/trainpack`, after a look at every file and folder that the request names.

    Raises:
        UsageError: One is missing, or the labelmap is malformed.
    """
    entries = list(_document_entries(request))
    for alias, folder in request.data.items():
        _check_data(alias, folder)
    _check_files(request.files)
    entries += [folder_entry(name) for name in _folders(request)]
    if not is_local():
        for name, path in _shared(request):
            entries += path_entries(name, path)
    return entries


def _shared(request: RunRequest) -> Iterator[tuple[str, Path]]:
    """What of this machine is seen below `/mnt/trainpack`, by its path there."""
    for alias, folder in request.data.items():
        yield f"datasets/{alias}", folder
    for name, path in request.files.items():
        yield f"files/{name}", path


def _folders(request: RunRequest) -> list[str]:
    parents = (PurePosixPath(name).parents for name, _ in _shared(request))
    return sorted({str(parent) for each in parents for parent in each} - {"."})


def _document_entries(request: RunRequest) -> Iterator[Entry]:
    if request.parameters_file:
        yield file_entry("parameters.json", _read(request.parameters_file))
    if request.labelmap:
        yield file_entry("labelmap.json", json.dumps(read_labelmap(request.labelmap)).encode())
    for file, given in (("experiment", request.experiment), ("model-version", request.version)):
        if given:
            document = {
                "name": str(given.name),
                "parameters": given.fields.parameters or {},
                "labelmap": given.fields.labelmap,
            }
            yield file_entry(f"{file}.json", json.dumps(document).encode())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", place=str(path)) from None


def _check_data(alias: str, folder: Path) -> None:
    if not alias or "/" in alias or alias.startswith("."):
        raise UsageError(f"{alias!r} is not a dataset's alias", place="--data")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", place=f"--data {alias}")


def _check_files(files: dict[str, Path]) -> None:
    for name, path in files.items():
        parts = name.split("/")
        if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
            raise UsageError(f"{name!r} is not a relative path below inputs/files", place="--file")
        if any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
            raise UsageError(f"{name!r} is below another file or folder that is given", place="--file")
        if not path.is_file() and not path.is_dir():
            raise UsageError(f"{path} is neither a file nor a folder", place=f"--file {name}")


def _binds(request: RunRequest) -> list[Mount]:
    if not is_local():
        return []
    return [
        Mount(f"{INPUTS}/{name}", str(path.resolve()), type="bind", read_only=True)
        for name, path in _shared(request)
    ]


def container_environment(request: RunRequest, image: BuiltImage, flags: Sequence[str]) -> dict[str, str]:
    """What the entrypoint is told, and what the user passes, which is stronger.

    Args:
        flags: Those of the request that hold on this host.
    """
    digest = request.digest or image.digest
    known = {"TRAINPACK_IMAGE": image.reference, "TRAINPACK_GPUS": request.gpus or gpus_of(flags) or "none"}
    known |= {DIGEST_VARIABLE: digest} if digest else {}
    parameters = {f"TRAINPACK_SET_{name}": value for name, value in request.parameters.items()}
    return known | request.env | parameters | {"TRAINPACK_GRACE": str(request.grace)}


def container_options(request: RunRequest, flags: Sequence[str]) -> dict[str, Any]:
    """The host's side of the container, as arguments of the SDK's `containers.create`."""
    options = host_options(flags)
    asked = [request.gpus] if request.gpus else _gpu_values(flags)
    if asked:
        options["device_requests"] = [gpu_request(value) for value in asked]
    if request.network:
        options["network_mode"] = request.network
    return options


def fitting_flags(request: RunRequest, tell: Tell) -> tuple[str, ...]:
    """The flags without those that ask for a GPU, where the host has none.

    Raises:
        EngineError: `--gpus` asks for them, and the host has none.
        UsageError: `--gpus` is malformed.
    """
    gpus = [flag for flag in request.flags if asks_for_gpu([flag])]
    if request.gpus:
        # What is malformed is told as that, on a host without GPUs too.
        gpu_request(request.gpus)
    if not (request.gpus or gpus) or has_gpu():
        return request.flags
    if request.gpus:
        remedy = "install the NVIDIA driver and container toolkit on the engine's host, or leave --gpus out"
        raise EngineError("the engine's host has no NVIDIA GPU", place="--gpus", remedy=remedy)
    tell(
        f"the image's flags ask for {' '.join(gpus)}; the engine's host has no NVIDIA GPU: running on the CPU"
    )
    return tuple(flag for flag in request.flags if flag not in gpus)


def _gpu_values(flags: Iterable[str]) -> list[str]:
    found = (flag.removeprefix("--").partition("=") for flag in flags)
    return [
        value for name, _, value in found if name == "gpus" or (name == "device" and value.startswith(CDI))
    ]


def gpu_request(gpus: str) -> DeviceRequest:
    """`all`, a number, `device=0,1` or a device of the container interface, as the engine's API wants it.

    Raises:
        UsageError: It is none of these.
    """
    gpus = gpus.strip('"')
    if gpus.startswith(CDI):
        return DeviceRequest(driver="cdi", device_ids=[gpus])
    if gpus.startswith("device="):
        return DeviceRequest(device_ids=gpus.removeprefix("device=").split(","), capabilities=[["gpu"]])
    if gpus != "all" and not gpus.isdecimal():
        raise UsageError(f"{gpus!r} is not all, a number of GPUs or device=…", place="--gpus")
    return DeviceRequest(count=-1 if gpus == "all" else int(gpus), capabilities=[["gpu"]])


def _empty_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = any(path.iterdir())
    except OSError as error:
        raise UsageError(f"cannot be a folder for outputs: {error.strerror}", place=str(path)) from None
    if taken:
        raise UsageError("is not empty: outputs of two runs must not mix", place=str(path))
    return path


class _Workspace:
    """The run's `/workspace`: removed at the end unless it may hold the only copy of somebody's work."""

    def __init__(self, tell: Tell) -> None:
        self.keep = False
        self.name = ""
        self._tell = tell

    def __enter__(self) -> Self:
        self.name = create_volume("workspace")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep:
            self._tell(f"the workspace is kept in the volume {self.name}: `docker volume rm` removes it")
        else:
            remove_volume(self.name)


class Stopper:
    """What SIGINT and SIGTERM do: before the start end all, then ask the container to stop, then kill it."""

    def __init__(self, grace: int, tell: Tell) -> None:
        self.container: Container | None = None
        self._grace = grace
        self._tell = tell
        self._asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.signal(n, self._act) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _act(self, number: int, frame: FrameType | None) -> None:
        if self.container is None:
            raise KeyboardInterrupt
        if not self._asked:
            self._tell(f"stopping: the script has {self._grace} s to save; once more kills it")
        # The main thread is in the middle of reading the container's output and must go on with that.
        target = self._kill if self._asked else self._stop
        self._asked = True
        threading.Thread(target=target, args=(self.container,), daemon=True).start()

    def _stop(self, container: Container) -> None:
        with suppress(DockerException, requests.RequestException):
            container.stop(timeout=self._grace + 60)

    def _kill(self, container: Container) -> None:
        with suppress(DockerException, requests.RequestException):
            container.kill()


def _follow(
    container: Container, stopper: Stopper, workspace: _Workspace, sinks: tuple[BinaryIO, BinaryIO]
) -> int:
    # Attached before the start, so that not even the first line of a script that ends at once is lost.
    output = container.attach(stdout=True, stderr=True, stream=True, demux=True)
    container.start()
    workspace.keep = True
    stopper.container = container
    relay(output, sinks)
    code = int(container.wait()["StatusCode"])
    stopper.container = None
    return code


def relay(output: Iterable[tuple[bytes | None, bytes | None]], sinks: tuple[BinaryIO, BinaryIO]) -> None:
    """Copy a container's output, byte for byte; a reader that went away never ends the training."""
    gone: set[int] = set()
    for pair in output:
        for number, (sink, chunk) in enumerate(zip(sinks, pair, strict=True)):
            if chunk and number not in gone:
                try:
                    sink.write(chunk)
                    sink.flush()
                except BrokenPipeError:
                    gone.add(number)


def _collect(container: Container, output: Path) -> tuple[str, ...]:
    try:
        return tuple(
            name for part in COLLECTED for name in copy_out(container, f"{WORKSPACE}/{part}", output)
        )
    except OSError as error:
        raise TrainpackError(f"the outputs cannot be written: {error.strerror}", place=str(output)) from None


def _may_hold_work(result: dict[str, Any] | None) -> bool:
    """Whether the script ran, as far as the container could still tell."""
    return result is None or result.get("script_exit_code") is not None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
