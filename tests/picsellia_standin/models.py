"""Connection, models, versions and their files."""

from __future__ import annotations

from typing import Any

from .routes import PAGE, Call, Route, find, lookup, page, require_organization
from .schemas import NAME, TEXT, RefusedError, optional
from .state import VERSION_FIELDS, Log, Model, StoredFile, Version, copied, new_id, refuse_duplicate
from .storage import FILE_ROW, file_row, new_file

SDK_VERSION = "6.37.0"
_SUMMARY = ("type", "framework", "labels")


def _ping(call: Call) -> dict[str, Any]:
    return {
        "username": call.state.username,
        "sdk_version": SDK_VERSION,
        "default_organization": call.state.organization_id,
    }


def _find_organization(call: Call) -> dict[str, Any]:
    if call.query.get("name") != call.state.organization_name:
        raise RefusedError(404, "Organization not found", call.query.get("name"))
    return {"id": call.state.organization_id}


def _organization(call: Call) -> dict[str, Any]:
    require_organization(call)
    state = call.state
    return {
        "id": state.organization_id,
        "name": state.organization_name,
        "default_connector_id": state.connector_id,
    }


def _model_row(model: Model) -> dict[str, Any]:
    return {"id": model.id, "name": model.name, "description": model.description, "private": True, "tags": []}


def _models(call: Call) -> dict[str, Any]:
    require_organization(call)
    return page(map(_model_row, call.state.models.values()), call.query)


def _find_model(call: Call) -> dict[str, Any]:
    require_organization(call)
    return _model_row(find(call.state.models.values(), call.query, "model"))


def _find_public_model(call: Call) -> dict[str, Any]:
    return _model_row(find([], call.query, "public model"))


def _create_model(call: Call) -> dict[str, Any]:
    require_organization(call)
    refuse_duplicate(call.body["name"], call.state.models.values())
    model = Model(new_id(), call.body["name"], call.body["description"])
    call.state.models[model.id] = model
    return _model_row(model)


def _model(call: Call) -> Model:
    return lookup(call.state.models, call.ids["model"], "model")


def _get_model(call: Call) -> dict[str, Any]:
    return _model_row(_model(call))


def _delete_model(call: Call) -> None:
    model = _model(call)
    for version in _versions_of(call, model):
        del call.state.versions[version.id]
    del call.state.models[model.id]


def _versions_of(call: Call, model: Model) -> list[Version]:
    return [version for version in call.state.versions.values() if version.model is model]


def version_summary(version: Version) -> dict[str, Any]:
    """A version as every call but its own GET answers it: without docker fields and parameters."""
    model = version.model
    return {
        "id": version.id,
        "origin": {"id": model.id, "name": model.name, "private": True},
        "name": version.name,
        "version": version.number,
        **{key: version.fields[key] for key in _SUMMARY},
    }


def version_row(call: Call, version: Version) -> dict[str, Any]:
    """A version in full; the key of its parameters is the state's `parameters_key`."""
    fields = dict(version.fields)
    parameters = fields.pop("parameters")
    return {**version_summary(version), **fields, call.state.parameters_key: parameters, "tags": []}


def _versions(call: Call) -> dict[str, Any]:
    return page(map(version_summary, _versions_of(call, _model(call))), call.query)


def _create_version(call: Call) -> dict[str, Any]:
    fields = dict(call.body)
    version = call.state.make_version(_model(call), fields.pop("name", None), fields)
    return version_summary(version)


def _find_version(call: Call) -> dict[str, Any]:
    versions = _versions_of(call, _model(call))
    if "version" not in call.query:
        return version_summary(find(versions, call.query, "model version"))
    for version in versions:
        if str(version.number) == call.query["version"]:
            return version_summary(version)
    raise RefusedError(404, "model version not found", call.query["version"])


def _find_version_by_id(call: Call) -> dict[str, Any]:
    require_organization(call)
    return version_summary(find(call.state.versions.values(), call.query, "model version"))


def _version(call: Call) -> Version:
    return lookup(call.state.versions, call.ids["version"], "model version")


def _get_version(call: Call) -> dict[str, Any]:
    return version_row(call, _version(call))


def _update_version(call: Call) -> dict[str, Any]:
    version, fields = _version(call), dict(call.body)
    name = fields.pop("name", version.name)
    refuse_duplicate(name, [each for each in _versions_of(call, version.model) if each is not version])
    version.name = name
    version.fields |= fields
    return version_summary(version)


def _delete_version(call: Call) -> None:
    del call.state.versions[_version(call).id]


