"""What the stand-in platform holds, how a test fills it, and what a test can look at."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .schemas import (
    FRAMEWORKS,
    INFERENCE_TYPES,
    NAME,
    OBJECT,
    STRING_MAP,
    STRINGS,
    TEXT,
    RefusedError,
    Schema,
    one_of,
    optional,
    require,
)

VERSION_FIELDS: Schema = {
    "description": optional(TEXT),
    "notebook_link": optional(TEXT),
    "type": optional(one_of(INFERENCE_TYPES)),
    "framework": optional(one_of(FRAMEWORKS)),
    "docker_image": optional(NAME),
    "docker_tag": optional(NAME),
    "docker_flags": optional(STRINGS),
    "docker_env_variables": optional(STRING_MAP),
    "parameters": optional(OBJECT),
    "labels": optional(STRING_MAP),
    "thumbnail_object_name": optional(TEXT),
}
_EMPTY_VERSION: dict[str, Any] = {
    "description": "",
    "notebook_link": None,
    "type": "NOT_CONFIGURED",
    "framework": "NOT_CONFIGURED",
    "docker_image": None,
    "docker_tag": None,
    "docker_flags": [],
    "docker_env_variables": {},
    "parameters": {},
    "labels": None,
    "thumbnail_object_name": None,
}
FINISHED = ("SUCCEEDED", "FAILED", "KILLED")


def new_id() -> str:
    """A fresh id."""
    return str(uuid.uuid4())


class Named(Protocol):
    """What has an id and a name that is unique where it lives."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=Named)


@dataclass
class Model:
    """A named placeholder of versions."""

    id: str
    name: str
    description: str


@dataclass
class StoredFile:
    """A file of a version or an artifact of an experiment: a row that names an uploaded object."""

    id: str
    name: str
    filename: str
    object_name: str
    large: bool
    data: bytes


@dataclass
class Version:
    """A ModelVersion; `fields` has the keys of the wire."""

    id: str
    model: Model
    name: str
    number: int
    fields: dict[str, Any]
    files: dict[str, StoredFile] = field(default_factory=dict)
    experiment_id: str | None = None


@dataclass
class Project:
    """A named placeholder of experiments."""

    id: str
    name: str
    description: str = ""


@dataclass
class Log:
    """One log of an experiment."""

    id: str
    name: str
    type: str
    data: Any


@dataclass
class Dataset:
    """A named placeholder of dataset versions."""

    id: str
    name: str
    description: str = ""


@dataclass
class Data:
    """An image in the datalake."""

    id: str
    filename: str
    object_name: str
    content_type: str = "image/png"
    width: int = 64
    height: int = 48


@dataclass
class Asset:
    """An image of a dataset version.

    Attributes:
        shapes: `rectangles`, `polygons`, … as the wire has them; None is not annotated.
    """

    id: str
    data_id: str
    annotation_id: str
    filename: str
    object_name: str
    width: int = 64
    height: int = 48
    shapes: dict[str, list[dict[str, Any]]] | None = None


@dataclass
class DatasetVersion:
    """A dataset version, with the names of its labels."""

    id: str
    origin_id: str
    name: str
    version: str
    labels: list[str]
    type: str = "NOT_CONFIGURED"
    description: str = ""
    assets: list[Asset] = field(default_factory=list)


@dataclass
class Experiment:
    """An experiment.

    Attributes:
        statuses: Every status that was set, in order.
        job_status: Every status that was given to `update_job_status`, in order.
        telemetry: Every body that came to `/logging`, in order.
        logging_file: The object name of the stored logging file.
        is_launched: The platform runs it as a job of its own.
    """

    id: str
    project: Project
    name: str
    description: str = ""
    status: str = "WAITING"
    base_model_version_id: str | None = None
    base_experiment_id: str | None = None
    logs: dict[str, Log] = field(default_factory=dict)
    artifacts: dict[str, StoredFile] = field(default_factory=dict)
    datasets: dict[str, DatasetVersion] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)
    job_status: list[str] = field(default_factory=list)
    telemetry: list[dict[str, Any]] = field(default_factory=list)
    logging_file: str | None = None
    is_launched: bool = False

    @property
    def lines(self) -> list[str]:
        """The telemetry line by line, as it came."""
        return [line for body in self.telemetry for line in _lines(body["log"])]

    @property
    def shown(self) -> list[str]:
        """The telemetry as the platform shows it: what has the number of an earlier line replaces that."""
        return _shown(self.telemetry)


@dataclass
class Job:
    """A job run; `history` is every status that it had."""

    id: str
    status: str
    history: list[str]
    telemetry: list[dict[str, Any]] = field(default_factory=list)
    logging_object_name: str | None = None

    @property
    def shown(self) -> list[str]:
        """The telemetry as the platform shows it: what has the number of an earlier line replaces that."""
        return _shown(self.telemetry)


