"""`trainpack run --experiment`: train exactly what an experiment says, and report back into it.

An experiment of the local store is given to the container as files, and what the run left is stored here
when it has ended. One of Picsellia is named to the container, which downloads and reports by itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from docker.errors import ImageNotFound
from trainpack_entrypoint.manifest import PATH as MANIFEST_PATH

from builder.engine import client
from builder.engine.containers import created, engine_errors, find_image, read_files
from builder.errors import NotFoundError, StoreError, UsageError
from builder.flags import normalise_flags
from builder.host.credentials import Credentials
from builder.models.names import ExperimentName
from builder.models.records import DockerImage, Experiment, ExperimentFields, Log, ModelVersion
from builder.models.store import ModelStore
from builder.run import RunOutcome, RunRequest, Tell, run_container

STATUSES = {"success": "SUCCESS", "preempted": "TERMINATED"}


def run_experiment(
    store: ModelStore,
    experiment: Experiment,
    request: RunRequest,
    *,
    sinks: tuple[BinaryIO, BinaryIO],
    tell: Tell,
) -> RunOutcome:
    """Train an experiment of a store that lies on this machine, and report what came of it.

    Args:
        request: As `experiment_request` made it; data that it names wins over what is attached.
        sinks: Receive what the container prints, standard output and error.

    Raises:
        UsageError: Something that the experiment needs is not on this machine.
        EngineError: The engine lacks the image or a GPU, or failed.
        StoreError: The store failed; where only the report did, it says where the outputs are.
    """
    with tempfile.TemporaryDirectory(prefix="trainpack-experiment-") as scratch:
        files = received_files(store, experiment, Path(scratch, "files"))
        data = attached_data(store, experiment, request, Path(scratch, "datasets"), tell)
        request = request.model_copy(update={"experiment": experiment, "files": files, "data": data})
        _set_status(store, experiment, "RUNNING")
        try:
            outcome = run_container(request, stdout=sinks[0], stderr=sinks[1], tell=tell)
        except BaseException as error:
            ended = "TERMINATED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            with suppress(StoreError):
                _set_status(store, experiment, ended)
            raise
        report(store, experiment.name, outcome)
        return outcome


def _set_status(store: ModelStore, experiment: Experiment, status: str) -> None:
    store.experiments.update(experiment.name, ExperimentFields(status=status))


def experiment_image(experiment: Experiment, tell: Tell) -> DockerImage:
    """The experiment's image.

    Raises:
        UsageError: It has none.
    """
    image = experiment.fields.image
    if image is None:
        raise UsageError(
            "the experiment has no image to train with",
            place=str(experiment.name),
            remedy="`trainpack attach` an image to its version, and make the experiment from that",
        )
    if image.digest is None:
        tell(f"note: the experiment names no digest; {image.tagged} is taken as it is now")
    return image


def checked_flags(image: DockerImage, allow: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The image's flags, none of which may be dangerous on this machine: others may have written them.

    Raises:
        UsageError: One is refused, and not allowed by name.
    """
    try:
        return normalise_flags(image.flags, allow)
    except ValueError as error:
        raise UsageError(
            str(error), place=f"the flags of {image.tagged}", remedy="--allow NAME lets a flag through"
        ) from None


def ensure_image(image: DockerImage, tell: Tell) -> str:
    """The id of the image in the engine: found by its digest or id, else pulled from its registry.

    Raises:
        EngineError: The engine has no such image and cannot pull it.
    """
    exact = f"{image.name}@{image.digest}" if image.digest else image.tagged
    with engine_errors(exact):
        found = _in_engine(image, exact)
        if found is None:
            tell(f"pulling {exact}")
            client().images.pull(image.name, tag=image.digest or image.tag or "latest")
    return found or find_image(exact).image_id


def _in_engine(image: DockerImage, exact: str) -> str | None:
    for reference in filter(None, (exact, image.digest)):
        with suppress(ImageNotFound):
            return str(client().images.get(reference).id)
    if image.digest is None:
        return None
    # Listed in one request: the SDK's own list asks for each image, and any may be removed meanwhile.
    for candidate in client().api.images():
        # Pushed from here, or pulled, under another name.
        if any(text.endswith(f"@{image.digest}") for text in candidate.get("RepoDigests") or ()):
            return str(candidate["Id"])
    return None


def received_files(store: ModelStore, experiment: Experiment, scratch: Path) -> dict[str, Path]:
    """The files of the version that the experiment was made from, fetched, by their name in `inputs/files`.

    An artifact with the name of one of them takes its place; other artifacts are outputs of earlier runs.

    Raises:
        StoreError: The store failed, or what is stored is not what was once kept.
    """
    if experiment.base is None:
        return {}
    own = {artifact.name for artifact in experiment.artifacts}
    try:
        version = store.versions.get(experiment.base)
    except NotFoundError:
        return {}
    found = {}
    for number, file in enumerate(version.files):
        into = _new(scratch / str(number))
        if file.name in own:
            found[file.name] = store.experiments.fetch_artifact(experiment.name, file.name, into)
        else:
            found[file.name] = store.versions.fetch_file(version.name, file.name, into)
    return placed(found)


