"""Projects, experiments, their logs, artifacts, datasets and telemetry, and jobs."""

from __future__ import annotations

from typing import Any

from .datasets import dataset_row
from .models import publish, publish_version
from .routes import PAGE, Call, Route, find, lookup, page, require_organization
from .schemas import (
    BOOLEAN,
    COUNT,
    EXPERIMENT_JOB_STATUSES,
    EXPERIMENT_STATUSES,
    GPUS,
    LOG_DATA,
    LOG_TYPES,
    NAME,
    OBJECT,
    TEXT,
    UUID,
    UUIDS,
    Field,
    RefusedError,
    nullable,
    one_of,
    optional,
    require_log_data,
)
from .state import (
    FINISHED,
    DatasetVersion,
    Experiment,
    Job,
    Log,
    Project,
    StoredFile,
    new_id,
    refuse_duplicate,
)
from .storage import FILE_ROW, file_row, new_file, uploaded


def _project_row(project: Project) -> dict[str, Any]:
    return {"id": project.id, "name": project.name, "description": project.description}


def _projects(call: Call) -> dict[str, Any]:
    require_organization(call)
    return page(map(_project_row, call.state.projects.values()), call.query)


def _find_project(call: Call) -> dict[str, Any]:
    require_organization(call)
    return _project_row(find(call.state.projects.values(), call.query, "project"))


def _create_project(call: Call) -> dict[str, Any]:
    require_organization(call)
    refuse_duplicate(call.body["name"], call.state.projects.values())
    project = call.state.add_project(call.body["name"])
    project.description = call.body.get("description", "")
    return _project_row(project)


def _delete_project(call: Call) -> None:
    project, experiments = _experiments_of(call)
    for experiment in experiments:
        del call.state.experiments[experiment.id]
    del call.state.projects[project.id]


def _experiments_of(call: Call) -> tuple[Project, list[Experiment]]:
    project = lookup(call.state.projects, call.ids["project"], "project")
    return project, [each for each in call.state.experiments.values() if each.project is project]


def _experiments(call: Call) -> dict[str, Any]:
    return page(map(_experiment_row, _experiments_of(call)[1]), call.query)


def _find_in_project(call: Call) -> dict[str, Any]:
    return _experiment_row(find(_experiments_of(call)[1], call.query, "experiment"))


def _create_experiment(call: Call) -> dict[str, Any]:
    state, body = call.state, call.body
    base = lookup(state.versions, body["base_model_version_id"], "model version") if _has_base(body) else None
    experiment = state.make_experiment(_experiments_of(call)[0], body["name"])
    experiment.description = body.get("description", "")
    if "parameters" in body:
        state.put_log(experiment, "parameters", "TABLE", body["parameters"])
    if base is not None:
        state.give_base(experiment, base)
    return _experiment_row(experiment)


def _has_base(body: dict[str, Any]) -> bool:
    return "base_model_version_id" in body


def _experiment(call: Call) -> Experiment:
    return lookup(call.state.experiments, call.ids["experiment"], "experiment")


def _experiment_row(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "name": experiment.name,
        "description": experiment.description,
        "project_id": experiment.project.id,
        "status": experiment.status,
        "base_model_version_id": experiment.base_model_version_id,
        "base_experiment_id": experiment.base_experiment_id,
    }


def _find_experiment(call: Call) -> dict[str, Any]:
    require_organization(call)
    return _experiment_row(find(call.state.experiments.values(), call.query, "experiment"))


def _get_experiment(call: Call) -> dict[str, Any]:
    return _experiment_row(_experiment(call))


def _update_experiment(call: Call) -> dict[str, Any]:
    experiment = _experiment(call)
    for key, value in call.body.items():
        setattr(experiment, key, value)
    if "status" in call.body:
        experiment.statuses.append(call.body["status"])
    return _experiment_row(experiment)


def _delete_experiment(call: Call) -> None:
    del call.state.experiments[_experiment(call).id]


def _set_base_version(call: Call) -> dict[str, Any]:
    body = call.body
    version = lookup(call.state.versions, body["model_version_id"], "model version")
    call.state.give_base(
        _experiment(call),
        version,
        parameters=body.get("attach_base_parameters"),
        files=body.get("attach_model_files"),
    )
    return _experiment_row(_experiment(call))


def _launch(call: Call) -> dict[str, Any]:
    _experiment(call).is_launched = True
    return _job_row(call.state.jobs[call.state.add_job(status="QUEUED")])


def _set_job_status(call: Call) -> dict[str, Any]:
    experiment = _experiment(call)
    if not experiment.is_launched:
        raise RefusedError(404, "job not found", "this experiment was not launched")
    experiment.job_status.append(call.body["status"])
    return {"status": call.body["status"]}


