"""What a check may ask of an image: what it declares, and what happens when its entrypoint runs a probe."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, DockerException
from docker.models.containers import Container
from docker.types import Mount
from trainpack_entrypoint.manifest import PATH, Manifest

from builder.checks import probe
from builder.checks.layers import SavedImage, read_image
from builder.checks.values import other_value
from builder.engine import client
from builder.engine.containers import (
    INPUTS,
    WORKSPACE,
    Entry,
    created,
    engine_errors,
    file_entry,
    folder_entry,
    put,
    read_files,
    temporary_volume,
    tree_entries,
)
from builder.errors import ContractError
from builder.plan import BuiltImage

APP = "/opt/app"
PATIENCE = 30.0
KEPT_LINES = 200


@dataclass(frozen=True)
class Observation:
    """What a container did.

    Attributes:
        exit_code: None when it had to be killed after `PATIENCE` seconds.
        lines: The last of what it printed.
        report: What the probe saw; None when it never ran.
        result, failure: `result.json` and `failure.json`.
        outputs: The files of `/workspace/outputs`, by relative path.
    """

    exit_code: int | None
    lines: tuple[str, ...]
    report: dict[str, Any] | None
    result: dict[str, Any]
    failure: dict[str, Any]
    outputs: frozenset[str]

    @property
    def ending(self) -> str:
        """The exit code and the last lines, for a failed check's detail."""
        code = "had to be killed" if self.exit_code is None else f"ended with {self.exit_code}"
        said = self.failure.get("message") or " | ".join(line for line in self.lines[-4:] if line)
        return f"the container {code}: {said}" if said else f"the container {code}"

    @property
    def seen(self) -> dict[str, Any]:
        """The probe's report.

        Raises:
            ContractError: The probe never ran in the script's place.
        """
        if self.report is None:
            raise ContractError(f"the probe in the script's place left no report; {self.ending}")
        return self.report


