"""Inputs from the platform, through the real SDK: files of a ModelVersion and attached datasets."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from container_root import ContainerRoot, Ended
from picsellia_standin import Standin
from trainpack_entrypoint.platform.download.journal import Journal
from trainpack_entrypoint.platform.download.links import Item, why
from trainpack_entrypoint.platform.inputs import local_names

LARGE = os.urandom(3 << 20)
IMPATIENT = {"TRAINPACK_CONNECT_TIMEOUT": "0.5"}
QUICK = (
    "import trainpack_entrypoint.platform.transport as transport\n"
    "transport.Backoff.after = lambda self, error: max(transport._retry_after(error), 0.02)\n"
)
SHOW = """
    import json, os
    from pathlib import Path
    inputs = Path(os.environ["TRAINPACK_INPUTS"])
    names = [path for folder in (inputs / "files", inputs / "datasets")
             for path in sorted(folder.rglob("*")) if path.is_file()]
    print(json.dumps({str(path.relative_to(inputs)): path.stat().st_size for path in names}))
"""
BOX = {"rectangles": [{"label": "car", "x": 1, "y": 2, "w": 3, "h": 4}]}


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    container = ContainerRoot(tmp_path)
    container.script(SHOW)
    return container


def experiment_with(
    platform: Standin,
    files: Mapping[str, bytes | str] | None = None,
    datasets: Mapping[str, str] | None = None,
    **more: Any,
) -> str:
    version = platform.add_model_version("detector", "v1", files=files or {})
    return platform.add_experiment("traffic", "first", base_version=version, datasets=datasets, **more)


def run(
    container: ContainerRoot, platform: Standin, experiment: str, setup: str = QUICK, **env: str
) -> Ended:
    return container.run(env=environment(platform, experiment) | env, setup=setup)


def environment(platform: Standin, experiment: str) -> dict[str, str]:
    return {"api_token": platform.token, "host": platform.url, "experiment_id": experiment}


def inputs(container: ContainerRoot) -> Path:
    return container.root / "workspace/inputs"


def shown(ended: Ended) -> dict[str, int]:
    assert ended.code == 0, ended.told
    document = json.loads(ended.stdout)
    assert isinstance(document, dict)
    return document


def served(platform: Standin) -> int:
    """How many bytes of content storage gave, without those that only asked for a size."""
    return sum(request.sent for request in downloads(platform))


def downloads(platform: Standin) -> list[Any]:
    return [
        request
        for request in platform.requests
        if request.method == "GET"
        and request.path.startswith("/storage/")
        and request.range != "bytes=0-0"
        and request.status in (200, 206)
    ]


# Files.


def test_the_files_of_the_base_version_are_inputs(platform: Standin, container: ContainerRoot) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE, "config.yaml": "a: 1", "empty": ""})
    ended = run(container, platform, experiment)
    assert shown(ended) == {"files/weights.pt": len(LARGE), "files/config.yaml": 4, "files/empty": 0}
    assert (inputs(container) / "files/weights.pt").read_bytes() == LARGE
    assert "inputs: 3 files to download, 3.1 MB" in ended.told
    assert "inputs: 3 files, 3.1 MB in" in ended.told
    assert "signature" not in ended.told


def test_a_file_of_the_experiment_stands_in_for_the_versions_of_the_same_name(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": "version", "config.yaml": "a: 1"})
    artifacts = platform.experiments[experiment].artifacts
    artifacts["weights.pt"] = platform.add_file("weights.pt", "weights.pt", b"experiment's")
    artifacts["results.csv"] = platform.add_file("results.csv", "results.csv", b"of an earlier run")
    ended = run(container, platform, experiment)
    assert shown(ended) == {"files/weights.pt": 12, "files/config.yaml": 4}
    assert "file weights.pt: the experiment's own, in place of its ModelVersion's" in ended.told


def test_mounted_files_win_by_name_and_are_not_downloaded(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE, "config.yaml": "a: 1"})
    container.mount("files/weights.pt", "mounted")
    container.mount("files/more/notes.txt", "notes")
    ended = run(container, platform, experiment)
    assert shown(ended) == {"files/weights.pt": 7, "files/config.yaml": 4}
    assert (inputs(container) / "files/more/notes.txt").read_text() == "notes"
    assert served(platform) == 4


def test_files_that_share_a_file_name_are_told_apart_by_their_names(
    platform: Standin, container: ContainerRoot
) -> None:
    version = platform.versions[platform.add_model_version("detector", "v1")]
    for name in ("model.pt", "runs/best/model.pt", "latest"):
        version.files[name] = platform.add_file(name, "model.pt", name.encode())
    experiment = platform.add_experiment("traffic", "first", base_version=version.id)
    shown(run(container, platform, experiment))
    files = inputs(container) / "files"
    assert (files / "runs/best/model.pt").read_text() == "runs/best/model.pt"
    assert (files / "latest/model.pt").read_text() == "latest"
    # `model.pt` is no folder of another, and stays.
    assert (files / "model.pt").read_text() == "model.pt"


HOSTILE = [
    "../outside",
    "/etc/outside",
    "a/../../outside",
    "..",
    ".",
    "a//b",
    "nul\x00byte",
    "new\nline",
    "x" * 300 + ".pt",
    "\ud800.pt",
]


def test_no_name_leads_out_of_the_folder(platform: Standin, container: ContainerRoot) -> None:
    version = platform.versions[platform.add_model_version("detector", "v1")]
    expected = {}
    for number, name in enumerate(HOSTILE):
        version.files[f"hostile{number}"] = stored = platform.add_file(f"hostile{number}", "safe", b"hostile")
        stored.filename = name
        expected[f"files/{stored.id}{Path(name).suffix[:4]}"] = 7
    experiment = platform.add_experiment("traffic", "first", base_version=version.id)
    assert shown(run(container, platform, experiment)) == expected
    assert not list(container.root.parent.rglob("outside"))


def test_names_that_collide_are_replaced_by_ids_with_their_extension() -> None:
    wanted = {"1": "a.png", "2": "a.png", "3": "b.png", "4": "b.png/c.png", "5": "1.png", "6": "6.png"}
    assert local_names(wanted) == {
        "1": "1.png",
        "2": "2.png",
        "3": "3.png",
        "4": "b.png/c.png",
        "5": "5.png",
        "6": "6.png",
    }


# Datasets.


def test_a_declared_dataset_comes_from_the_experiment_with_images_and_annotations(
    platform: Standin, container: ContainerRoot
) -> None:
    platform.add_dataset(
        "roads",
        labels=["person", "car"],
        assets=[
            {"filename": "a.png", "content": "first", "shapes": BOX},
            {"filename": "b.png", "content": "second", "shapes": {}},
            {"filename": "c.png", "content": "not annotated"},
        ],
    )
    experiment = experiment_with(
        platform, datasets={"train": "roads/v1"}, labelmap={"0": "car", "1": "person"}
    )
    container.bake(data={"train": "data/train"})
    container.script("""
        import json
        from pathlib import Path
        folder = Path("data/train")
        print(json.dumps({
            "images": {path.name: path.read_text() for path in (folder / "images").iterdir()},
            "coco": json.loads((folder / "annotations.json").read_text()),
        }))
    """)
    ended = run(container, platform, experiment)
    assert ended.code == 0, ended.told
    received = json.loads(ended.stdout)
    assert received["images"] == {"a.png": "first", "b.png": "second", "c.png": "not annotated"}
    coco = received["coco"]
    assert sorted(image["file_name"] for image in coco["images"]) == ["a.png", "b.png"]
    # The labelmap's indices, not the order in which the platform has the labels.
    assert [(each["id"], each["name"]) for each in coco["categories"]] == [(0, "car"), (1, "person")]
    (box,) = coco["annotations"]
    image = next(each for each in coco["images"] if each["id"] == box["image_id"])
    assert image["file_name"] == "a.png"
    assert (box["id"], box["category_id"], box["bbox"], box["area"]) == (1, 0, [1, 2, 3, 4], 12)
    assert "%|" not in ended.told, "progress bars of the SDK"


def test_images_of_the_same_name_are_all_there_and_annotations_name_the_right_one(
    platform: Standin, container: ContainerRoot
) -> None:
    id = platform.add_dataset(
        "roads",
        labels=["car"],
        assets=[
            {"filename": "a.png", "content": "first", "shapes": BOX},
            {"filename": "a.png", "content": "second"},
            {"filename": "../up.png", "content": "third", "shapes": {}},
        ],
    )
    experiment = experiment_with(platform, datasets={"train": "roads/v1"})
    container.bake(data={"train": "data/train"})
    ended = run(container, platform, experiment)
    folder = inputs(container) / "datasets/train"
    names = {path.name: path.read_text() for path in (folder / "images").iterdir()}
    first, second, third = (f"{asset.id}.png" for asset in platform.datasets[id].assets)
    assert names == {first: "first", second: "second", third: "third"}
    coco = json.loads((folder / "annotations.json").read_text())
    assert {image["file_name"] for image in coco["images"]} == {first, third}
    assert f"3 names stand twice or cannot be a file's: 'a.png' is {first}" in ended.told


def test_a_dataset_without_annotations_has_no_annotation_file(
    platform: Standin, container: ContainerRoot
) -> None:
    platform.add_dataset("roads", assets=[{"filename": "a.png", "content": "x"}])
    experiment = experiment_with(platform, datasets={"train": "roads/v1"})
    container.bake(data={"train": "data/train"})
    assert shown(run(container, platform, experiment)) == {"datasets/train/images/a.png": 1}


def test_a_labelmap_that_lacks_a_label_is_a_warning_and_numbers_stay(
    platform: Standin, container: ContainerRoot
) -> None:
    asset = {"filename": "a.png", "content": "x", "shapes": BOX}
    platform.add_dataset("roads", labels=["person", "car"], assets=[asset])
    experiment = experiment_with(platform, datasets={"train": "roads/v1"}, labelmap={"0": "car"})
    container.bake(data={"train": "data/train"})
    ended = run(container, platform, experiment)
    assert "warning: dataset 'train': the labelmap has no 'person'" in ended.told
    coco = json.loads((inputs(container) / "datasets/train/annotations.json").read_text())
    assert [each["name"] for each in coco["categories"]] == ["person", "car"]
    assert coco["annotations"][0]["category_id"] == 1


def test_a_mounted_dataset_is_taken_and_an_undeclared_one_is_not_downloaded(
    platform: Standin, container: ContainerRoot
) -> None:
    platform.add_dataset("roads", assets=[{"filename": "a.png", "content": "x"}])
    experiment = experiment_with(platform, datasets={"train": "roads/v1", "other": "roads/v1"})
    container.bake(data={"train": "data/train"})
    container.mount("datasets/train/mine.png", "mine")
    ended = run(container, platform, experiment)
    assert ended.code == 0
    assert "attached but not in [data], and so not downloaded: 'other'" in ended.told
    assert served(platform) == 0
    assert (inputs(container) / "datasets/train/mine.png").read_text() == "mine"


def test_a_dataset_that_nobody_gives_names_all_three_ways(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    container.bake(data={"train": "data/train"})
    ended = run(container, platform, experiment)
    assert ended.code == 66
    assert "not mounted at " in ended.told
    assert "--data train=DIR" in ended.told
    assert "not in the image at data/train, not attached to the experiment" in ended.told
    assert served(platform) == 0
    assert "not given by an experiment, as there is none" in container.run().told


def test_an_empty_dataset_is_a_missing_input(platform: Standin, container: ContainerRoot) -> None:
    platform.add_dataset("roads")
    experiment = experiment_with(platform, datasets={"train": "roads/v1"})
    container.bake(data={"train": "data/train"})
    ended = run(container, platform, experiment)
    assert (ended.code, ended.failure["cause"]) == (66, "missing-input")
    assert "dataset 'train': NoDataError: No asset retrieved" in ended.told


def test_annotations_survive_short_failures_of_the_platform(
    platform: Standin, container: ContainerRoot
) -> None:
    assets = [{"filename": f"{n}.png", "content": "x", "shapes": BOX} for n in range(250)]
    platform.add_dataset("roads", labels=["car"], assets=assets)
    experiment = experiment_with(platform, datasets={"train": "roads/v1"})
    container.bake(data={"train": "data/train"})
    platform.fail("XGET", "/annotations$", status=503, times=2)
    platform.fail("GET", "/assets$", status=500, times=1)
    ended = run(container, platform, experiment)
    assert ended.code == 0
    assert "no answer" not in ended.told, "one chunk that fails must not undo the others"
    coco = json.loads((inputs(container) / "datasets/train/annotations.json").read_text())
    assert len(coco["annotations"]) == 250


# What goes wrong on the way.


def test_a_broken_download_goes_on_where_it_stopped(platform: Standin, container: ContainerRoot) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    platform.fail("GET", "/storage/", cut_after=1 << 20, times=3)
    shown(run(container, platform, experiment))
    assert (inputs(container) / "files/weights.pt").read_bytes() == LARGE
    # The question for the size is the first to be cut; it is too short for that.
    assert [request.range for request in downloads(platform)] == [
        None,
        f"bytes={1 << 20}-",
        f"bytes={2 << 20}-",
    ]
    assert served(platform) == len(LARGE)


def test_a_restarted_container_goes_on_with_a_file_and_keeps_what_is_complete(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE, "config.yaml": "a: 1"})
    platform.fail("GET", "weights.pt$", cut_after=1 << 20, times=2)
    platform.fail("GET", "weights.pt$", status=503, times=None, after=True)
    ended = run(container, platform, experiment, **IMPATIENT)
    assert (ended.code, ended.failure["cause"]) == (69, "platform")
    assert "file weights.pt: nothing arrived for 0.5 s: HTTPError: storage answers 503" in ended.told
    assert ended.stdout == b""
    platform.faults.clear()
    platform.requests.clear()
    shown(run(container, platform, experiment))
    assert (inputs(container) / "files/weights.pt").read_bytes() == LARGE
    assert served(platform) == len(LARGE) - (1 << 20)
    platform.requests.clear()
    ended = run(container, platform, experiment)
    assert shown(ended)["files/weights.pt"] == len(LARGE)
    assert served(platform) == 0
    assert "inputs: 0 files to download, 0 B; 2 are here already" in ended.told


def test_a_kept_file_that_somebody_changed_is_fetched_again(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": b"12345"})
    run(container, platform, experiment)
    (inputs(container) / "files/weights.pt").write_bytes(b"54321")
    (inputs(container) / "files/left.pt").write_bytes(b"of somebody")
    run(container, platform, experiment)
    assert (inputs(container) / "files/weights.pt").read_bytes() == b"12345"
    assert not (inputs(container) / "files/left.pt").exists()


def test_a_workspace_that_is_used_without_a_platform_has_nothing_of_it_left(
    platform: Standin, container: ContainerRoot
) -> None:
    platform.add_dataset("roads", assets=[{"filename": "a.png", "content": "x"}])
    experiment = experiment_with(platform, {"weights.pt": "x"}, datasets={"train": "roads/v1"})
    container.bake(data={"train": "data/train"})
    assert len(shown(run(container, platform, experiment))) == 2
    container.bake()
    assert shown(container.run()) == {}
    container.mount("files/mine.pt", "mine")
    container.mount("datasets/train/mine.png", "mine")
    container.bake(data={"train": "data/train"})
    assert container.run().code == 0
    for folder, name in (("files", "mine.pt"), ("datasets/train", "mine.png")):
        assert [path.name for path in (inputs(container) / folder).iterdir()] == [name]
    # And back again: what is mounted wins, the rest is fetched.
    assert shown(run(container, platform, experiment)) == {"files/mine.pt": 4, "files/weights.pt": 1}


def test_a_kept_file_that_changed_on_the_platform_is_fetched_again(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": b"12345"})
    run(container, platform, experiment)
    (name,) = platform.experiments[experiment].artifacts
    platform.objects[platform.experiments[experiment].artifacts[name].object_name] = b"54321"
    run(container, platform, experiment)
    assert (inputs(container) / "files/weights.pt").read_bytes() == b"54321"


def test_a_file_that_changes_between_two_ranges_is_fetched_from_its_start(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    object_name = platform.experiments[experiment].artifacts["weights.pt"].object_name
    platform.fail("GET", "weights.pt$", cut_after=1 << 20, times=2)
    platform.fail("GET", "weights.pt$", status=503, times=None, after=True)
    run(container, platform, experiment, **IMPATIENT)
    assert next((inputs(container) / ".downloads").glob("*.part")).stat().st_size == 1 << 20
    platform.faults.clear()
    platform.requests.clear()
    other = platform.objects[object_name] = bytes(reversed(LARGE))
    shown(run(container, platform, experiment))
    (request,) = downloads(platform)
    assert (request.range, request.status) == (f"bytes={1 << 20}-", 200)
    assert (inputs(container) / "files/weights.pt").read_bytes() == other


def test_without_an_etag_a_broken_download_starts_again(platform: Standin, container: ContainerRoot) -> None:
    platform.etags = False
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    platform.fail("GET", "weights.pt$", cut_after=1 << 20, times=2)
    shown(run(container, platform, experiment))
    assert (inputs(container) / "files/weights.pt").read_bytes() == LARGE
    assert [request.range for request in downloads(platform)] == [None, None]


class Remote:
    object_name = url = "o"

    def reset_url(self) -> str:
        return self.url


def test_content_of_another_length_is_not_put_in_place(tmp_path: Path) -> None:
    item = Item("file a", str(tmp_path / "a"), Remote())
    journal = Journal(str(tmp_path), [item])
    journal.begin(item, {})
    Path(journal.part(item.path)).write_bytes(b"123")
    assert journal.finish(item, 4) == "3 bytes came of 4"
    assert not (tmp_path / "a").exists()
    assert journal.finish(item, 3) is None


@pytest.mark.parametrize("rest", [b"", b"{", b'["a"]\n', b"[1, 2, 3, 4, 5, 6]\n", b"\xff\n"])
def test_a_journal_with_a_torn_line_keeps_the_others(tmp_path: Path, rest: bytes) -> None:
    item = Item("file a", str(tmp_path / "a"), Remote())
    journal = Journal(str(tmp_path), [item])
    journal.begin(item, {})
    Path(journal.part(item.path)).write_bytes(b"123")
    assert journal.finish(item, 3) is None
    journal.close()
    with (tmp_path / ".downloads/journal.jsonl").open("ab") as file:
        file.write(rest)
    assert Journal(str(tmp_path), [item]).is_complete(item)


def test_after_a_torn_line_of_the_journal_nothing_is_fetched_again(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    run(container, platform, experiment)
    with (inputs(container) / ".downloads/journal.jsonl").open("ab") as file:
        file.write(b"{")
    platform.requests.clear()
    shown(run(container, platform, experiment))
    assert served(platform) == 0


def test_everything_came_but_the_container_was_killed_before_it_was_put_in_place(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    killed = QUICK + "import os; os.replace = lambda *_: os._exit(137)"
    assert run(container, platform, experiment, setup=killed).code == 137
    platform.requests.clear()
    shown(run(container, platform, experiment))
    assert (inputs(container) / "files/weights.pt").read_bytes() == LARGE
    assert served(platform) == 0
    assert 416 in {request.status for request in platform.requests}


def test_an_expired_url_is_renewed_and_the_download_goes_on(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    platform.fail("GET", "weights.pt$", cut_after=1 << 20, times=2)
    platform.fail("GET", "weights.pt$", status=403, times=1, after=True)
    shown(run(container, platform, experiment))
    assert [request.range for request in downloads(platform)] == [None, f"bytes={1 << 20}-"]
    assert served(platform) == len(LARGE)
    assert [request.path for request in platform.requests].count(
        f"/api/object-storage/{platform.connector_id}/retrieve_presigned_url"
    ) == 1


def test_every_url_of_a_dataset_may_expire(platform: Standin, container: ContainerRoot) -> None:
    assets = [{"filename": f"{n}.png", "content": "x"} for n in range(20)]
    id = platform.add_dataset("roads", assets=assets)
    experiment = experiment_with(platform, datasets={"train": "roads/v1"})
    container.bake(data={"train": "data/train"})
    for asset in platform.datasets[id].assets:
        platform.fail("GET", asset.object_name, status=403, times=1)
    assert len(shown(run(container, platform, experiment))) == 20
    assert sum(request.path.endswith("/presigned-url") for request in platform.requests) == 20


def test_a_presigned_url_is_never_told_whole() -> None:
    error = requests.ConnectionError(
        "Max retries exceeded with url: /b/o?X-Amz-Signature=ab12&e=1 (Caused by x)"
    )
    assert why(error) == "ConnectionError: Max retries exceeded with url: /b/o?… (Caused by x)"


def test_storage_that_refuses_a_fresh_url_ends_with_66(platform: Standin, container: ContainerRoot) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE, "b": "b"})
    platform.fail("GET", "weights.pt$", status=403, times=None)
    ended = run(container, platform, experiment)
    assert (ended.code, ended.failure["problems"]) == (66, ["file weights.pt: storage answers 403"])


def test_every_object_that_is_gone_is_named_before_the_first_byte(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"a": "a", "b": "b", "c": LARGE})
    for name in "ab":
        del platform.objects[platform.experiments[experiment].artifacts[name].object_name]
    ended = run(container, platform, experiment)
    assert ended.code == 66
    assert ended.failure["problems"] == ["file a: storage answers 404", "file b: storage answers 404"]
    assert served(platform) == 0


@pytest.mark.parametrize(
    "header", ["content-md5", "x-goog-hash", "x-amz-checksum-sha256", "x-amz-checksum-crc32"]
)
def test_a_wrong_checksum_is_fetched_again_and_ends_with_66_when_it_stays_wrong(
    platform: Standin, container: ContainerRoot, header: str
) -> None:
    platform.checksums = {header}
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    fetch = "import trainpack_entrypoint.platform.download.fetch as d"
    whole = f"{fetch}; d._sizes = lambda items, link: [1] * len(items)"
    platform.fail("GET", "weights.pt$", corrupt=True, times=2)
    shown(run(container, platform, experiment, setup=QUICK + whole))
    assert (inputs(container) / "files/weights.pt").read_bytes() == LARGE
    (inputs(container) / "files/weights.pt").unlink()
    platform.fail("GET", "weights.pt$", corrupt=True, times=None)
    ended = run(container, platform, experiment, setup=QUICK + whole)
    assert ended.code == 66
    assert "file weights.pt: its " in ended.told
    assert "checksum is not the one that storage gives, 3 times" in ended.told
    assert not (inputs(container) / "files/weights.pt").exists()


def test_short_failures_of_storage_are_waited_for(platform: Standin, container: ContainerRoot) -> None:
    experiment = experiment_with(platform, {f"{n}.bin": "x" for n in range(20)})
    platform.fail("GET", "/storage/", status=429, times=3, headers={"Retry-After": "0"})
    platform.fail("GET", "/storage/", status=0, times=3)
    platform.fail("GET", "/storage/", status=500, times=3)
    assert len(shown(run(container, platform, experiment))) == 20


def test_storage_says_how_long_to_wait(platform: Standin, container: ContainerRoot) -> None:
    experiment = experiment_with(platform, {"weights.pt": "x"})
    platform.fail("GET", "/storage/", status=429, times=1, headers={"Retry-After": "1"})
    begun = time.monotonic()
    shown(run(container, platform, experiment))
    assert time.monotonic() - begun > 1


def test_a_token_that_is_refused_meanwhile_ends_with_78(platform: Standin, container: ContainerRoot) -> None:
    experiment = experiment_with(platform, {"weights.pt": "x"})
    platform.fail("GET", "/modelfiles", status=401, times=None)
    assert run(container, platform, experiment).code == 78


def test_a_platform_that_goes_away_ends_with_69(platform: Standin, container: ContainerRoot) -> None:
    experiment = experiment_with(platform, {"weights.pt": "x"})
    platform.fail("GET", "/modelfiles", status=503, times=None)
    setup = f"{QUICK}import trainpack_entrypoint.platform.inputs as p; p._RETRIES = 0"
    ended = run(container, platform, experiment, setup=setup, **IMPATIENT)
    assert ended.code == 69
    assert "files of the ModelVersion: the platform did not answer within 0.5 s" in ended.told


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    small = """
import os
class Small:
    f_blocks, f_bfree, f_bavail, f_frsize = 100, 10, 10, 4096
