"""What differs between two states of a version, or between two versions."""

from __future__ import annotations

from builder.models.compare import diff, diff_versions
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.records import Change, DockerImage, ModelVersion, Source, StoredFile, VersionFields

FIELDS = VersionFields(
    description="x",
    notebook_link="https://example.com/n",
    labelmap={"0": "car"},
    parameters={"epochs": 1, "hub_token": "private"},
    image=DockerImage(name="i", tag="1"),
)


def version(fields: VersionFields = FIELDS, **more: object) -> ModelVersion:
    return ModelVersion.model_validate(
        {"id": "1", "name": VersionName(model="m", version="1"), "fields": fields, **more}
    )


def test_every_field_takes_part() -> None:
    changes = diff(VersionFields(), FIELDS.model_copy(update={"framework": "ONNX", "type": "POINT"}))
    assert {change.field.partition(".")[0] for change in changes} == set(VersionFields.model_fields)


def test_what_is_none_is_left_or_cleared() -> None:
    after = VersionFields(description="x", labelmap={"0": "car"}, image=FIELDS.image)
    assert diff(FIELDS, after) == ()
    assert diff(FIELDS, after, whole=True) == (
        Change(field="notebook_link", before="https://example.com/n", after=None),
        Change(field="parameters.epochs", before=1, after=None),
        Change(field="parameters.hub_token", before="***", after=None),
    )


def test_files_are_compared_by_hash() -> None:
    file = StoredFile(name="weights", filename="best.pt", size=1, sha256="aa")
    before, same = version(files=(file,)), version(files=(file.model_copy(update={"filename": "other.pt"}),))
    assert diff_versions(before, same) == ()
    after = version(files=(file.model_copy(update={"sha256": "bb"}),), thumbnail=file)
    assert diff_versions(before, after) == (
        Change(field="files.weights", before="sha256:aa", after="sha256:bb"),
        Change(field="thumbnail", before=None, after="sha256:aa"),
    )


def test_files_of_a_store_that_tells_no_hash_are_compared_by_size() -> None:
    here = version(files=(StoredFile(name="w", filename="w", size=1, sha256="aa"),))
    there = version(files=(StoredFile(name="w", filename="w", size=1),))
    assert diff_versions(here, there) == ()
    larger = version(files=(StoredFile(name="w", filename="w", size=2),))
    assert [change.after for change in diff_versions(here, larger)] == ["2 bytes"]


def test_the_source_is_compared_by_names() -> None:
    source = Source(
        experiment=ExperimentName(project="p", experiment="e"),
        datasets={"train": DatasetName(dataset="d", version="1")},
    )
    assert diff_versions(version(), version(source=source)) == (
        Change(field="source.datasets.train", before=None, after="local:d/1"),
        Change(field="source.experiment", before=None, after="local:p/e"),
    )


def test_what_only_the_first_version_holds_is_a_difference() -> None:
    assert [
        change.field for change in diff_versions(version(), version(VersionFields(image=FIELDS.image)))
    ] == [
        "description",
        "labelmap.0",
        "notebook_link",
        "parameters.epochs",
        "parameters.hub_token",
    ]
