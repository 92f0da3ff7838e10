"""What the local store keeps in files: by content, whole after a kill, verified when read."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import StoreError, UsageError
from builder.models.local import blobs
from builder.models.local.store import LocalStore
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.records import DatasetFields, ExperimentFields, VersionFields

NAME = VersionName(model="pedestrian", version="v3")
EXPERIMENT = ExperimentName(project="roads", experiment="one")
DATASET = DatasetName(dataset="streets", version="v1")
KILLS, WRITERS = 12, 4
MEBIBYTE = 1024 * 1024
START = """
import resource
import sys
from pathlib import Path
from builder.models.local.store import LocalStore
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.records import DatasetFields, Log, VersionFields

folder, work, start = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
name = VersionName(model="pedestrian", version="v3")
experiment = ExperimentName(project="roads", experiment="one")
store = LocalStore(folder)
"""
# A number is printed once its write has returned. What is written under one number belongs together.
REPORTER = f"""{START}
for number in range(start, start + 100_000):
    for which in ("a", "b", "c"):
        (work / which).write_text(f"{{number}} " * 50_000)
    store.experiments.report(experiment, "RUNNING", [Log(name="number", type="VALUE", data=number)], work)
    print(number, flush=True)
"""
WRITER = f"""{START}
for number in range(20):
    path = work / f"{{start}}-{{number}}"
    path.write_text(f"{{start}}-{{number}} " * 1000)
    store.versions.store_file(name, path)
    store.versions.store_file(name, path, f"latest-{{start}}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[LocalStore]:
    with LocalStore(folder) as opened:
        opened.versions.create(NAME, VersionFields())
        opened.experiments.create(EXPERIMENT, ExperimentFields())
        yield opened


def start(script: str, folder: Path, work: Path, number: int) -> subprocess.Popen[str]:
    work.mkdir(exist_ok=True)
    command = [sys.executable, "-c", script, str(folder), str(work), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kept(folder: Path) -> dict[str, Path]:
    """Every content by the hash that it is called by."""
    return {path.name: path for path in folder.glob("blobs/sha256/*/*")}


def unfinished(folder: Path) -> list[Path]:
    return list(folder.glob("blobs/tmp/*"))


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def damage(path: Path) -> None:
    """Flip one bit."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_content_is_kept_once_under_its_hash_and_read_only(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    first, second = write(tmp_path / "first", "same"), write(tmp_path / "second", "same")
    stored = [store.versions.store_file(NAME, path) for path in (first, second)]
    expected = hashlib.sha256(b"same").hexdigest()
    assert [(file.sha256, file.size) for file in stored] == [(expected, 4)] * 2
    assert list(kept(folder)) == [expected]
    assert kept(folder)[expected].parent.name == expected[:2]
    assert kept(folder)[expected].stat().st_mode & 0o777 == 0o444
    assert unfinished(folder) == []


def test_the_same_folder_is_one_content_whenever_and_wherever_it_is_stored(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    for number, place in enumerate(("here", "there")):
        for name in ("b/2", "a") if number else ("a", "b/2"):
            os.utime(write(tmp_path / place / name, name), (number * 10**9, number * 10**9))
        store.versions.store_file(NAME, tmp_path / place)
    assert len(kept(folder)) == 1


def test_an_edit_of_what_was_fetched_does_not_reach_the_store(store: LocalStore, tmp_path: Path) -> None:
    store.versions.store_file(NAME, write(tmp_path / "weights", "content"))
    store.datasets.add(DATASET, DatasetFields(), write(tmp_path / "in" / "1.jpg", "content").parent)
    fetched = [
        store.versions.fetch_file(NAME, "weights", tmp_path / "out"),
        store.datasets.fetch(DATASET, tmp_path / "out") / "1.jpg",
    ]
    for path in fetched:
        path.write_text("edited")
    assert store.damaged() == ()


def test_a_link_is_stored_as_the_file_it_means_by_its_own_name(store: LocalStore, tmp_path: Path) -> None:
    write(tmp_path / "cache" / "0123", "weights")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.bin").symlink_to("../cache/0123")
    store.versions.store_file(NAME, tmp_path / "snapshot")
    assert store.versions.store_file(NAME, tmp_path / "snapshot" / "model.bin").filename == "model.bin"
    fetched = store.versions.fetch_file(NAME, "snapshot", tmp_path / "out") / "model.bin"
    assert not fetched.is_symlink()
    assert fetched.read_text() == "weights"


def test_the_folder_one_stands_in_is_stored_by_its_name(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "weights" / "a", "")
    monkeypatch.chdir(tmp_path / "weights")
    assert store.versions.store_file(NAME, Path()).filename == "weights.zip"


@pytest.mark.parametrize("label", ["", " padded", "new\nline"])
def test_a_label_that_cannot_be_shown_is_refused(store: LocalStore, tmp_path: Path, label: str) -> None:
    with pytest.raises(UsageError, match="cannot be a name"):
        store.versions.store_file(NAME, write(tmp_path / "weights", ""), label)


def test_a_run_may_leave_files_of_any_name_that_is_text(store: LocalStore, tmp_path: Path) -> None:
    write(tmp_path / "in" / " new\nline\t/ü ", "x")
    (file,) = store.experiments.report(EXPERIMENT, "SUCCESS", [], tmp_path / "in").artifacts
    assert store.experiments.fetch_artifact(EXPERIMENT, file.name, tmp_path / "out").read_text() == "x"
    write(tmp_path / "in" / "half \udc80 pair", "x")
    with pytest.raises(UsageError, match="not text that can be stored"):
        store.experiments.report(EXPERIMENT, "SUCCESS", [], tmp_path / "in")


def test_a_damaged_content_is_found_and_named_and_the_rest_can_be_used(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    bad = store.versions.store_file(NAME, write(tmp_path / "weights.pt", "weights" * 1000), "weights")
    store.versions.store_file(NAME, write(tmp_path / "config", "config"))
    damage(kept(folder)[str(bad.sha256)])
    with pytest.raises(StoreError, match=f"weights: .*is damaged.*expected {bad.sha256}") as caught:
        store.versions.fetch_file(NAME, "weights", tmp_path / "out")
    assert caught.value.place == str(NAME)
    assert list((tmp_path / "out").iterdir()) == []
    assert store.versions.fetch_file(NAME, "config", tmp_path / "out").read_text() == "config"
    (found,) = store.damaged()
    assert found.sha256 == bad.sha256
    assert [(str(holder.object), holder.file) for holder in found.holders] == [(str(NAME), "weights")]


def test_a_missing_content_is_named_too(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    bad = store.versions.store_file(NAME, write(tmp_path / "weights", "weights"))
    kept(folder)[str(bad.sha256)].unlink()
    with pytest.raises(StoreError, match=r"weights: .*No such file.*expected") as caught:
        store.versions.fetch_file(NAME, "weights", tmp_path / "out")
    assert caught.value.place == str(NAME)
    assert [found.sha256 for found in store.damaged()] == [bad.sha256]


def test_a_damaged_folder_leaves_nothing_half_written(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "sub" / "a", "a" * 10_000)
    bad = store.versions.store_file(NAME, tmp_path / "in")
    damage(kept(folder)[str(bad.sha256)])
    with pytest.raises(StoreError, match="is damaged"):
        store.versions.fetch_file(NAME, "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_asset_of_a_dataset_is_named_and_nothing_half_written_stays(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    for number in range(50):
        write(tmp_path / "in" / f"{number}.jpg", str(number))
    store.datasets.add(DATASET, DatasetFields(), tmp_path / "in")
    damage(kept(folder)[hashlib.sha256(b"17").hexdigest()])
    with pytest.raises(StoreError, match=r"17\.jpg: .*is damaged") as caught:
        store.datasets.fetch(DATASET, tmp_path / "out")
    assert caught.value.place == str(DATASET)
    assert list((tmp_path / "out").iterdir()) == []


def test_storing_the_file_again_mends_a_damaged_content(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    bad = store.versions.store_file(NAME, write(tmp_path / "weights", "weights"))
    damage(kept(folder)[str(bad.sha256)])
    store.versions.store_file(NAME, tmp_path / "weights")
    assert store.damaged() == ()


def test_everybody_who_has_a_content_is_found(store: LocalStore, tmp_path: Path) -> None:
    write(tmp_path / "in" / "same.jpg", "same")
    stored = store.versions.store_file(NAME, tmp_path / "in" / "same.jpg", "picture")
    store.experiments.report(EXPERIMENT, "SUCCESS", [], tmp_path / "in")
    store.datasets.add(DATASET, DatasetFields(), tmp_path / "in")
    assert [(holder.object, holder.file) for holder in store.holders(str(stored.sha256))] == [
        (DATASET, "same.jpg"),
        (EXPERIMENT, "same.jpg"),
        (NAME, "picture"),
    ]
    assert store.holders("0" * 64) == ()


def test_a_report_is_whole_or_not_there_after_a_kill(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    first, pause = 0, random.Random(7)
    for _ in range(KILLS):
        process = start(REPORTER, folder, tmp_path / "work", first)
        assert process.stdout
        returned = int(process.stdout.readline())
        time.sleep(pause.uniform(0, 0.03))  # at any point of a later write
        process.kill()
        lines = [line for line in process.stdout if line.endswith("\n")]
        process.wait(60)
        returned = int(lines[-1]) if lines else returned
        with LocalStore(folder) as opened:
            held = opened.experiments.get(EXPERIMENT)
            (log,) = held.logs
            assert log.data in (returned, returned + 1)
            expected = hashlib.sha256((f"{log.data} " * 50_000).encode()).hexdigest()
            assert [(file.name, file.sha256) for file in held.artifacts] == [
                (name, expected) for name in ("a", "b", "c")
            ]
            assert opened.damaged() == ()
        first = log.data + 1
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == name for name, path in kept(folder).items())


def test_processes_that_store_files_at_once_lose_none(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    processes = [start(WRITER, folder, tmp_path / "work", number) for number in range(WRITERS)]
    assert [process.wait(120) for process in processes] == [0] * WRITERS
    names = {f"{who}-{number}" for who in range(WRITERS) for number in range(20)}
    latest = {f"latest-{who}" for who in range(WRITERS)}
    assert {file.name for file in store.versions.get(NAME).files} == names | latest
    fetched = store.versions.fetch_file(NAME, "latest-2", tmp_path / "out")
    assert fetched.read_text() == "2-19 " * 1000
    assert store.damaged() == ()


def test_what_crashes_left_is_removed_once_it_is_a_day_old(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    used = store.versions.store_file(NAME, write(tmp_path / "used", "used"))
    replaced = store.versions.store_file(NAME, write(tmp_path / "first", "replaced"), "x")
    young = write(folder / "blobs" / "tmp" / "young", "of a write that goes on")
    old = write(folder / "blobs" / "tmp" / "old", "of a write that was killed")
    store.versions.store_file(NAME, write(tmp_path / "second", "in its place"), "x")
    yesterday = time.time() - blobs.DAY - 1
    for path in (old, *kept(folder).values(), folder / "blobs" / "swept"):
        os.utime(path, (yesterday, yesterday))
    recent = store.versions.store_file(NAME, write(tmp_path / "recent", "recent"))
    assert unfinished(folder) == [young]
    assert {used.sha256, recent.sha256} <= kept(folder).keys()
    assert replaced.sha256 not in kept(folder)
    assert store.damaged() == ()


def test_what_was_removed_before_it_was_referred_to_is_told_and_not_stored(
    store: LocalStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = blobs.Blobs.put_all

    def put_and_lose(*arguments: object) -> object:
        made = put(*arguments)  # type: ignore[arg-type]
        for path in kept(folder).values():
            path.unlink()
        return made

    monkeypatch.setattr(blobs.Blobs, "put_all", put_and_lose)
    with pytest.raises(StoreError, match="missing"):
        store.versions.store_file(NAME, write(tmp_path / "weights", "x"))
    assert store.versions.get(NAME).files == ()


def test_a_write_that_fails_half_way_leaves_no_file_behind(
    folder: Path, store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 4 * MEBIBYTE)
    script = f"""{START}
from builder.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, 1024 * 1024))
try:
    store.versions.store_file(name, work / "large")