os.statvfs = lambda path: Small
"""
    ended = run(container, platform, experiment, setup=QUICK + small)
    assert (ended.code, ended.failure["cause"]) == (74, "disk-full")
    assert "the inputs need 3.1 MB more and " in ended.told
    assert "has 41.0 kB free; mount a volume" in ended.told
    assert served(platform) == 0


def test_a_disk_that_fills_up_meanwhile_says_how_much_room_there_is(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    limited += "; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    ended = run(container, platform, experiment, setup=QUICK + limited)
    assert ended.code == 74
    assert "file weights.pt: File too large; " in ended.told
    assert " free" in ended.told


@pytest.mark.parametrize("place", ["storage", "listing"])
def test_sigterm_ends_a_download_at_once(platform: Standin, container: ContainerRoot, place: str) -> None:
    experiment = experiment_with(platform, {"weights.pt": LARGE})
    if place == "storage":
        platform.body_delay = 1.0
    else:
        platform.fail("GET", "/modelfiles", status=503, times=None)
    process = container.start(env=environment(platform, experiment))
    wanted = "/storage/" if place == "storage" else "/modelfiles"
    deadline = time.monotonic() + 20
    while not any(wanted in request.path for request in list(platform.requests)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    ended = container.ended(process)
    assert ended.code == 143
    assert time.monotonic() - sent < 3
    assert platform.experiments[experiment].statuses[-1] == "TERMINATED"


@pytest.mark.slow
def test_five_thousand_images_are_fetched_in_parallel_and_soon(
    platform: Standin, container: ContainerRoot
) -> None:
    assets = [{"filename": f"{n:05}.png", "content": f"{n:05}", "shapes": BOX} for n in range(5000)]
    platform.add_dataset("roads", labels=["car"], assets=assets)
    experiment = experiment_with(platform, datasets={"train": "roads/v1"})
    container.bake(data={"train": "data/train"})
    container.script("")
    setup = f"{QUICK}import trainpack_entrypoint.platform.download.fetch as d; d.PROGRESS_SECONDS = 0.5"
    begun = time.monotonic()
    ended = run(container, platform, experiment, setup=setup)
    assert ended.code == 0, ended.told
    assert time.monotonic() - begun < 60
    folder = inputs(container) / "datasets/train"
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((folder / "images").iterdir())))
    assert content.digest() == hashlib.sha256(b"".join(f"{n:05}".encode() for n in range(5000))).digest()
    assert len(json.loads((folder / "annotations.json").read_text())["annotations"]) == 5000
    # A thousand questions for a size, not five thousand.
    assert len([r for r in platform.requests if r.range == "bytes=0-0"]) == 1000
    assert "inputs: 5000 files to download, about 25.0 kB" in ended.told
    assert " of 5000 files, " in ended.told