class Context:
    """One image under test; safe to use from several threads."""

    def __init__(self, image: BuiltImage) -> None:
        self.image = image
        self._running: set[Container] = set()
        self._ended = False
        self._reading = threading.Lock()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The image's configuration: user, entrypoint, labels."""
        with engine_errors(self.image.reference):
            return dict(client().images.get(self.image.image_id).attrs["Config"])

    @cached_property
    def manifest_document(self) -> dict[str, Any]:
        """The baked `image.json`, as it is.

        Raises:
            ContractError: There is none, or it is no JSON object.
        """
        try:
            return dict(json.loads(self._file(PATH)))
        except (ValueError, TypeError) as error:
            raise ContractError(f"{PATH} cannot be read: {error!r}") from None

    @cached_property
    def manifest(self) -> Manifest:
        """The baked `image.json`.

        Raises:
            ContractError: There is none, or it cannot be read.
        """
        try:
            return Manifest.from_json(self.manifest_document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ContractError(f"{PATH} cannot be read: {error!r}") from None

    @property
    def saved(self) -> SavedImage:
        """The image's layers and configuration, read from the engine once, whichever check asks first.

        Raises:
            ContractError: They cannot be read.
        """
        with self._reading:
            return self._saved

    @cached_property
    def _saved(self) -> SavedImage:
        with engine_errors(self.image.reference):
            chunks = client().images.get(self.image.image_id).save(chunk_size=1 << 20)
            return read_image(self._until_ended(chunks))

    def _until_ended(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._fail_if_ended()
            yield chunk

    def _fail_if_ended(self) -> None:
        if self._ended:
            raise ContractError("the test was interrupted")

    @cached_property
    def script(self) -> str:
        """The file that the entrypoint starts, relative to the code's folder."""
        run = self.manifest.run
        if run.script:
            return run.script
        path = str(run.module).replace(".", "/")
        with created(self.image.image_id) as container:
            is_package = bool(read_files(container, f"{APP}/{path}/__main__.py"))
        return f"{path}/__main__.py" if is_package else f"{path}.py"

    @cached_property
    def required(self) -> dict[str, Any]:
        """A legal value for each parameter without a default, which no run can do without."""
        parameters = self.manifest.parameters.values()
        return {each.name: other_value(each) for each in parameters if each.required}

    @cached_property
    def plain(self) -> Observation:
        """The probe under the image's default user, nothing changed but required parameters."""
        return self.run_probe({"walk": True})

    def run_probe(
        self,
        task: Mapping[str, Any] | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        labelmap: Mapping[str, str] | None = None,
        stop_when_ready: bool = False,
        **options: Any,
    ) -> Observation:
        """Run the image with the probe laid over the script's file; entrypoint and manifest are the image's.

        Args:
            task: What the probe does (`probe.main`).
            parameters: Mounted as `parameters.json`.
            labelmap: Mounted as `labelmap.json`.
            stop_when_ready: Send SIGTERM once the probe waits for it.
            options: For the SDK's `containers.create`.
        """
        inputs = [file_entry("parameters.json", _json({**self.required, **(parameters or {})}))]
        inputs += [file_entry("labelmap.json", _json(labelmap))] if labelmap else []
        inputs += [folder_entry("datasets")] if self.manifest.data else []
        for alias in self.manifest.data:
            inputs += [
                folder_entry(f"datasets/{alias}"),
                file_entry(f"datasets/{alias}/probe.txt", b"probe\n"),
            ]
        script = file_entry(self.script, probe_source(task or {}), 0o644)
        with ExitStack() as stack:
            app = Mount(APP, stack.enter_context(temporary_volume("app")))
            container = stack.enter_context(self._created(inputs, [app], options))
            put(container, [script], into=APP)
            return self._observe(container, PATIENCE, stop_when_ready=stop_when_ready)

    def run_script(self, data: Mapping[str, Path]) -> Observation:
        """Run the image's own script with its defaults, for as long as it takes."""
        inputs: list[Entry] = [folder_entry("datasets")] if data else []
        for alias, folder in data.items():
            inputs += tree_entries(f"datasets/{alias}", folder)
        with self._created(inputs, [], {}) as container:
            return self._observe(container, None)

    def end(self) -> None:
        """Kill whatever still runs, and let nothing else start."""
        self._ended = True
        for container in tuple(self._running):
            _kill(container)

    @contextmanager
    def _created(
        self, inputs: Iterable[Entry], mounts: list[Mount], options: Mapping[str, Any]
    ) -> Iterator[Container]:
        with ExitStack() as stack:
            stack.enter_context(engine_errors(self.image.reference))
            volumes = {
                target: stack.enter_context(temporary_volume(name)) for name, target in _VOLUMES.items()
            }
            mounts = [*mounts, *(Mount(target, volume) for target, volume in volumes.items())]
            # No check is given a GPU; an image whose flags ask for one would rightly refuse to start.
            options = {**options, "environment": {"TRAINPACK_GPUS": "none", **options.get("environment", {})}}
            container = stack.enter_context(created(self.image.image_id, mounts=mounts, **options))
            put(container, inputs)
            yield container

    def _observe(
        self, container: Container, patience: float | None, *, stop_when_ready: bool = False
    ) -> Observation:
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        with self._watched(container, patience) as overdue:
            for line in _lines(container):
                lines.append(line)
                if stop_when_ready and line == probe.READY:
                    container.kill(signal="SIGTERM")
            code = int(container.wait()["StatusCode"])
        outputs = read_files(container, f"{WORKSPACE}/outputs") if patience else {}
        return Observation(
            exit_code=None if overdue.is_set() else code,
            lines=tuple(lines),
            report=_document(outputs.get(probe.REPORT)),
            result=_document(read_files(container, f"{WORKSPACE}/result.json").get("")) or {},
            failure=_document(read_files(container, f"{WORKSPACE}/failure.json").get("")) or {},
            outputs=frozenset(outputs),
        )

    @contextmanager
    def _watched(self, container: Container, patience: float | None) -> Iterator[threading.Event]:
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            _kill(container)

        timer = threading.Timer(patience or threading.TIMEOUT_MAX, end)
        timer.daemon = True
        timer.start()
        self._running.add(container)
        try:
            self._fail_if_ended()
            yield overdue
        finally:
            timer.cancel()
            self._running.discard(container)

    def _file(self, path: str) -> bytes:
        with engine_errors(self.image.reference), created(self.image.image_id) as container:
            files = read_files(container, path)
        if "" not in files:
            raise ContractError(f"the image has no {path}")
        return files[""]


_VOLUMES = {"inputs": INPUTS, "workspace": WORKSPACE}


def probe_source(task: Mapping[str, Any]) -> bytes:
    """The probe's file for one task."""
    call = f"\nmain(json.loads({json.dumps(json.dumps(dict(task)))}))\n"
    return Path(probe.__file__).read_bytes() + call.encode()


def _lines(container: Container) -> Iterator[str]:
    output = container.attach(stdout=True, stderr=True, stream=True)
    try:
        container.start()
    except APIError as error:
        raise ContractError(f"the container does not start: {error.explanation}") from None
    rest = b""
    for chunk in output:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _kill(container: Container) -> None:
    with suppress(DockerException, requests.RequestException):
        container.kill()


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _document(content: bytes | None) -> dict[str, Any] | None:
    try:
        document = json.loads(content or b"")
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