def _context(call: Call) -> dict[str, Any]:
    version = _version(call)
    experiment = call.state.experiments.get(version.experiment_id or "")
    datas = [
        {"name": alias, "version_id": dataset.id, "repartition": dict.fromkeys(dataset.labels, 1)}
        for alias, dataset in (experiment.datasets if experiment else {}).items()
    ]
    return {
        "id": new_id(),
        "experiment_id": version.experiment_id,
        "datas": datas,
        "parameters": version.fields["parameters"],
    }


def _files(call: Call) -> dict[str, Any]:
    return page([file_row(call, file) for file in _version(call).files.values()], call.query)


def _find_file(call: Call) -> dict[str, Any]:
    return file_row(call, find(_version(call).files.values(), call.query, "model file"))


def _create_file(call: Call) -> dict[str, Any]:
    version = _version(call)
    refuse_duplicate(call.body["name"], version.files.values())
    version.files[call.body["name"]] = file = new_file(call)
    return file_row(call, file)


def _owner(call: Call) -> tuple[Version, StoredFile]:
    for version in call.state.versions.values():
        for file in version.files.values():
            if file.id == call.ids["file"]:
                return version, file
    raise RefusedError(404, "model file not found", call.ids["file"])


def _get_file(call: Call) -> dict[str, Any]:
    return file_row(call, _owner(call)[1])


def _delete_file(call: Call) -> None:
    version, file = _owner(call)
    del version.files[file.name]


def publish(call: Call) -> dict[str, Any]:
    """`export_as_model`: an experiment becomes the first version of a new model."""
    name = call.body["name"]
    refuse_duplicate(name, call.state.models.values())
    return _published(call, call.state.add_model(name))


def publish_version(call: Call) -> dict[str, Any]:
    """`export_in_existing_model`: an experiment becomes a version of a model."""
    return _published(call, lookup(call.state.models, call.body["model_id"], "model"))


def _published(call: Call, model: Model) -> dict[str, Any]:
    experiment = lookup(call.state.experiments, call.ids["experiment"], "experiment")
    empty = Log("", "", "TABLE", {})
    fields = {
        "parameters": experiment.logs.get("parameters", empty).data,
        "labels": experiment.logs.get("labelmap", empty).data,
    }
    version = call.state.make_version(model, experiment.name, fields)
    version.experiment_id = experiment.id
    version.files = {name: copied(file) for name, file in experiment.artifacts.items()}
    return version_summary(version)


_ORGANIZATION = "/api/organization/{organization}"
_VERSION = "/api/model/version/{version}"
_NAMED_FIELDS = {"name": optional(NAME), **VERSION_FIELDS}
ROUTES = (
    Route("GET", "/api/home/ping", _ping),
    Route("GET", "/api/organizations/find", _find_organization, query=("name",)),
    Route("GET", _ORGANIZATION, _organization),
    Route("GET", f"{_ORGANIZATION}/models", _models, query=PAGE),
    Route("GET", f"{_ORGANIZATION}/models/find", _find_model, query=("id", "name")),
    Route(
        "POST",
        f"{_ORGANIZATION}/models",
        _create_model,
        body={"name": NAME, "description": TEXT},
        status=201,
    ),
    Route("GET", "/api/models/find", _find_public_model, query=("name",)),
    Route("GET", "/api/model/{model}", _get_model),
    Route("DELETE", "/api/model/{model}", _delete_model, status=204),
    Route("GET", "/api/model/{model}/versions", _versions, query=PAGE),
    Route("POST", "/api/model/{model}/versions", _create_version, body=_NAMED_FIELDS, status=201),
    Route("GET", "/api/model/{model}/versions/find", _find_version, query=("id", "name", "version")),
    Route("GET", f"{_ORGANIZATION}/modelversions/find", _find_version_by_id, query=("id",)),
    Route("GET", _VERSION, _get_version),
    Route("PATCH", _VERSION, _update_version, body=_NAMED_FIELDS),
    Route("DELETE", _VERSION, _delete_version, status=204),
    Route("GET", f"{_VERSION}/context", _context),
    Route("GET", f"{_VERSION}/modelfiles", _files, query=PAGE),
    Route("GET", f"{_VERSION}/modelfiles/find", _find_file, query=("id", "name")),
    Route("POST", f"{_VERSION}/modelfiles", _create_file, body=FILE_ROW, status=201),
    Route("GET", "/api/model/file/{file}", _get_file),
    Route("DELETE", "/api/model/file/{file}", _delete_file, status=204),
)
