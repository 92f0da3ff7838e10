"""The stand-in platform: what the unmodified SDK can do on it, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import picsellia_standin
import PIL.Image
import pytest
import requests
from picsellia_standin import Experiment, RefusedError, Standin

os.environ.setdefault("PICSELLIA_SDK_CUSTOM_LOGGING", "1")  # read when the SDK is imported
from picsellia import Client, exceptions
from picsellia.types.enums import JobRunStatus

LARGE = 26 * 1024 * 1024  # above 25 MiB the SDK uploads in parts
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(platform: Standin) -> Any:
    return Client(api_token=platform.token, host=platform.url)


@pytest.fixture
def record(platform: Standin) -> Experiment:
    """An experiment with parameters and a labelmap, as the platform holds it."""
    id = platform.add_experiment("project", "first", parameters={"epochs": 3}, labelmap={"0": "car"})
    return platform.experiments[id]


@pytest.fixture
def experiment(client: Any, record: Experiment) -> Any:
    """The same, as the SDK sees it."""
    return client.get_experiment_by_id(record.id)


def call(platform: Standin, method: str, path: str, **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {platform.token}"}
    return requests.request(method, platform.url + path, headers=headers, timeout=10, **options)


# What the SDK can do.


def test_an_experiment_is_found_by_id_and_by_project_and_name(client: Any, record: Experiment) -> None:
    assert str(client.get_experiment_by_id(record.id).id) == record.id
    project = client.get_project("project")
    assert str(project.get_experiment("first").id) == record.id
    assert str(client.get_project_by_id(str(project.id)).get_experiment_by_id(record.id).id) == record.id


def test_parameters_and_labelmap_are_logs(experiment: Any) -> None:
    assert experiment.get_log("parameters").data == {"epochs": 3}
    assert experiment.get_log("labelmap").data == {"0": "car"}
    with pytest.raises(exceptions.ResourceNotFoundError):
        experiment.get_log("missing")


def test_an_experiment_made_from_a_version_receives_its_parameters_labelmap_and_files(
    platform: Standin, client: Any, tmp_path: Path
) -> None:
    base = platform.add_model_version(
        "pedestrian", "v1", parameters={"epochs": 3}, labels={"0": "car"}, files={"weights": b"abc"}
    )
    made = client.create_project("p").create_experiment(
        "e", base_model_version=client.get_model_version_by_id(base)
    )
    assert made.get_log("parameters").data == {"epochs": 3}
    assert made.get_log("labelmap").data == {"0": "car"}
    made.get_artifact("weights").download(tmp_path)
    assert (tmp_path / "weights").read_bytes() == b"abc"
    assert made.get_base_model_version().sync()["parameters"] == {"epochs": 3}


def test_an_experiments_own_parameters_replace_those_of_its_version(platform: Standin, client: Any) -> None:
    base = client.get_model_version_by_id(platform.add_model_version("m", "v1", parameters={"epochs": 3}))
    made = client.create_project("p").create_experiment(
        "e", base_model_version=base, parameters={"rate": 0.1}
    )
    assert made.get_log("parameters").data == {"rate": 0.1}


@pytest.mark.parametrize(("attach", "epochs"), [(None, 3), (False, 3), (True, 9)])
def test_setting_a_base_version_follows_the_sdks_documented_rules(
    platform: Standin, client: Any, experiment: Any, attach: bool | None, epochs: int
) -> None:
    base = platform.add_model_version("m", "v1", parameters={"epochs": 9}, labels={"0": "bus"})
    experiment.set_base_model_version(client.get_model_version_by_id(base), attach_parameters=attach)
    assert experiment.get_log("parameters").data == {"epochs": epochs}
    assert experiment.get_log("labelmap").data == {"0": "car"}
    assert str(experiment.get_base_model_version().id) == base


def test_an_experiment_without_a_base_version_says_so(experiment: Any) -> None:
    with pytest.raises(exceptions.NoBaseModelVersionError):
        experiment.get_base_model_version()


def test_statuses_are_kept_in_order(experiment: Any, record: Experiment) -> None:
    experiment.update(status="RUNNING")
    experiment.update(status="SUCCESS")
    with pytest.raises(exceptions.ResourceNotFoundError):
        experiment.update_job_status("RUNNING")
    record.is_launched = True
    experiment.update_job_status("RUNNING")
    experiment.update_job_status("SUCCESS")
    assert (record.status, record.statuses) == ("SUCCESS", ["RUNNING", "SUCCESS"])
    assert record.job_status == ["RUNNING", "SUCCESS"]


def test_line_logs_grow_and_others_are_replaced(experiment: Any, record: Experiment) -> None:
    for value in (0.5, [0.4, 0.3]):
        experiment.log("loss", value, "LINE")
    experiment.get_log("loss").append(0.2)
    experiment.log("accuracy", 0.8, "VALUE")
    experiment.log("accuracy", 0.9, "VALUE")
    assert record.logs["loss"].data == [0.5, 0.4, 0.3, 0.2]
    assert record.logs["accuracy"].data == 0.9
    assert {log.name for log in experiment.list_logs()} == {"parameters", "labelmap", "loss", "accuracy"}


def test_a_log_conflicts_when_it_may_not_be_replaced(experiment: Any) -> None:
    with pytest.raises(exceptions.ResourceConflictError):
        experiment.log("parameters", {"epochs": 9}, "TABLE", replace=False)


def test_a_log_is_updated_and_deleted(experiment: Any, record: Experiment) -> None:
    log = experiment.get_log("parameters")
    log.update(name="renamed", data={"epochs": 4})
    assert record.logs["renamed"].data == {"epochs": 4}
    log.delete()
    assert set(record.logs) == {"labelmap"}


def test_an_image_log_needs_its_upload(experiment: Any, record: Experiment, tmp_path: Path) -> None:
    image = tmp_path / "curve.png"
    image.write_bytes(b"png")
    experiment.log("curve", str(image), "IMAGE")
    assert record.logs["curve"].data["filename"] == "curve.png"


@pytest.mark.parametrize("content", [b"", b"weights", b"\r\n--boundary\r\n\x00\xff" * 999], ids=len)
def test_an_artifact_survives_upload_and_download(
    experiment: Any, record: Experiment, tmp_path: Path, content: bytes
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(content)
    experiment.store("model", source)
    assert record.artifacts["model"].data == content
    experiment.get_artifact("model").download(tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").read_bytes() == content


def test_a_large_artifact_goes_up_in_parts(
    platform: Standin, experiment: Any, record: Experiment, tmp_path: Path
) -> None:
    content = os.urandom(LARGE)
    (tmp_path / "big.bin").write_bytes(content)
    experiment.store("big", tmp_path / "big.bin")
    assert record.artifacts["big"].large
    assert record.artifacts["big"].data == content
    assert [request.method for request in platform.requests].count("PUT") == 2


def test_storing_an_artifact_again_replaces_it(experiment: Any, record: Experiment, tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        (tmp_path / "model.bin").write_bytes(content)
        experiment.store("model", tmp_path / "model.bin")
    assert record.artifacts["model"].data == b"new"
    assert len(experiment.list_artifacts()) == 1


def test_an_expired_url_is_renewed_by_the_sdk(
    platform: Standin, experiment: Any, record: Experiment, tmp_path: Path
) -> None:
    record.artifacts["model"] = platform.add_file("model", "model.bin", b"abc")
    artifact = experiment.get_artifact("model")
    platform.expire_urls()
    artifact.download(tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == b"abc"
    assert 403 in [request.status for request in platform.requests]


def test_a_versions_files_are_stored_found_and_deleted(
    platform: Standin, client: Any, tmp_path: Path
) -> None:
    id = platform.add_model_version("m", "v1")
    version = client.get_model("m").get_version("v1")
    (tmp_path / "w.pt").write_bytes(b"abc")
    version.store("weights", tmp_path / "w.pt")
    assert platform.versions[id].files["weights"].data == b"abc"
    with pytest.raises(exceptions.ResourceConflictError):
        version.store("weights", tmp_path / "w.pt")
    version.get_file("weights").delete()
    assert version.list_files() == []


def test_a_published_experiment_keeps_its_source(client: Any, experiment: Any) -> None:
    published = experiment.export_as_model("published")
    assert str(published.get_context().experiment_id) == str(experiment.id)
    assert published.labels == {"0": "car"}
    with pytest.raises(exceptions.ResourceConflictError):
        experiment.export_in_existing_model(client.get_model("published"))


def test_datasets_are_attached_by_alias(platform: Standin, client: Any) -> None:
    id = platform.add_experiment("project", "e", datasets={"train": ["car", "person"]})
    experiment = client.get_experiment_by_id(id)
    assert list(experiment.get_attached_dataset_versions()) == ["train"]
    assert [label.name for label in experiment.get_dataset("train").list_labels()] == ["car", "person"]
    with pytest.raises(exceptions.ResourceNotFoundError):
        experiment.get_dataset("test")


def test_a_dataset_versions_images_and_annotations_are_what_the_sdk_asks_for(
    platform: Standin, client: Any, tmp_path: Path
) -> None:
    box = {"rectangles": [{"label": "car", "x": 1, "y": 2, "w": 3, "h": 4}]}
    assets: list[dict[str, Any]] = [
        {"filename": "a.png", "content": "a", "shapes": box},
        {"filename": "b.png", "content": "b"},
    ]
    platform.add_dataset("roads", labels=["car"], assets=assets)
    id = platform.add_experiment("project", "first", datasets={"train": "roads/v1"})
    version = client.get_experiment_by_id(id).get_attached_dataset_versions()["train"]
    version.download(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.png": "a", "b.png": "b"}
    coco = version.build_coco_file_locally()
    assert [image.file_name for image in coco.images] == ["a.png"]
    assert [annotation.bbox for annotation in coco.annotations] == [[1, 2, 3, 4]]
    (first, _) = platform.datasets[str(version.id)].assets
    assert version.list_assets(ids=[first.id])[0].reset_url().startswith(platform.url)


def test_assets_are_listed_in_pages_of_a_thousand(platform: Standin, client: Any) -> None:
    assets = [{"filename": f"{number}.png", "content": ""} for number in range(2001)]
    platform.add_dataset("roads", assets=assets)
    id = platform.add_experiment("project", "first", datasets={"train": "roads/v1"})
    version = client.get_experiment_by_id(id).get_dataset("train")
    assert len(version.list_assets()) == 2001
    assert sum(request.path.endswith("/assets") for request in platform.requests) == 3


def test_annotations_of_no_dataset_are_none(platform: Standin, client: Any) -> None:
    id = platform.add_experiment("project", "first", datasets={"train": ["car"]})
    with pytest.raises(exceptions.NoDataError):
        client.get_experiment_by_id(id).get_dataset("train").list_annotations(limit=1)


def test_telemetry_is_kept_line_by_line(experiment: Any, record: Experiment, tmp_path: Path) -> None:
    experiment.send_logging("first", part="train")
    experiment.send_logging(["second", "third"], part="train", final=True)
    assert record.lines == ["first", "second", "third"]
    assert [body["line_nb"] for body in record.telemetry] == [0, 1]
    experiment.line_nb = 1
    experiment.send_logging("instead", part="train")
    assert record.shown == ["first", "instead", "third"]
    (tmp_path / "log.txt").write_text("all of it")
    stored = experiment.store_logging_file(tmp_path / "log.txt")
    assert record.logging_file == stored.object_name == experiment.get_logging_file().object_name


def test_a_job_runs_logs_and_ends_once(platform: Standin, client: Any, tmp_path: Path) -> None:
    id = platform.add_job()
    job = client.get_job_by_id(id)
    job.update_job_run_with_status(JobRunStatus.RUNNING)
    job.send_logging("line", part="train")
    (tmp_path / "log.txt").write_text("all of it")
    assert job.store_logging_file(tmp_path / "log.txt") == platform.jobs[id].logging_object_name
    job.update_job_run_with_status(JobRunStatus.FAILED)
    assert platform.jobs[id].history == ["PENDING", "RUNNING", "FAILED"]
    with pytest.raises(exceptions.BadRequestError, match="cannot become SUCCEEDED"):
        job.update_job_run_with_status(JobRunStatus.SUCCEEDED)


def test_launching_queues_a_job(platform: Standin, experiment: Any) -> None:
    job = experiment.launch(gpus=1, gpu_type="T4")
    assert platform.jobs[str(job.id)].status == "QUEUED"


def test_docker_fields_and_parameters_are_only_in_the_answer_of_sync(platform: Standin, client: Any) -> None:
    platform.add_model_version("m", "v1", docker_image="x", parameters={"epochs": 1})
    summary = call(platform, "GET", f"/api/organization/{platform.organization_id}/models").json()["items"]
    found = call(platform, "GET", f"/api/model/{summary[0]['id']}/versions/find", params={"name": "v1"})
    assert not {"docker_image", "parameters"} & set(found.json())
    assert client.get_model("m").get_version("v1").sync()["docker_image"] == "x"


def test_versions_are_found_by_number_and_listed_in_pages(platform: Standin, client: Any) -> None:
    for name in ("a", "b", "c"):
        platform.add_model_version("m", name)
    model = client.get_model("m")
    assert model.get_version(2).name == "b"
    assert [version.name for version in model.list_versions(limit=1, offset=1)] == ["b"]
    assert model.create_version().name == "4"
    model.get_version("a").delete()
    assert [version.name for version in model.list_versions()] == ["b", "c", "4"]


# What it refuses.


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Token x"}])
def test_a_missing_or_wrong_token_is_401(platform: Standin, headers: dict[str, str]) -> None:
    answer = requests.get(f"{platform.url}/api/home/ping", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert set(answer.json()) == {"message", "detail"}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"docker_image_name": "x"}, "docker_image_name: unknown field"),
        ({"framework": "pytorch"}, "framework: expected one of"),
        ({"type": "DETECTION"}, "type: expected one of"),
        ({"docker_flags": "--gpus=all"}, "docker_flags: expected a list of strings"),
        ({"docker_env_variables": {"n": 1}}, "docker_env_variables: expected an object of strings"),
        ({"labels": {"0": 1}}, "labels: expected an object of strings"),
        ({"labels": ["car"]}, "labels: expected an object of strings"),
        ({"parameters": []}, "parameters: expected an object"),
        ({"description": None}, "description: expected a string"),
        ([], "body: expected an object"),
    ],
)
def test_a_version_with_a_bad_field_is_400_and_unchanged(platform: Standin, body: Any, problem: str) -> None:
    id = platform.add_model_version("m", "v1")
    before = dict(platform.versions[id].fields)
    answer = call(platform, "PATCH", f"/api/model/version/{id}", json=body)
    assert answer.status_code == 400
    assert any(problem in line for line in answer.json()["detail"])
    assert platform.versions[id].fields == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"parameters": {"rate": NaN}}', b"\xff"])
def test_what_is_not_json_is_400(platform: Standin, content: bytes) -> None:
    id = platform.add_model_version("m", "v1")
    assert call(platform, "PATCH", f"/api/model/version/{id}", data=content).status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"status": "SUCCEEDED"}),
        ("", {"base_model_version_id": UNKNOWN}),
        ("/job/status", {"status": "WAITING"}),
        ("/job/status", {}),
    ],
)
def test_an_experiment_refuses_statuses_and_fields_that_it_does_not_have(
    platform: Standin, record: Experiment, path: str, body: dict[str, str]
) -> None:
    answer = call(platform, "PATCH", f"/api/experiment/{record.id}{path}", json=body)
    assert answer.status_code == 400
    assert (record.status, record.job_status) == ("WAITING", [])


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("VALUE", [1]),
        ("VALUE", True),
        ("LINE", "high"),
        ("LINE", [1, "two"]),
        ("TABLE", [1]),
        ("LABELMAP", {"0": 1}),
        ("BAR", {"x": [1]}),
        ("IMAGE", {"object_name": "a"}),
        ("IMAGE", {"object_name": "never", "large": False, "filename": "a", "name": "a"}),
        ("CURVE", 1),
    ],
)
def test_a_log_of_the_wrong_shape_is_400(
    platform: Standin, record: Experiment, type: str, data: object
) -> None:
    body = {"name": "n", "type": type, "data": data}
    assert call(platform, "POST", f"/api/experiment/{record.id}/logs", json=body).status_code == 400
    assert "n" not in record.logs


def test_telemetry_of_the_wrong_shape_is_400(platform: Standin, record: Experiment) -> None:
    body = {"line_nb": "1", "log": "x", "final": False, "part": "p", "special": False}
    assert call(platform, "POST", f"/api/experiment/{record.id}/logging", json=body).status_code == 400
    assert record.telemetry == []


@pytest.mark.parametrize("path", ["/artifacts", "/logging/save"])
def test_a_row_whose_object_never_came_is_400(platform: Standin, record: Experiment, path: str) -> None:
    row = {"object_name": "never/uploaded"}
    if path == "/artifacts":
        row |= {"name": "a", "filename": "a"}
    body = {**row, "large": False} if path == "/artifacts" else row
    answer = call(platform, "POST", f"/api/experiment/{record.id}{path}", json=body)
    assert (answer.status_code, answer.json()["message"]) == (400, "Object not found")
    assert not record.artifacts


def test_names_are_unique_where_they_live(platform: Standin, client: Any, record: Experiment) -> None:
    platform.add_model_version("m", "v1")
    project = client.get_project("project")
    for create, name in (
        (client.create_model, "m"),
        (lambda name: client.get_model("m").create_version(name=name), "v1"),
        (client.create_project, "project"),
        (project.create_experiment, "first"),
    ):
        with pytest.raises(exceptions.ResourceConflictError):
            create(name)
    client.create_project("other").create_experiment("first")
    client.create_model("n").create_version(name="v1")


def test_an_unknown_id_is_404_and_a_call_that_is_not_covered_501(platform: Standin) -> None:
    assert call(platform, "GET", f"/api/experiment/{UNKNOWN}").status_code == 404
    assert call(platform, "GET", "/api/deployments").status_code == 501
    assert call(platform, "DELETE", "/api/home/ping").status_code == 405


def test_an_unknown_query_parameter_is_400(platform: Standin) -> None:
    path = f"/api/organization/{platform.organization_id}/models"
    assert call(platform, "GET", path, params={"page": 1}).status_code == 400
    assert call(platform, "GET", path, params={"limit": "all"}).status_code == 400
    assert call(platform, "GET", f"{path}/find").status_code == 400


def test_another_organization_is_403(platform: Standin) -> None:
    assert call(platform, "GET", f"/api/organization/{UNKNOWN}").status_code == 403


def object_name(platform: Standin, **changes: Any) -> requests.Response:
    version = platform.add_model_version("m", f"v{len(platform.versions)}")
    path = f"/api/organization/{platform.organization_id}/connector/{platform.connector_id}"
    body = {"filename": "w.pt", "type": "MODEL_FILE", "context": {"model_version_id": version}}
    return call(platform, "POST", f"{path}/generate_object_name", json=body | changes)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"type": "WEIGHTS"}, 400),
        ({"type": "ARTIFACT"}, 400),
        ({"context": {}}, 400),
        ({"context": {"model_version_id": UNKNOWN}}, 404),
    ],
)
def test_an_object_name_belongs_to_something_that_exists(
    platform: Standin, changes: dict[str, Any], status: int
) -> None:
    assert object_name(platform, **changes).status_code == status


def presigned_form(platform: Standin) -> tuple[str, dict[str, str]]:
    name = object_name(platform).json()["object_name"]
    body = {"object_name": name, "content_type": "text/plain"}
    path = f"/api/object-storage/{platform.connector_id}/generate_presigned_url"
    data = call(platform, "POST", path, json=body).json()["presigned_url_data"]
    return data["url"], data["fields"]


def test_a_form_is_taken_only_as_it_was_signed(platform: Standin) -> None:
    url, fields = presigned_form(platform)
    good = {**fields, "Content-Type": "text/plain"}
    for bad in (
        {**good, "x-amz-signature": UNKNOWN},
        {**good, "key": "another"},
        {**good, "Content-Type": "image/png"},
        fields,
    ):
        assert requests.post(url, data=bad, files={"file": b"abc"}, timeout=10).status_code == 403
    with_token = call(platform, "POST", url.removeprefix(platform.url), data=good, files={"file": b"abc"})
    assert with_token.status_code == 400
    assert platform.objects == {}
    assert requests.post(url, data=good, files={"file": b"abc"}, timeout=10).status_code == 204
    assert platform.objects == {fields["key"]: b"abc"}


@pytest.fixture
def stored(platform: Standin, record: Experiment, experiment: Any) -> str:
    """The URL of an artifact of ten bytes."""
    record.artifacts["digits"] = platform.add_file("digits", "digits", b"0123456789")
    return str(experiment.get_artifact("digits").url)


def test_storage_gives_ranges_of_the_content_that_is_meant(platform: Standin, stored: str) -> None:
    def get(**headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.get(stored, headers=named, timeout=10)

    etag = get().headers["ETag"]
    part = get(Range="bytes=4-", If_Range=etag)
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, b"456789", "bytes 4-9/10")
    assert get(Range="bytes=2-3").content == b"23"
    assert (get(Range="bytes=4-", If_Range='"other"').status_code, get(If_None_Match=etag).status_code) == (
        200,
        304,
    )
    beyond = get(Range="bytes=10-")
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */10")
    assert get(x_amz_checksum_mode="ENABLED").status_code == 403


def test_checksums_are_given_only_when_asked_for_and_of_the_whole(platform: Standin, stored: str) -> None:
    assert "Content-MD5" not in requests.get(stored, timeout=10).headers
    platform.checksums = {"content-md5", "x-goog-hash"}
    whole = requests.get(stored, timeout=10).headers
    part = requests.get(stored, headers={"Range": "bytes=1-"}, timeout=10).headers
    assert whole["Content-MD5"] == "eB5eJF1ptWaXm4bijSPyxw=="
    assert "Content-MD5" not in part
    assert part["x-goog-hash"].endswith(f"md5={whole['Content-MD5']}")


def test_a_download_is_cut_or_corrupted_as_often_as_asked(platform: Standin, stored: str) -> None:
    platform.fail("GET", "/storage/", cut_after=4)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(stored, timeout=10)
    platform.fail("GET", "/storage/", corrupt=True)
    assert requests.get(stored, timeout=10).content == b"0123456788"
    assert requests.get(stored, timeout=10).content == b"0123456789"
    assert [request.sent for request in platform.requests[-3:]] == [4, 10, 10]


def test_urls_expire_over_http(platform: Standin, stored: str) -> None:
    assert requests.post(f"{platform.url}/_standin/expire", json={}, timeout=10).ok
    assert requests.get(stored, timeout=10).status_code == 403


def test_an_upload_needs_a_generated_name(platform: Standin) -> None:
    path = f"/api/object-storage/{platform.connector_id}/generate_presigned_url"
    body = {"object_name": "made/up", "content_type": "text/plain"}
    assert call(platform, "POST", path, json=body).status_code == 400


@pytest.mark.parametrize(
    ("etag", "number", "status"),
    [(None, 1, 200), ('"0"', 1, 400), (None, 2, 400)],
)
def test_parts_are_completed_only_as_they_were_uploaded(
    platform: Standin, etag: str | None, number: int, status: int
) -> None:
    storage = f"/api/object-storage/{platform.connector_id}"
    name = {"object_name": object_name(platform).json()["object_name"]}
    begun = call(platform, "POST", f"{storage}/init_multipart_upload", json={**name, "content_type": "a/b"})
    upload = {**name, "upload_id": begun.json()["upload_id"]}
    part = call(platform, "POST", f"{storage}/generate_part_presigned_url", json={**upload, "part_no": 1})
    put = requests.put(part.json()["url"], data=b"abc", timeout=10)
    parts = [{"ETag": etag or put.headers["ETag"], "PartNumber": number}]
    done = call(platform, "POST", f"{storage}/complete_part_upload", json={**upload, "parts": parts})
    assert done.status_code == status
    assert platform.objects == ({name["object_name"]: b"abc"} if status == 200 else {})


def test_seeds_are_as_strict_as_the_wire(platform: Standin) -> None:
    with pytest.raises(RefusedError):
        platform.add_model_version("m", "v1", docker_image_name="x")
    platform.add_model_version("m", "v1")
    with pytest.raises(RefusedError):
        platform.add_model_version("m", "v1")
    with pytest.raises(RefusedError):
        platform.add_experiment("p", "e", base_version="m/v2")


# What a test can do to it.


def test_failures_are_injected_as_often_as_asked(platform: Standin) -> None:
    platform.fail("GET", "/ping$", status=503, times=2, headers={"Retry-After": "1"})
    answers = [call(platform, "GET", "/api/home/ping") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "1"
    assert [request.status for request in platform.requests] == [503, 503, 200]


def test_a_failure_after_the_effect_loses_only_the_answer(platform: Standin) -> None:
    platform.fail("POST", "/models$", status=0, after=True)
    path = f"/api/organization/{platform.organization_id}/models"
    with pytest.raises(requests.ConnectionError):
        call(platform, "POST", path, json={"name": "m", "description": ""})
    assert [model.name for model in platform.models.values()] == ["m"]


@pytest.mark.parametrize(("cut", "made"), [("request", []), ("answer", ["m"])])
def test_a_connection_is_cut_half_way_through_a_body(platform: Standin, cut: str, made: list[str]) -> None:
    platform.fail("POST", "/models$", cut=cut)
    path = f"/api/organization/{platform.organization_id}/models"
    body = {"name": "m", "description": "long " * 100_000}
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        call(platform, "POST", path, json=body)
    assert [model.name for model in platform.models.values()] == made


def test_a_revoked_token_is_refused(platform: Standin) -> None:
    answer = requests.post(f"{platform.url}/_standin/revoke", timeout=10).json()
    revoked = {"Authorization": "Bearer of the old token"}
    assert requests.get(f"{platform.url}/api/home/ping", headers=revoked, timeout=10).status_code == 401
    assert answer["token"] == platform.token
    assert call(platform, "GET", "/api/home/ping").status_code == 200


def test_a_stopped_platform_refuses_and_a_started_one_remembers(platform: Standin) -> None:
    platform.add_model_version("m", "v1")
    platform.stop()
    with pytest.raises(requests.ConnectionError):
        call(platform, "GET", "/api/home/ping")
    platform.start()
    path = f"/api/organization/{platform.organization_id}/models"
    assert call(platform, "GET", path).json()["count"] == 1


def test_a_process_of_its_own_is_seeded_broken_and_read_over_http(tmp_path: Path) -> None:
    seed = tmp_path / "seed.json"
    base = {"model": "m", "version": "v1", "parameters": {"epochs": 3}, "files": {"w": "abc"}}
    seed.write_text(json.dumps({"versions": [base]}))
    command = [sys.executable, "-m", "picsellia_standin", "--token", "known", "--seed", str(seed)]
    folder = Path(picsellia_standin.__file__).parent.parent
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        control = f"{ready['url']}/_standin"
        more = {"experiments": [{"project": "p", "name": "e", "base_version": "m/v1"}], "jobs": [{}]}
        seeded = requests.post(f"{control}/seed", json=more, timeout=10).json()
        fault = {"method": "GET", "path_regex": "/ping$", "status": 500}
        assert requests.post(f"{control}/fail", json=fault, timeout=10).status_code == 200
        assert requests.get(f"{ready['url']}/api/home/ping", timeout=10).status_code == 500
        state = requests.get(f"{control}/state", timeout=10).json()
        (experiment,) = (state["experiments"][id] for id in seeded["experiments"])
        stored = experiment["artifacts"]["w"]["object_name"]
        content = requests.get(f"{control}/objects/{stored}", timeout=10).content
        process.terminate()
    assert process.returncode == 0
    assert ready["token"] == state["token"] == "known"
    assert experiment["logs"]["parameters"] == {"type": "TABLE", "data": {"epochs": 3}}
    assert content == b"abc"
    (request,) = state["requests"]
    assert request.items() >= {"method": "GET", "path": "/api/home/ping", "status": 500}.items()
    assert list(state["versions"]) == ready["versions"]
    assert list(state["jobs"]) == seeded["jobs"]


def test_a_delay_holds_answers_back(platform: Standin) -> None:
    platform.delay = 60
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{platform.url}/api/home/ping", timeout=0.3)


def test_images_go_through_the_datalake_into_a_dataset_version(
    platform: Standin, client: Any, tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    PIL.Image.new("RGB", (5, 4)).save(image)
    version = client.create_dataset("street").create_version("1", type="OBJECT_DETECTION")
    data = client.get_datalake().upload_data(image)
    version.add_data(data)
    asset = version.list_assets()[0]
    assert (asset.filename, asset.width, asset.height) == ("a.png", 5, 4)
    with pytest.raises(exceptions.ResourceConflictError):
        client.create_dataset("street")
    with pytest.raises(exceptions.ResourceConflictError):
        client.get_dataset("street").create_version("1")
    data.delete()
    version.delete()
    client.get_dataset("street").delete()
    assert (platform.data, platform.datasets, platform.dataset_origins) == ({}, {}, {})


def test_a_dataset_is_detached_whatever_its_aliases(platform: Standin, client: Any) -> None:
    platform.add_dataset("street", "1")
    version = client.get_dataset("street").get_version("1")
    experiment = client.get_experiment_by_id(platform.add_experiment("project", "e"))
    experiment.attach_dataset("train", version)
    experiment.attach_dataset("test", version)
    with pytest.raises(exceptions.ResourceConflictError):
        experiment.attach_dataset("test", version)
    experiment.detach_dataset(version)
    assert experiment.get_attached_dataset_versions() == {}
