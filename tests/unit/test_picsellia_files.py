"""Versions and their files on Picsellia, over the unmodified SDK, against the stand-in."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Standin, Version
from picsellia_standin.routes import page
from picsellia_store import FIELDS, VERSION, checkpoints, connect, secrets_in, tree, write
from trainpack_entrypoint.platform import packing

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.picsellia import PicselliaStore
from builder.models.picsellia.platform import Platform
from builder.models.records import VersionFields
from builder.models.store import ModelStore


@pytest.fixture
def store(platform: Standin) -> PicselliaStore:
    return connect(platform)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    return checkpoints(tmp_path)


def test_a_store_of_the_platform_is_a_model_store(store: PicselliaStore) -> None:
    checked: ModelStore = store
    assert (checked.name, list(checked.experiments.list()), list(checked.datasets.list())) == (
        "picsellia",
        [],
        [],
    )


def test_a_notebook_link_is_kept(store: PicselliaStore) -> None:
    assert store.versions.create(VERSION, FIELDS).fields == FIELDS


def test_a_stored_file_is_listed_and_comes_back(store: PicselliaStore, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    stored = store.versions.store_file(VERSION, write(tmp_path / "best.pt", b"weights"), "weights")
    assert (stored.name, stored.filename) == ("weights", "best.pt")
    assert store.versions.get(VERSION).files == (stored,)
    fetched = store.versions.fetch_file(VERSION, "weights", tmp_path / "into")
    assert fetched == tmp_path / "into/best.pt"
    assert tree(tmp_path / "into") == {"best.pt": b"weights"}


@pytest.mark.parametrize("content", [b"", b"x", bytes(26 * 1024 * 1024)], ids=["empty", "small", "in parts"])
def test_a_file_of_any_size_comes_back(store: PicselliaStore, tmp_path: Path, content: bytes) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file", content))
    fetched = store.versions.fetch_file(VERSION, "file", tmp_path / "into")
    assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(content).digest()


def test_a_folder_keeps_all_its_levels(store: PicselliaStore, deep: Path, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    stored = store.versions.store_file(VERSION, deep)
    assert (stored.name, stored.filename) == ("checkpoints", "checkpoints.zip")
    fetched = store.versions.fetch_file(VERSION, "checkpoints", tmp_path / "into")
    assert fetched == tmp_path / "into/checkpoints"
    assert tree(fetched) == tree(deep)
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["checkpoints"]


def test_a_folder_that_a_container_packed_comes_back_as_a_folder(
    store: PicselliaStore, deep: Path, tmp_path: Path
) -> None:
    paths = [f"checkpoints/{name}" for name, content in tree(deep).items() if content is not None]
    (artifact,) = packing.artifacts(str(deep.parent), paths)
    (tmp_path / "place").mkdir()
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, Path(artifact.pack(str(tmp_path / "place"))), "checkpoints")
    fetched = store.versions.fetch_file(VERSION, "checkpoints", tmp_path / "into")
    assert tree(fetched) == {name: content for name, content in tree(deep).items() if content is not None}


def test_a_zip_that_a_user_made_stays_a_zip(store: PicselliaStore, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "data.zip", b"PK\x05\x06" + bytes(18)))
    assert store.versions.fetch_file(VERSION, "data.zip", tmp_path / "into").name == "data.zip"


def test_a_file_of_the_same_name_is_replaced(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "old.pt", b"old"), "weights")
    store.versions.store_file(VERSION, write(tmp_path / "new.pt", b"new"), "weights")
    assert [file.filename for file in store.versions.get(VERSION).files] == ["new.pt"]
    assert store.versions.fetch_file(VERSION, "weights", tmp_path / "into").read_bytes() == b"new"


def test_a_file_that_is_not_there_is_told_with_those_that_are(store: PicselliaStore, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "weights"))
    with pytest.raises(NotFoundError, match=r"no file 'weight'.*weights") as caught:
        store.versions.fetch_file(VERSION, "weight", tmp_path / "into")
    assert caught.value.remedy == "it has: weights"


def test_nothing_that_exists_is_replaced_by_a_download(
    store: PicselliaStore, deep: Path, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    for path in (write(tmp_path / "weights"), deep):
        store.versions.store_file(VERSION, path)
        target = tmp_path / "into" / path.name
        write(target, b"mine")
        with pytest.raises(UsageError, match="exists already"):
            store.versions.fetch_file(VERSION, path.name, tmp_path / "into")
        assert target.read_bytes() == b"mine"


def test_what_cannot_be_read_is_a_usage_error_and_nothing_is_sent(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    with pytest.raises(UsageError, match="cannot be read"):
        store.versions.store_file(VERSION, tmp_path / "missing")
    assert platform.objects == {}


def test_a_broken_download_goes_on_where_it_broke_off(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4096
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file", content))
    platform.fail("GET", "/storage/", cut_after=700_000)
    platform.fail("GET", "/storage/", cut_after=1)
    assert store.versions.fetch_file(VERSION, "file", tmp_path / "into").read_bytes() == content


def test_what_is_not_as_storage_says_is_refused_and_nothing_stays(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file", b"content"))
    platform.checksums = {"x-amz-checksum-sha256"}
    platform.fail("GET", "/storage/", corrupt=True, times=None)
    with pytest.raises(StoreError, match="sha256 checksum") as caught:
        store.versions.fetch_file(VERSION, "file", tmp_path / "into")
    assert caught.value.place == str(VERSION)
    assert tree(tmp_path / "into") == {}


@pytest.mark.parametrize("status", [404, 500, 0])
def test_a_download_that_fails_leaves_nothing_and_shows_no_signature(
    store: PicselliaStore, platform: Standin, tmp_path: Path, status: int
) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file"))
    platform.fail("GET", "/storage/", status=status, times=None)
    with pytest.raises(StoreError) as caught:
        store.versions.fetch_file(VERSION, "file", tmp_path / "into")
    assert tree(tmp_path / "into") == {}
    assert not secrets_in(platform, "".join(traceback.format_exception(caught.value)))


def test_an_upload_that_is_refused_shows_no_signature_and_prints_nothing(
    store: PicselliaStore, platform: Standin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store.versions.create(VERSION, FIELDS)
    platform.fail("POST", "/storage/", status=403, times=None)
    with pytest.raises(StoreError, match="object storage answers 403") as caught:
        store.versions.store_file(VERSION, write(tmp_path / "file"))
    assert not secrets_in(platform, "".join(traceback.format_exception(caught.value)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("filename", ["../../evil", "..", "a/b", "/etc/passwd"])
def test_a_stored_file_cannot_lead_out_of_the_folder(
    store: PicselliaStore, platform: Standin, tmp_path: Path, filename: str
) -> None:
    id_ = platform.add_model_version("pedestrian", "v3", files={"weights": b"x"})
    platform.versions[id_].files["weights"].filename = filename
    with pytest.raises(StoreError, match="no file's name"):
        store.versions.fetch_file(VERSION, "weights", tmp_path / "into")


def test_a_thumbnail_is_kept(store: PicselliaStore, platform: Standin, tmp_path: Path) -> None:
    created = store.versions.create(VERSION, FIELDS)
    with pytest.raises(NotFoundError, match="no thumbnail"):
        store.versions.fetch_thumbnail(VERSION, tmp_path)
    stored = store.versions.store_thumbnail(VERSION, write(tmp_path / "street.png", b"png"))
    read = store.versions.get(VERSION)
    assert (read.thumbnail, read.fields, read.files) == (stored, created.fields, ())
    assert store.versions.fetch_thumbnail(VERSION, tmp_path / "into").read_bytes() == b"png"
    assert "/model_thumb/" in platform.versions[created.id].fields["thumbnail_object_name"]


def test_restore_empties_what_the_sdk_can_empty_and_shows_what_stays(store: PicselliaStore) -> None:
    store.versions.create(VERSION, FIELDS)
    restored = store.versions.restore(VERSION, VersionFields(framework="ONNX")).fields
    assert (restored.description, restored.labelmap or None, restored.parameters) == (None, None, {})
    assert restored.framework == "ONNX"
    assert (restored.type, restored.image) == (FIELDS.type, FIELDS.image)
    assert restored.notebook_link == FIELDS.notebook_link


def test_restore_is_one_patch_and_none_when_nothing_changes(store: PicselliaStore, platform: Standin) -> None:
    store.versions.create(VERSION, FIELDS)
    other = FIELDS.model_copy(update={"parameters": {"epochs": 1}, "description": "other"})
    assert store.versions.restore(VERSION, other).fields == other
    assert [request.method for request in platform.requests].count("PATCH") == 1


@pytest.mark.parametrize("kind", ["MASK", "NOT_CONFIGURED"])
def test_restore_leaves_a_type_that_the_sdk_refuses_to_write(store: PicselliaStore, kind: str) -> None:
    store.versions.create(VERSION, FIELDS)
    restored = store.versions.restore(VERSION, FIELDS.model_copy(update={"type": kind}))
    assert restored.fields.type == "OBJECT_DETECTION"


def test_the_platform_keeps_no_history(store: PicselliaStore) -> None:
    store.versions.create(VERSION, FIELDS)
    assert store.versions.history(VERSION) == ()
    with pytest.raises(NotFoundError):
        store.versions.history(replace(VERSION, version="v4"))


def test_names_that_would_be_read_as_others_are_refused(store: PicselliaStore, platform: Standin) -> None:
    for version in ("a/b", " ", "v\n"):
        with pytest.raises(UsageError):
            store.versions.create(replace(VERSION, version=version), FIELDS)
    assert not platform.models


def test_a_name_that_was_taken_meanwhile_is_told(store: PicselliaStore, platform: Standin) -> None:
    platform.add_model("pedestrian")
    platform.fail("POST", "/versions$", status=409, message="Conflict: v3")
    with pytest.raises(StoreError, match="the name is taken"):
        store.versions.create(VERSION, FIELDS)


def short_pages(monkeypatch: pytest.MonkeyPatch, default: int, longest: int) -> None:
    """The platform makes pages of a length of its own, and none longer than it likes."""

    def short(rows: Iterable[Any], query: Mapping[str, str]) -> dict[str, Any]:
        return page(rows, {**query, "limit": str(min(int(query.get("limit", default)), longest))})

    for module in ("models", "experiments", "datasets", "datalake"):
        monkeypatch.setattr(f"picsellia_standin.{module}.page", short)


def test_lists_are_read_over_all_pages_and_stay_in_order(
    store: PicselliaStore, platform: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_pages(monkeypatch, default=3, longest=7)
    for number in range(50):
        platform.add_model_version("many", f"v{number:02}", docker_image="i", docker_tag=str(number))
    found = list(store.versions.list("many"))
    assert [summary.name.version for summary in found] == [f"v{number:02}" for number in range(50)]
    assert [summary.image for summary in found] == [f"i:{number}" for number in range(50)]


def test_files_and_logs_are_read_over_all_pages(
    store: PicselliaStore, platform: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_pages(monkeypatch, default=2, longest=3)
    names = [f"f{number}" for number in range(8)]
    platform.add_model_version("pedestrian", "v3", files=dict.fromkeys(names, b""))
    assert [file.name for file in store.versions.get(VERSION).files] == names


def test_ten_thousand_versions_are_all_listed(
    store: PicselliaStore, platform: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_pages(monkeypatch, default=100, longest=1000)
    model = platform.add_model("many")
    fields = {"type": "POINT", "framework": "ONNX", "labels": None}
    for number in range(10_000):
        made = Version(str(uuid.uuid4()), model, f"v{number:05}", number, fields)
        platform.versions[made.id] = made
    rows = store_platform(store).rows(f"/api/model/{model.id}/versions")
    assert [row["name"] for row in rows] == [f"v{number:05}" for number in range(10_000)]
    assert sum(request.path.endswith("/versions") for request in platform.requests) == 11


def store_platform(store: PicselliaStore) -> Platform:
    return store._platform


def test_who_and_when_are_told_where_the_platform_tells_them(
    platform: Standin, store: PicselliaStore
) -> None:
    id_ = platform.add_model_version("pedestrian", "v3")
    assert store.versions.get(VERSION).created is None
    platform.versions[id_].fields |= {
        "created_at": "2024-05-01T10:00:00+02:00",
        "created_by": {"username": "ada"},
    }
    version = store.versions.get(VERSION)
    assert (version.creator, str(version.created)) == ("ada", "2024-05-01 08:00:00+00:00")


MEASURED = """
import resource, sys
from pathlib import Path
from builder.host.credentials import make_credentials
from builder.models.names import VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import VersionFields

store = PicselliaStore.connect(make_credentials({"token": sys.argv[1], "host": sys.argv[2]}, "the test"))
name = VersionName(store="picsellia", model="m", version="v")
store.versions.create(name, VersionFields())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[3:]):
    store.versions.store_file(name, path)
    store.versions.fetch_file(name, path.name, path.parent / "into")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_large_file_and_a_large_folder_need_no_memory_of_their_size(
    platform: Standin, tmp_path: Path
) -> None:
    paths = [tmp_path / "weights", tmp_path / "folder"]
    paths[1].mkdir()
    for path in (paths[0], paths[1] / "weights"):
        with path.open("wb") as file:
            file.truncate(100 * 2**20)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, platform.token, platform.url, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60  # MiB; the SDK sends parts of 25 MiB
    assert {path.stat().st_size for path in (tmp_path / "into").rglob("weights")} == {100 * 2**20}