def _log_row(log: Log) -> dict[str, Any]:
    return {"id": log.id, "name": log.name, "type": log.type, "data": log.data}


def _logs(call: Call) -> dict[str, Any]:
    return page(map(_log_row, _experiment(call).logs.values()), call.query)


def _find_log(call: Call) -> dict[str, Any]:
    return _log_row(find(_experiment(call).logs.values(), call.query, "log"))


def _create_log(call: Call) -> dict[str, Any]:
    experiment, body = _experiment(call), call.body
    if call.query.get("raise_on_conflict", "False").lower() == "true":
        refuse_duplicate(body["name"], experiment.logs.values())
    _require_data(call, body["type"])
    return _log_row(call.state.put_log(experiment, body["name"], body["type"], body["data"]))


def _require_data(call: Call, kind: str) -> None:
    require_log_data(kind, call.body["data"])
    if kind == "IMAGE":
        uploaded(call.state, call.body["data"]["object_name"])


def _log(call: Call) -> tuple[Experiment, Log]:
    for experiment in call.state.experiments.values():
        for log in experiment.logs.values():
            if log.id == call.ids["log"]:
                return experiment, log
    raise RefusedError(404, "log not found", call.ids["log"])


def _get_log(call: Call) -> dict[str, Any]:
    return _log_row(_log(call)[1])


def _update_log(call: Call) -> dict[str, Any]:
    experiment, log = _log(call)
    name = call.body.get("name", log.name)
    refuse_duplicate(name, [each for each in experiment.logs.values() if each is not log])
    if "data" in call.body:
        _require_data(call, log.type)
    experiment.logs[name] = experiment.logs.pop(log.name)
    log.name, log.data = name, call.body.get("data", log.data)
    return _log_row(log)


def _append_log(call: Call) -> dict[str, Any]:
    experiment, log = _log(call)
    if log.type != "LINE":
        raise RefusedError(400, "Invalid request", f"{log.type} logs cannot be appended to")
    _require_data(call, log.type)
    return _log_row(call.state.put_log(experiment, log.name, "LINE", call.body["data"]))


def _delete_log(call: Call) -> None:
    experiment, log = _log(call)
    del experiment.logs[log.name]


def _log_ids(call: Call) -> list[str]:
    return [log.id for log in _experiment(call).logs.values()]


def _delete_logs(call: Call) -> None:
    experiment = _experiment(call)
    experiment.logs = {k: log for k, log in experiment.logs.items() if log.id not in call.body["ids"]}


def _artifacts(call: Call) -> dict[str, Any]:
    return page([file_row(call, file) for file in _experiment(call).artifacts.values()], call.query)


def _find_artifact(call: Call) -> dict[str, Any]:
    return file_row(call, find(_experiment(call).artifacts.values(), call.query, "artifact"))


def _create_artifact(call: Call) -> dict[str, Any]:
    experiment = _experiment(call)
    refuse_duplicate(call.body["name"], experiment.artifacts.values())
    experiment.artifacts[call.body["name"]] = file = new_file(call)
    return file_row(call, file)


def _artifact(call: Call) -> tuple[Experiment, StoredFile]:
    for experiment in call.state.experiments.values():
        for file in experiment.artifacts.values():
            if file.id == call.ids["artifact"]:
                return experiment, file
    raise RefusedError(404, "artifact not found", call.ids["artifact"])


def _get_artifact(call: Call) -> dict[str, Any]:
    return file_row(call, _artifact(call)[1])


def _update_artifact(call: Call) -> dict[str, Any]:
    experiment, file = _artifact(call)
    name = call.body.get("name", file.name)
    refuse_duplicate(name, [each for each in experiment.artifacts.values() if each is not file])
    file.data = uploaded(call.state, call.body.get("object_name", file.object_name))
    experiment.artifacts[name] = experiment.artifacts.pop(file.name)
    for key, value in call.body.items():
        setattr(file, key, value)
    return file_row(call, file)


def _delete_artifact(call: Call) -> None:
    experiment, file = _artifact(call)
    del experiment.artifacts[file.name]


def _artifact_ids(call: Call) -> list[str]:
    return [file.id for file in _experiment(call).artifacts.values()]


def _delete_artifacts(call: Call) -> None:
    experiment = _experiment(call)
    kept = {k: file for k, file in experiment.artifacts.items() if file.id not in call.body["ids"]}
    experiment.artifacts = kept


def _dataset_row(alias: str, dataset: DatasetVersion) -> dict[str, Any]:
    return {"name": alias, "dataset_version": dataset_row(dataset)}


