"""Runs that report to the stand-in for Picsellia."""

from __future__ import annotations

from picsellia_standin import Experiment, Standin


def environment(platform: Standin, experiment: str | None, **more: str) -> dict[str, str]:
    """The environment of a container of this experiment."""
    env = {"api_token": platform.token, "host": platform.url, "organization_id": platform.organization_id}
    return env | ({"experiment_id": experiment} if experiment else {}) | more


def finals(experiment: Experiment) -> list[str]:
    """Every status after the first RUNNING."""
    assert experiment.statuses[0] == "RUNNING"
    return experiment.statuses[1:]
