"""What a use needs of a version, and that each command that is proposed is one that exists."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from builder.cli.dispatch import root
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.records import DockerImage, ModelVersion, Source, StoredFile, VersionFields
from builder.models.requirements import USES, Use, unmet

IMAGE = DockerImage(
    name="registry.example.com/a", tag="1", digest=f"sha256:{'ab' * 32}", flags=("--gpus=all",)
)
WHOLE = ModelVersion(
    id="1",
    name=VersionName(model="team/fuß gänger", version="v3"),
    fields=VersionFields(
        description="finds people",
        framework="PYTORCH",
        type="OBJECT_DETECTION",
        notebook_link="https://example.com",
        labelmap={"0": "car", "1": "person"},
        parameters={"epochs": 10},
        image=IMAGE,
    ),
    files=(StoredFile(name="weights", filename="weights.pt"),),
    thumbnail=StoredFile(name="picture", filename="picture.png"),
    source=Source(
        experiment=ExperimentName(project="p", experiment="e"),
        datasets={"train": DatasetName(dataset="street", version="v1")},
    ),
)
EMPTY = ModelVersion(id="1", name=WHOLE.name, fields=VersionFields())


def without(**changes: Any) -> ModelVersion:
    own = {key: value for key, value in changes.items() if key in ModelVersion.model_fields}
    fields = {key: value for key, value in changes.items() if key not in own}
    return WHOLE.model_copy(update={"fields": WHOLE.fields.model_copy(update=fields), **own})


@pytest.mark.parametrize("use", USES)
def test_a_version_that_holds_everything_is_fit_for_every_use(use: Use) -> None:
    assert unmet(WHOLE, use) == ()


@pytest.mark.parametrize(
    ("use", "needed"),
    [
        ("training", {"image", "parameters"}),
        ("inference", {"files", "framework", "type", "labelmap"}),
        ("experiment", {"image", "parameters", "labelmap", "type"}),
        (
            "publishing",
            {
                "description",
                "framework",
                "type",
                "labelmap",
                "source.experiment",
                "files",
                "image",
                "parameters",
            },
        ),
    ],
)
def test_an_empty_version_lacks_what_the_use_needs(use: Use, needed: set[str]) -> None:
    assert {each.field for each in unmet(EMPTY, use) if each.needed} == needed


@pytest.mark.parametrize(
    ("use", "version", "field", "needed"),
    [
        ("training", without(image=IMAGE.model_copy(update={"digest": None})), "image.digest", True),
        ("training", without(image=IMAGE.model_copy(update={"tag": "latest"})), "image.tag", True),
        ("training", without(image=IMAGE.model_copy(update={"tag": ""})), "image.tag", True),
        ("training", without(image=IMAGE.model_copy(update={"flags": ()})), "image.flags", False),
        ("training", without(files=()), "files", False),
        ("inference", without(framework="NOT_CONFIGURED"), "framework", True),
        ("inference", without(labelmap={"0": "car", "2": "person"}), "labelmap", False),
        ("experiment", without(framework=None), "framework", False),
        (
            "publishing",
            without(source=Source(experiment=ExperimentName(project="p", experiment="e"))),
            "source.datasets",
            True,
        ),
        ("publishing", without(thumbnail=None), "thumbnail", False),
        ("publishing", without(notebook_link=None), "notebook_link", False),
        ("publishing", without(parameters={"hub_token": "x"}), "parameters.hub_token", True),
        (
            "publishing",
            without(image=IMAGE.model_copy(update={"env": {"API_KEY": "x"}})),
            "env.API_KEY",
            True,
        ),
    ],
)
def test_what_is_wrong_is_found(use: Use, version: ModelVersion, field: str, needed: bool) -> None:
    (found,) = unmet(version, use)
    assert (found.field, found.needed) == (field, needed)
    assert found.why


@pytest.mark.parametrize("use", USES)
def test_every_command_that_is_proposed_exists(use: Use) -> None:
    secret = without(parameters={"hub_token": "x"}, labelmap={"0": "a", "2": "b"})
    bare = without(image=IMAGE.model_copy(update={"digest": None, "tag": "latest", "flags": ()}))
    for version in (EMPTY, secret, bare):
        for requirement in unmet(version, use):
            for command in requirement.command.split(" && "):
                name, *words = shlex.split(command)
                assert name == "trainpack"
                helped = [word for word in words[:2] if word.isidentifier() or word == "attach-dataset"]
                answer = CliRunner().invoke(root, [*helped, "--help"])
                assert answer.exit_code == 0, command
                assert all(
                    word in answer.output for word in words if word.startswith("--") and "=" not in word
                )


def test_what_is_needed_comes_before_what_is_advised() -> None:
    found = [each.needed for each in unmet(EMPTY, "publishing")]
    assert found == sorted(found, reverse=True)
