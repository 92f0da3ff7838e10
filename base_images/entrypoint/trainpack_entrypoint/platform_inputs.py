"""What an experiment of Picsellia, and the ModelVersion that it starts from, give a run."""

from __future__ import annotations

from typing import Any

from trainpack_entrypoint.sources import Source, object_of


def read_inputs(experiment: Any) -> tuple[list[Source], list[str]]:
    """Read parameters and labelmap of the experiment, then of the ModelVersion that it starts from.

    Args:
        experiment: The SDK's object; None gives nothing.

    Returns:
        The sources, the strongest first, and what of them cannot be used.
    """
    problems: list[str] = []
    if experiment is None:
        return [], problems
    sources = [_experiment_source(experiment, problems)]
    if version := _base_version(experiment):
        sources.append(_version_source(version, problems))
    return sources, problems


def _experiment_source(experiment: Any, problems: list[str]) -> Source:
    name = f"experiment {experiment.name}"
    parameters = object_of(_log_data(experiment, "parameters"), f"parameters of {name}", problems)
    return Source(name, parameters, _log_data(experiment, "labelmap") or None)


def _log_data(experiment: Any, name: str) -> Any:
    from picsellia.exceptions import ResourceNotFoundError

    try:
        return experiment.get_log(name).data
    except ResourceNotFoundError:
        return None


def _base_version(experiment: Any) -> Any:
    from picsellia.exceptions import NoBaseModelVersionError

    try:
        return experiment.get_base_model_version()
    except NoBaseModelVersionError:
        return None


def _version_source(version: Any, problems: list[str]) -> Source:
    # The SDK's object shows neither: only the raw answer holds the parameters, under either name.
    raw, name = version.sync(), f"ModelVersion {version.origin_name}/{version.name}"
    parameters = raw.get("parameters") or raw.get("base_parameters")
    return Source(name, object_of(parameters, f"parameters of {name}", problems), raw.get("labels") or None)