def _datasets(call: Call) -> dict[str, Any]:
    rows = [_dataset_row(alias, dataset) for alias, dataset in _experiment(call).datasets.items()]
    return page(rows, call.query)


def _attach_dataset(call: Call) -> dict[str, Any]:
    experiment, name = _experiment(call), call.body["name"]
    if name in experiment.datasets:
        raise RefusedError(409, "Conflict", f"the name {name!r} is taken")
    dataset = lookup(call.state.datasets, call.body["dataset_version_id"], "dataset version")
    experiment.datasets[name] = dataset
    return _dataset_row(name, dataset)


def _detach_datasets(call: Call) -> None:
    experiment, ids = _experiment(call), call.body["ids"]
    kept = {alias: dataset for alias, dataset in experiment.datasets.items() if dataset.id not in ids}
    experiment.datasets = kept


def _find_dataset(call: Call) -> dict[str, Any]:
    datasets, alias = _experiment(call).datasets, call.query.get("name", "")
    if alias not in datasets:
        raise RefusedError(404, "dataset not found", f"no dataset is attached as {alias!r}")
    return _dataset_row(alias, datasets[alias])


def _send_logging(call: Call) -> dict[str, Any]:
    _experiment(call).telemetry.append(call.body)
    return {}


def _save_logging(call: Call) -> dict[str, Any]:
    experiment = _experiment(call)
    uploaded(call.state, call.body["object_name"])
    experiment.logging_file = call.body["object_name"]
    return {"id": new_id(), "object_name": experiment.logging_file}


def _get_logging(call: Call) -> dict[str, Any]:
    object_name = _experiment(call).logging_file
    if object_name is None:
        raise RefusedError(404, "logging file not found")
    return {"id": new_id(), "object_name": object_name}


def _job_row(job: Job) -> dict[str, Any]:
    return {"id": job.id, "status": job.status}


def _job(call: Call) -> Job:
    return lookup(call.state.jobs, call.ids["job"], "job")


def _get_job(call: Call) -> dict[str, Any]:
    return _job_row(_job(call))


def _find_job(call: Call) -> dict[str, Any]:
    require_organization(call)
    return _job_row(lookup(call.state.jobs, call.query.get("id", ""), "job"))


def _move_job(call: Call, status: str) -> dict[str, Any]:
    job = _job(call)
    if job.status in FINISHED:
        raise RefusedError(400, "Illegal transition", f"a job that is {job.status} cannot become {status}")
    job.status = status
    job.history.append(status)
    return _job_row(job)


def _send_job_logging(call: Call) -> dict[str, Any]:
    _job(call).telemetry.append(call.body)
    return {}


def _save_job_logging(call: Call) -> dict[str, Any]:
    job = _job(call)
    uploaded(call.state, call.body["logging_object_name"])
    job.logging_object_name = call.body["logging_object_name"]
    return {"logging_object_name": job.logging_object_name}