except StoreError as error:
    print(error)
"""
    process = start(script, folder, tmp_path, 0)
    assert "the file cannot be stored: File too large" in process.communicate(timeout=60)[0]
    assert (kept(folder), unfinished(folder), store.versions.get(NAME).files) == ({}, [], ())


def test_memory_stays_flat_for_a_large_file(folder: Path, store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "large").open("wb") as file:
        file.truncate(400 * MEBIBYTE)
    script = f"""{START}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
store.versions.store_file(name, work / "in" / "large")
store.versions.store_file(name, work / "in")
store.versions.fetch_file(name, "large", work / "out")
store.versions.fetch_file(name, "in", work / "out")
print(peak() - before)
"""
    process = start(script, folder, tmp_path, 0)
    assert int(process.communicate(timeout=120)[0]) < 30
    assert (tmp_path / "out" / "in" / "large").stat().st_size == 400 * MEBIBYTE


def test_the_digest_of_a_dataset_can_be_computed_with_sha256sum(store: LocalStore, tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a.jpg", "b/10.jpg"):
        write(tmp_path / "in" / name, name)
    made = store.datasets.add(DATASET, DatasetFields(), tmp_path / "in")
    names = sorted(["b/2.jpg", "a.jpg", "b/10.jpg"])
    printed = subprocess.run(
        ["sha256sum", *names], cwd=tmp_path / "in", capture_output=True, check=True
    ).stdout
    assert made.digest == f"sha256:{hashlib.sha256(printed).hexdigest()}"


def test_a_dataset_version_that_shares_images_with_another_takes_no_more_room(
    store: LocalStore, folder: Path, tmp_path: Path
) -> None:
    for number in range(20):
        write(tmp_path / "in" / f"{number}.jpg", str(number))
    store.datasets.add(DATASET, DatasetFields(), tmp_path / "in")
    before = len(kept(folder))
    write(tmp_path / "in" / "new.jpg", "new")
    store.datasets.add(DatasetName(dataset="streets", version="v2"), DatasetFields(), tmp_path / "in")
    assert len(kept(folder)) == before + 1


def test_json_files_that_are_no_annotations_are_assets(store: LocalStore, tmp_path: Path) -> None:
    write(tmp_path / "in" / "1.jpg", "one")
    write(tmp_path / "in" / "camera.json", json.dumps({"focal": 1.5}))
    made = store.datasets.add(DATASET, DatasetFields(), tmp_path / "in")
    assert (made.assets, made.annotations, made.fields.labels) == (2, None, ())


def test_several_annotation_files_are_counted_together(store: LocalStore, tmp_path: Path) -> None:
    for split, label in (("train", "car"), ("val", "bus")):
        document = {
            "images": [{"id": 1}],
            "annotations": [{"image_id": 1, "category_id": 1}],
            "categories": [{"id": 1, "name": label}],
        }
        write(tmp_path / "in" / split / "_annotations.coco.json", json.dumps(document))
        write(tmp_path / "in" / split / "1.jpg", split)
    made = store.datasets.add(DATASET, DatasetFields(), tmp_path / "in")
    assert (made.assets, made.annotations, made.fields.labels) == (2, 2, ("car", "bus"))


def test_a_version_whose_name_means_another_folder_is_fetched_below_the_one_that_is_asked_for(
    store: LocalStore, tmp_path: Path
) -> None:
    name = DatasetName(dataset="../a/..", version="..")
    store.datasets.add(name, DatasetFields(), write(tmp_path / "in" / "1.jpg", "").parent)
    assert store.datasets.fetch(name, tmp_path / "out").parent == tmp_path / "out"