@dataclass(frozen=True)
class Grant:
    """What a presigned URL allows: one operation on one object."""

    operation: str
    object_name: str
    content_type: str = ""
    upload_id: str = ""
    part: int = 0


@dataclass
class Upload:
    """An upload in parts that is under way."""

    object_name: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request as it was answered; status 0 is a connection that was dropped.

    Attributes:
        sent: How many bytes of content went out.
        range: The `Range` that was asked for.
    """

    method: str
    path: str
    status: int
    sent: int = 0
    range: str | None = None


@dataclass
class Fault:
    """A failure to inject; `times` None is forever, status 0 drops the connection.

    Attributes:
        cut: The connection is dropped half-way through this body, `request` or `answer`.
        cut_after: The request succeeds, and the connection is dropped after so many bytes of content.
        corrupt: It succeeds with the last byte of the content changed.
    """

    method: str
    path: re.Pattern[str]
    status: int
    times: int | None
    headers: dict[str, str]
    after: bool
    message: str
    cut: str
    cut_after: int | None = None
    corrupt: bool = False


@dataclass(repr=False, eq=False)
class State:
    """Everything on the platform: one organization with one connector, one user with one token.

    Attributes:
        delay: Seconds before every answer.
        assets_job_status: How the jobs end that add images to dataset versions.
        body_delay: Seconds before each 64 KiB of a download.
        checksums: The headers that downloads carry, in lower case: `content-md5`, `x-goog-hash`,
            `x-amz-checksum-sha256`, `x-amz-checksum-crc32`.
        etags: Downloads carry one.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(20))
    username: str = "ada"
    organization_id: str = field(default_factory=new_id)
    organization_name: str = "standin"
    connector_id: str = field(default_factory=new_id)
    datalake_id: str = field(default_factory=new_id)
    parameters_key: str = "parameters"
    assets_job_status: str = "SUCCESS"
    delay: float = 0.0
    body_delay: float = 0.0
    checksums: set[str] = field(default_factory=set)
    etags: bool = True
    models: dict[str, Model] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    dataset_origins: dict[str, Dataset] = field(default_factory=dict)
    datasets: dict[str, DatasetVersion] = field(default_factory=dict)
    data: dict[str, Data] = field(default_factory=dict)
    experiments: dict[str, Experiment] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    object_names: set[str] = field(default_factory=set)
    grants: dict[str, Grant] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add_model(self, name: str, description: str = "") -> Model:
        """The model of this name, made when there is none."""
        for model in self.models.values():
            if model.name == name:
                return model
        model = Model(new_id(), name, description)
        self.models[model.id] = model
        return model

    def add_model_version(
        self,
        model: str,
        version: str,
        *,
        id: str | None = None,
        files: Mapping[str, bytes | str] | None = None,
        **fields: Any,
    ) -> str:
        """Make a version; `fields` are those of the wire (`docker_image`, `parameters`, `labels`, …).

        Returns:
            Its id.

        Raises:
            RefusedError: A field is unknown or of the wrong type, or the name is taken.
        """
        with self.lock:
            require(fields, VERSION_FIELDS)
            made = self.make_version(self.add_model(model), version, fields, id=id)
            for name, data in (files or {}).items():
                content = data.encode() if isinstance(data, str) else data
                made.files[name] = self.add_file(name, name, content)
            return made.id

    def make_version(
        self, model: Model, name: str | None, fields: Mapping[str, Any], *, id: str | None = None
    ) -> Version:
        """Make a version of a model; without a name its number is the name."""
        siblings = [version for version in self.versions.values() if version.model is model]
        number = 1 + max((version.number for version in siblings), default=0)
        name = name or str(number)
        refuse_duplicate(name, siblings)
        version = Version(id or new_id(), model, name, number, {**_EMPTY_VERSION, **fields})
        self.versions[version.id] = version
        return version

    def add_experiment(
        self,
        project: str,
        name: str,
        *,
        id: str | None = None,
        parameters: dict[str, Any] | None = None,
        labelmap: dict[str, str] | None = None,
        base_version: str | None = None,
        datasets: Mapping[str, list[str] | str] | None = None,
        is_launched: bool = False,
    ) -> str:
        """Make an experiment, and its project when there is none.

        Args:
            base_version: The id, or `MODEL/VERSION`, of the version that it starts from: it receives the
                version's parameters, labelmap and files where it has none of its own.
            datasets: Alias to a dataset version, by its id or `NAME/VERSION`, or to the names of the labels
                of a new one.
            is_launched: The platform runs it as a job of its own, whose status can be set.

        Returns:
            Its id.
        """
        with self.lock:
            made = self.make_experiment(self.add_project(project), name, id=id)
            made.is_launched = is_launched
            if parameters is not None:
                self.put_log(made, "parameters", "TABLE", parameters)
            if labelmap is not None:
                self.put_log(made, "labelmap", "LABELMAP", labelmap)
            if base_version is not None:
                self.give_base(made, self._version(base_version))
            for alias, dataset in (datasets or {}).items():
                known = dataset if isinstance(dataset, str) else self.add_dataset(alias, labels=dataset)
                made.datasets[alias] = self._dataset(known)
            return made.id

    def add_dataset(
        self,
        name: str,
        version: str = "v1",
        *,
        type: str = "OBJECT_DETECTION",
        labels: Iterable[str] = (),
        assets: Iterable[Mapping[str, Any]] = (),
    ) -> str:
        """Make a dataset version; returns its id.

        Args:
            assets: `{"filename", "content"}` each, and where they are annotated `shapes`, like
                `{"rectangles": [{"label", "x", "y", "w", "h"}]}`.
        """
        with self.lock:
            origin = self.add_dataset_origin(name)
            made = DatasetVersion(new_id(), origin.id, name, version, list(labels), type)
            made.assets = [self._asset(**asset) for asset in assets]
            self.datasets[made.id] = made
            return made.id

    def add_dataset_origin(self, name: str) -> Dataset:
        """The dataset of this name, made when there is none."""
        for dataset in self.dataset_origins.values():
            if dataset.name == name:
                return dataset
        dataset = Dataset(new_id(), name)
        self.dataset_origins[dataset.id] = dataset
        return dataset

    def _asset(self, filename: str, content: bytes | str, **fields: Any) -> Asset:
        object_name = f"{new_id()}/{new_id()}"
        self.objects[object_name] = content.encode() if isinstance(content, str) else content
        return Asset(new_id(), new_id(), new_id(), filename, object_name, **fields)

    def _dataset(self, reference: str) -> DatasetVersion:
        for dataset in self.datasets.values():
            if reference in (dataset.id, f"{dataset.name}/{dataset.version}"):
                return dataset
        raise RefusedError(404, f"No dataset version {reference}")

    def add_project(self, name: str) -> Project:
        """The project of this name, made when there is none."""
        for project in self.projects.values():
            if project.name == name:
                return project
        project = Project(new_id(), name)
        self.projects[project.id] = project
        return project

    def make_experiment(self, project: Project, name: str, *, id: str | None = None) -> Experiment:
        """Make an empty experiment of a project."""
        refuse_duplicate(name, [each for each in self.experiments.values() if each.project is project])
        experiment = Experiment(id or new_id(), project, name)
        self.experiments[experiment.id] = experiment
        return experiment

    def give_base(
        self,
        experiment: Experiment,
        version: Version,
        *,
        parameters: bool | None = None,
        files: bool | None = None,
    ) -> None:
        """Start an experiment from a version, by the SDK's documented rules.

        Args:
            parameters: True replaces the experiment's, False leaves them, None fills in missing ones.
            files: The same for its artifacts.
        """
        experiment.base_model_version_id = version.id
        own = experiment.logs
        if version.fields["labels"] and "labelmap" not in own:
            self.put_log(experiment, "labelmap", "LABELMAP", dict(version.fields["labels"]))
        if parameters or (parameters is None and "parameters" not in own):
            self.put_log(experiment, "parameters", "TABLE", dict(version.fields["parameters"]))
        if files or (files is None and not experiment.artifacts):
            experiment.artifacts |= {name: copied(file) for name, file in version.files.items()}

    def add_job(self, *, id: str | None = None, status: str = "PENDING") -> str:
        """Make a job run; returns its id."""
        job = Job(id or new_id(), status, [status])
        self.jobs[job.id] = job
        return job.id

    def put_log(self, experiment: Experiment, name: str, kind: str, data: Any) -> Log:
        """Write a log as the platform does: a LINE grows, any other is replaced."""
        old = experiment.logs.get(name)
        if kind == "LINE":
            data = [*(old.data if old and old.type == "LINE" else []), *_listed(data)]
        log = Log(old.id if old else new_id(), name, kind, data)
        experiment.logs[name] = log
        return log

    def add_file(self, name: str, filename: str, data: bytes) -> StoredFile:
        """A file whose object is there already."""
        object_name = f"{new_id()}/{filename}"
        self.objects[object_name] = data
        return StoredFile(new_id(), name, filename, object_name, False, data)

    def seed(self, data: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
        """Fill from JSON, each entry with the keywords of its `add_…`; returns the ids.

        Args:
            data: `{"versions": […], "datasets": […], "experiments": […], "jobs": […]}`; each may be absent.
        """
        makers: dict[str, Callable[..., str]] = {
            "versions": self.add_model_version,
            "datasets": self.add_dataset,
            "experiments": self.add_experiment,
            "jobs": self.add_job,
        }
        return {
            kind: [make(**entry) for entry in data[kind]] for kind, make in makers.items() if kind in data
        }

    def fail(
        self,
        method: str,
        path_regex: str,
        status: int = 503,
        times: int | None = 1,
        *,
        headers: Mapping[str, str] | None = None,
        after: bool = False,
        message: str = "injected failure",
        cut: str = "",
        cut_after: int | None = None,
        corrupt: bool = False,
    ) -> None:
        """Let the next matching requests fail.

        Args:
            method: The HTTP method, or `*`.
            path_regex: Searched in the path.
            status: The answer; 0 drops the connection without one.
            times: How often; None is forever.
            after: The request takes effect first, so that only its answer is lost.
            cut: Drop the connection half-way instead: `request` reads half of its body, `answer` lets it take
                effect and sends half of the answer.
            cut_after: It succeeds, and the connection is dropped after so many bytes of content.
            corrupt: It succeeds, with the last byte of the content changed.
        """
        after = after or corrupt or cut_after is not None
        path = re.compile(path_regex)
        self.faults.append(
            Fault(method, path, status, times, dict(headers or {}), after, message, cut, cut_after, corrupt)
        )

    def revoke(self) -> str:
        """Let the token be refused from now on; returns the one that is accepted."""
        self.token = secrets.token_hex(20)
        return self.token

    def expire_urls(self) -> None:
        """Let every presigned URL that was handed out expire: storage then answers 403."""
        self.grants.clear()

    def take_fault(self, method: str, path: str, *, after: bool = False, cut: str = "") -> Fault | None:
        """The failure that is due for this request, used up by one."""
        for fault in self.faults:
            due = (fault.times is None or fault.times > 0) and (fault.after, fault.cut) == (after, cut)
            if due and fault.method in ("*", method) and fault.path.search(path):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def dump(self) -> dict[str, Any]:
        """Everything a test may want to look at from outside, as JSON."""
        return {
            "token": self.token,
            "organization_id": self.organization_id,
            "versions": {key: _dump_version(version) for key, version in self.versions.items()},
            "experiments": {key: _dump_experiment(each) for key, each in self.experiments.items()},
            "jobs": {key: vars(job) for key, job in self.jobs.items()},
            "requests": [vars(request) for request in self.requests],
        }

    def _version(self, reference: str) -> Version:
        for version in self.versions.values():
            if reference in (version.id, f"{version.model.name}/{version.name}"):
                return version
        raise RefusedError(404, f"No model version {reference}")


def refuse_duplicate(name: str, siblings: Iterable[Named]) -> None:
    """Refuse a name that another object of the same place has.

    Raises:
        RefusedError: 409.
    """
    if any(sibling.name == name for sibling in siblings):
        raise RefusedError(409, "Conflict", f"the name {name!r} is taken")


def _shown(telemetry: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = {
        number: line for body in telemetry for number, line in enumerate(_lines(body["log"]), body["line_nb"])
    }
    return [lines[number] for number in sorted(lines)]


def _lines(log: Any) -> list[str]:
    return [str(line) for line in log] if isinstance(log, list) else [str(log)]


def _listed(data: Any) -> list[Any]:
    return list(data) if isinstance(data, list) else [data]


def copied(file: StoredFile) -> StoredFile:
    """Another row that names the same object."""
    return StoredFile(new_id(), file.name, file.filename, file.object_name, file.large, file.data)


def _dump_files(files: Mapping[str, StoredFile]) -> dict[str, Any]:
    return {
        name: {
            "filename": file.filename,
            "object_name": file.object_name,
            "size": len(file.data),
            "sha256": hashlib.sha256(file.data).hexdigest(),
        }
        for name, file in files.items()
    }


def _dump_version(version: Version) -> dict[str, Any]:
    return {
        "model": version.model.name,
        "name": version.name,
        **version.fields,
        "files": _dump_files(version.files),
    }


def _dump_experiment(experiment: Experiment) -> dict[str, Any]:
    return {
        "project": experiment.project.name,
        "name": experiment.name,
        "status": experiment.status,
        "statuses": experiment.statuses,
        "job_status": experiment.job_status,
        "base_model_version_id": experiment.base_model_version_id,
        "logs": {name: {"type": log.type, "data": log.data} for name, log in experiment.logs.items()},
        "artifacts": _dump_files(experiment.artifacts),
        "telemetry": experiment.telemetry,
        "lines": experiment.lines,
        "shown": experiment.shown,
        "logging_file": experiment.logging_file,
    }