_ORGANIZATION = "/api/organization/{organization}"
_PROJECT = "/api/project/{project}"
_EXPERIMENT = "/api/experiment/{experiment}"
_JOB = "/api/v2/job/{job}"
_BY_NAME = ("id", "name")
_LOGGING = {
    "line_nb": COUNT,
    "log": Field("a string or a list", lambda value: isinstance(value, str | list)),
    "final": BOOLEAN,
    "part": TEXT,
    "special": Field("a string, a list, true or false", lambda value: isinstance(value, str | list | bool)),
}
_NEW_EXPERIMENT = {
    "name": NAME,
    "description": optional(TEXT),
    "parameters": optional(OBJECT),
    "base_model_version_id": optional(UUID),
}
_EXPERIMENT_CHANGES = {
    "name": optional(NAME),
    "description": optional(TEXT),
    "status": optional(one_of(EXPERIMENT_STATUSES)),
}
_BASE_VERSION = {
    "model_version_id": UUID,
    "attach_base_parameters": nullable(BOOLEAN),
    "attach_model_files": nullable(BOOLEAN),
}
_LAUNCH = {"gpus": COUNT, "gpu_type": nullable(one_of(GPUS)), "compute_connector_id": nullable(UUID)}
_NEW_LOG = {"name": NAME, "type": one_of(LOG_TYPES), "data": LOG_DATA}
_FILE_CHANGES = {key: optional(field) for key, field in FILE_ROW.items()}
ROUTES = (
    Route("GET", f"{_ORGANIZATION}/projects", _projects, query=PAGE),
    Route("GET", f"{_ORGANIZATION}/projects/find", _find_project, query=_BY_NAME),
    Route(
        "POST",
        f"{_ORGANIZATION}/projects",
        _create_project,
        body={"name": NAME, "description": optional(TEXT)},
        status=201,
    ),
    Route("DELETE", _PROJECT, _delete_project, status=204),
    Route("GET", f"{_PROJECT}/experiments", _experiments, query=PAGE),
    Route("GET", f"{_PROJECT}/experiments/find", _find_in_project, query=_BY_NAME),
    Route("POST", f"{_PROJECT}/experiments", _create_experiment, body=_NEW_EXPERIMENT, status=201),
    Route("GET", f"{_ORGANIZATION}/experiments/find", _find_experiment, query=("id",)),
    Route("GET", _EXPERIMENT, _get_experiment),
    Route("PATCH", _EXPERIMENT, _update_experiment, body=_EXPERIMENT_CHANGES),
    Route("DELETE", _EXPERIMENT, _delete_experiment, status=204),
    Route("POST", f"{_EXPERIMENT}/model", _set_base_version, body=_BASE_VERSION),
    Route("POST", f"{_EXPERIMENT}/launch", _launch, body=_LAUNCH, status=201),
    Route("POST", f"{_EXPERIMENT}/publish", publish, body={"name": NAME}, status=201),
    Route("POST", f"{_EXPERIMENT}/publish/version", publish_version, body={"model_id": UUID}, status=201),
    Route(
        "PATCH",
        f"{_EXPERIMENT}/job/status",
        _set_job_status,
        body={"status": one_of(EXPERIMENT_JOB_STATUSES)},
    ),
    Route(
        "POST",
        f"{_EXPERIMENT}/logs",
        _create_log,
        body=_NEW_LOG,
        query=("raise_on_conflict",),
        status=201,
    ),
    Route("GET", f"{_EXPERIMENT}/logs/find", _find_log, query=_BY_NAME),
    Route("GET", f"{_EXPERIMENT}/logs/extended", _logs, query=PAGE),
    Route("GET", f"{_EXPERIMENT}/logs/ids", _log_ids),
    Route("DELETE", f"{_EXPERIMENT}/logs", _delete_logs, body={"ids": UUIDS}, status=204),
    Route("GET", "/api/log/{log}", _get_log),
    Route("PATCH", "/api/log/{log}", _update_log, body={"name": optional(NAME), "data": optional(LOG_DATA)}),
    Route("DELETE", "/api/log/{log}", _delete_log, status=204),
    Route("POST", "/api/log/{log}/append", _append_log, body={"data": LOG_DATA}),
    Route("GET", f"{_EXPERIMENT}/artifacts", _artifacts, query=PAGE),
    Route("GET", f"{_EXPERIMENT}/artifacts/find", _find_artifact, query=_BY_NAME),
    Route("GET", f"{_EXPERIMENT}/artifacts/ids", _artifact_ids),
    Route("POST", f"{_EXPERIMENT}/artifacts", _create_artifact, body=FILE_ROW, status=201),
    Route("DELETE", f"{_EXPERIMENT}/artifacts", _delete_artifacts, body={"ids": UUIDS}, status=204),
    Route("GET", "/api/artifact/{artifact}", _get_artifact),
    Route("PATCH", "/api/artifact/{artifact}", _update_artifact, body=_FILE_CHANGES),
    Route("DELETE", "/api/artifact/{artifact}", _delete_artifact, status=204),
    Route("GET", f"{_EXPERIMENT}/datasets", _datasets, query=PAGE),
    Route(
        "POST",
        f"{_EXPERIMENT}/datasets",
        _attach_dataset,
        body={"name": NAME, "dataset_version_id": UUID},
        status=201,
    ),
    Route("DELETE", f"{_EXPERIMENT}/datasets", _detach_datasets, body={"ids": UUIDS}, status=204),
    Route("GET", f"{_EXPERIMENT}/datasets/find", _find_dataset, query=("name",)),
    Route("GET", f"{_EXPERIMENT}/logging", _get_logging),
    Route("POST", f"{_EXPERIMENT}/logging", _send_logging, body=_LOGGING),
    Route("POST", f"{_EXPERIMENT}/logging/save", _save_logging, body={"object_name": NAME}),
    Route("GET", f"{_ORGANIZATION}/jobv2s/find", _find_job, query=("id",)),
    Route("GET", _JOB, _get_job),
    Route("POST", f"{_JOB}/running", lambda call: _move_job(call, "RUNNING")),
    Route("POST", f"{_JOB}/succeed", lambda call: _move_job(call, "SUCCEEDED")),
    Route("POST", f"{_JOB}/fail", lambda call: _move_job(call, "FAILED")),
    Route("POST", f"{_JOB}/logging", _send_job_logging, body=_LOGGING),
    Route("POST", f"{_JOB}/logging/save", _save_job_logging, body={"logging_object_name": NAME}),
)