def version_files(store: ModelStore, version: ModelVersion, scratch: Path) -> dict[str, Path]:
    """The files of a version, fetched, by their name in `inputs/files`.

    Raises:
        StoreError: The store failed, or what is stored is not what was once kept.
    """
    return placed(
        {
            file.name: store.versions.fetch_file(version.name, file.name, _new(scratch / str(number)))
            for number, file in enumerate(version.files)
        }
    )


def placed(files: Mapping[str, Path]) -> dict[str, Path]:
    """Fetched files by the name that the script finds each under, as docs/contract.md says. Pure.

    That is the file's own name; those that share one are placed by the names that they are kept under.
    """
    own = [path.name for path in files.values()]
    return {
        (path.name if own.count(path.name) == 1 else _apart(label, path.name)): path
        for label, path in files.items()
    }


def _apart(label: str, filename: str) -> str:
    return label if label.rpartition("/")[2] == filename else f"{label}/{filename}"


def attached_data(
    store: ModelStore, experiment: Experiment, request: RunRequest, scratch: Path, tell: Tell
) -> dict[str, Path]:
    """The folders of the datasets that the image declares: those of the request, else what is attached.

    Raises:
        NotFoundError: A dataset's files are not on this machine.
        StoreError: The store failed.
    """
    declared = declared_data(request.image)
    found = dict(request.data)
    for alias, name in experiment.datasets.items():
        if alias in request.data:
            tell(f"{alias}: {request.data[alias]} in place of {name}")
        elif alias in declared:
            found[alias] = store.datasets.fetch(name, _new(scratch / alias))
        else:
            tell(f"{alias}: {name} is attached, and the image declares no such dataset: not given")
    return found


def declared_data(image: str) -> tuple[str, ...]:
    """The aliases that `[data]` declared when the image was built.

    Raises:
        EngineError: The engine failed.
    """
    with engine_errors(image), created(image) as container:
        content = read_files(container, MANIFEST_PATH).get("", b"{}")
    try:
        return tuple(json.loads(content).get("data", {}))
    except (ValueError, AttributeError):
        return ()


def report(store: ModelStore, name: ExperimentName, outcome: RunOutcome) -> None:
    """Store what a run left: status, metrics, outputs, and which image it was.

    Raises:
        StoreError: The store failed; the outputs are where it says.
    """
    facts = outcome.result or {}
    outputs = _new(outcome.output / "outputs")
    try:
        store.experiments.report(
            name, STATUSES.get(str(facts.get("status")), "FAILED"), tuple(run_logs(facts, outputs)), outputs
        )
    except StoreError as error:
        raise StoreError(
            f"the run ended with {outcome.exit_code}, and could not be reported: {error.message}",
            place=error.place or str(name),
            details=(*error.details, f"its outputs are in {outcome.output}"),
            remedy=error.remedy,
        ) from None


def run_logs(facts: Mapping[str, Any], outputs: Path) -> Iterator[Log]:
    """The logs of a run, named as the entrypoint names them on the platform."""
    lines = _metrics(outputs / "metrics.jsonl") or {
        key: [each] for key, each in (facts.get("metrics") or {}).items()
    }
    for key, values in lines.items():
        yield Log(name=key, type="LINE", data=values)
    if facts.get("image"):
        yield Log(name="trainpack", type="TABLE", data=facts["image"])


def _metrics(path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, KeyError, TypeError):
                point = json.loads(line)
                found.setdefault(str(point["name"]), []).append(point["value"])
    return found


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def platform_environment(experiment: Experiment, credentials: Credentials) -> dict[str, str]:
    """What tells the container which experiment of Picsellia it trains, in the platform's own names. Pure."""
    given = {
        "api_token": credentials.token.get_secret_value(),
        "host": credentials.host,
        "organization_id": credentials.organization_id,
        "organization_name": None if credentials.organization_id else credentials.organization_name,
        "experiment_id": experiment.id,
    }
    return {name: value for name, value in given.items() if value}


def experiment_request(
    experiment: Experiment,
    request: RunRequest,
    *,
    allow: tuple[str, ...] = (),
    tell: Tell,
) -> RunRequest:
    """A request with the experiment's image, flags and env.

    Raises:
        UsageError: It has no image, or one of its flags is refused.
        EngineError: The engine has no such image and cannot pull it.
    """
    image = experiment_image(experiment, tell)
    flags = checked_flags(image, allow)
    return request.model_copy(
        update={
            "image": ensure_image(image, tell),
            "digest": image.digest,
            "flags": flags,
            "env": {**image.env, **request.env},
        }
    )
