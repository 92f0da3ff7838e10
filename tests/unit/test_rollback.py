"""Rollback: an attach is undone exactly, further with each call, and never over somebody's later change."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Standin

from builder.attach import attach
from builder.errors import NotFoundError, ReadBackError, StoreError, UsageError
from builder.host.credentials import make_credentials
from builder.models.compare import diff
from builder.models.journal import Entry, Journal, read_entry
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import DockerImage, ModelVersion, VersionFields
from builder.models.transport import Patience
from builder.rollback import Rollback, rollback

NAME = VersionName(model="team/fußgänger", version="v3")
BEFORE = VersionFields(
    description="by hand", notebook_link="https://example.com/n", parameters={"epochs": 3, "old": None}
)


def fields(tag: str, **changes: Any) -> VersionFields:
    image = DockerImage(
        name="registry.example.com/a", tag=tag, digest=f"sha256:{'ab' * 32}", env={"HUB_TOKEN": "private"}
    )
    return VersionFields(**{"framework": "PYTORCH", "parameters": {"epochs": 10}, "image": image} | changes)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "store" / "attached")


def back(store: LocalStore, journal: Journal, **options: Any) -> Rollback:
    """What the command does: take the entries, roll back, forget those that are used up."""
    kept = journal.entries(NAME)
    done = rollback(store, NAME, [entry for _, entry in kept], **options)
    journal.remove([path for path, _ in kept[: done.used]])
    return done


def held(store: LocalStore) -> VersionFields:
    return store.versions.get(NAME).fields


def test_an_attach_is_undone_field_by_field(store: LocalStore, journal: Journal) -> None:
    store.versions.create(NAME, BEFORE)
    attach(store, NAME, fields("1", description="finds people", labelmap={"0": "car"}), journal=journal)
    done = back(store, journal)
    assert held(store) == BEFORE
    assert (done.written, done.left, done.made) == (True, (), False)
    assert {change.field for change in done.changes} == {
        "description",
        "framework",
        "labelmap.0",
        "parameters.epochs",
        "parameters.old",
        "image.name",
        "image.tag",
        "image.digest",
        "env.HUB_TOKEN",
    }
    assert "private" not in done.model_dump_json()


def test_rolling_back_again_walks_back_further_until_there_is_nothing(
    store: LocalStore, journal: Journal
) -> None:
    store.versions.create(NAME, BEFORE)
    for tag in ("1", "2", "3"):
        attach(store, NAME, fields(tag), journal=journal)
    tags = []
    for _ in range(3):
        back(store, journal)
        image = held(store).image
        tags.append(image and image.tag)
    assert tags == ["2", "1", None]
    assert held(store) == BEFORE
    with pytest.raises(NotFoundError, match="nothing to roll back"):
        back(store, journal)


def test_a_version_that_the_attach_made_stays_and_is_empty(store: LocalStore, journal: Journal) -> None:
    attach(store, NAME, fields("1"), create=True, journal=journal)
    done = back(store, journal)
    assert (done.made, done.left) == (True, ())
    assert held(store) == VersionFields()


def test_a_later_change_is_never_lost_without_force(store: LocalStore, journal: Journal) -> None:
    store.versions.create(NAME, BEFORE)
    attach(store, NAME, fields("1"), journal=journal)
    store.versions.update(NAME, VersionFields(parameters={"epochs": 11}, notebook_link="https://other"))
    with pytest.raises(StoreError, match="was changed since") as caught:
        back(store, journal)
    assert caught.value.details == (
        "notebook_link: attached 'https://example.com/n', is now 'https://other'",
        "parameters.epochs: attached 10, is now 11",
    )
    assert held(store).parameters == {"epochs": 11}
    back(store, journal, force=True)
    assert held(store) == BEFORE


def test_a_dry_run_shows_and_forgets_nothing(store: LocalStore, journal: Journal) -> None:
    store.versions.create(NAME, BEFORE)
    attach(store, NAME, fields("1"), journal=journal)
    shown: list[Any] = []
    done = back(store, journal, dry_run=True, announce=shown.append)
    assert (done.written, shown) == (False, [done.changes])
    assert held(store) == fields("1", description="by hand", notebook_link="https://example.com/n")
    back(store, journal)
    assert held(store) == BEFORE


def test_an_attach_that_changed_nothing_is_no_step(store: LocalStore, journal: Journal) -> None:
    store.versions.create(NAME, BEFORE)
    for _ in range(3):
        attach(store, NAME, fields("1"), journal=journal)
    assert len(journal.entries(NAME)) == 1
    attach(store, NAME, fields("2"), journal=journal, dry_run=True)
    assert len(journal.entries(NAME)) == 1


def test_an_attach_that_was_cut_off_before_its_write_is_skipped(store: LocalStore, journal: Journal) -> None:
    made = store.versions.create(NAME, BEFORE)
    attach(store, NAME, fields("1"), journal=journal)
    journal.add(
        Entry(
            version=NAME,
            version_id=made.id,
            attached=datetime.now(UTC),
            before=held(store),
            after=fields("2"),
        )
    )
    back(store, journal)
    assert held(store) == BEFORE
    assert journal.entries(NAME) == ()


def test_where_only_a_cut_off_attach_is_recorded_there_is_nothing_to_roll_back(
    store: LocalStore, journal: Journal
) -> None:
    made = store.versions.create(NAME, BEFORE)
    now = datetime.now(UTC)
    journal.add(Entry(version=NAME, version_id=made.id, attached=now, before=BEFORE, after=fields("2")))
    with pytest.raises(NotFoundError, match="nothing to roll back"):
        back(store, journal)


def test_a_version_of_the_same_name_in_another_place_is_left_alone(
    store: LocalStore, journal: Journal, tmp_path: Path
) -> None:
    store.versions.create(NAME, BEFORE)
    attach(store, NAME, fields("1"), journal=journal)
    other = LocalStore(tmp_path / "other")
    other.versions.create(NAME, held(store))
    with pytest.raises(NotFoundError, match="nothing to roll back"):
        back(other, journal)


def test_what_the_store_cannot_clear_is_listed(
    store: LocalStore, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.versions.create(NAME, BEFORE)
    attach(store, NAME, fields("1"), journal=journal)
    monkeypatch.setattr(
        store.versions, "restore", store.versions.update
    )  # which clears nothing, as Picsellia
    done = back(store, journal)
    assert {change.field for change in done.left} == {
        "env.HUB_TOKEN",
        "framework",
        "image.digest",
        "image.name",
        "image.tag",
    }
    assert held(store).parameters == BEFORE.parameters


def test_of_two_attaches_at_once_the_loser_is_told_and_the_winner_can_be_rolled_back(
    store: LocalStore, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.versions.create(NAME, BEFORE)
    update = store.versions.update

    def overtaken(name: VersionName, written: VersionFields) -> ModelVersion:
        monkeypatch.undo()
        update(name, written)
        attach(store, NAME, fields("winner"), journal=journal)
        return store.versions.get(name)

    monkeypatch.setattr(store.versions, "update", overtaken)
    with pytest.raises(ReadBackError, match=r"image\.tag") as caught:
        attach(store, NAME, fields("loser"), journal=journal)
    assert "something else writes" in str(caught.value.remedy)
    image = held(store).image
    assert image is not None
    assert image.tag == "winner"
    back(store, journal)
    image = held(store).image
    assert image is not None
    assert image.tag == "loser", "which the winner's attach replaced"
    back(store, journal)
    assert held(store) == BEFORE


def test_only_the_owner_can_read_what_is_recorded(store: LocalStore, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "store" / "attached", tmp_path / "record.json")
    attach(store, NAME, fields("1"), create=True, journal=journal)
    ((path, entry),) = journal.entries(NAME)
    assert read_entry(tmp_path / "record.json") == entry
    for file in (path, tmp_path / "record.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"\xff", b'{"after": {"image": {"env": {"T": "private"}}}}']
)
def test_a_file_that_is_no_record_is_named_without_its_content(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"record\.json") as caught:
        read_entry(path)
    assert "private" not in str(caught.value)


def test_without_a_place_for_the_record_nothing_is_written(store: LocalStore, tmp_path: Path) -> None:
    store.versions.create(NAME, BEFORE)
    (tmp_path / "a-file").write_text("")
    with pytest.raises(StoreError, match="cannot be recorded") as caught:
        attach(store, NAME, fields("1"), journal=Journal(tmp_path / "a-file"))
    assert "TRAINPACK_STORE" in str(caught.value.remedy)
    assert held(store) == BEFORE


@pytest.fixture
def platform_store() -> Iterator[PicselliaStore]:
    with Standin() as platform:
        credentials = make_credentials({"token": platform.token, "host": platform.url}, "the test")
        yield PicselliaStore.connect(credentials, Patience(tries=2, pause=0.001))


def test_on_picsellia_an_attach_over_another_image_is_undone_whole(
    platform_store: PicselliaStore, journal: Journal
) -> None:
    name = VersionName(store="picsellia", model="pedestrian", version="v3")
    before = fields("1", description="by hand", notebook_link="https://example.com/n", type="POINT")
    platform_store.versions.create(name, before)
    wanted = fields("2", labelmap={"0": "car"}, parameters={"epochs": 20}, framework="ONNX")
    attach(platform_store, name, wanted, journal=journal)
    done = rollback(platform_store, name, [entry for _, entry in journal.entries(name)])
    assert done.left == ()
    assert diff(platform_store.versions.get(name).fields, before, whole=True) == ()


def test_on_picsellia_what_was_empty_and_cannot_be_cleared_is_listed(
    platform_store: PicselliaStore, journal: Journal
) -> None:
    name = VersionName(store="picsellia", model="pedestrian", version="v3")
    platform_store.versions.create(name, VersionFields(parameters={"epochs": 3}))
    attach(platform_store, name, fields("1", notebook_link="https://example.com/n"), journal=journal)
    done = rollback(platform_store, name, [entry for _, entry in journal.entries(name)])
    left = {change.field for change in done.left}
    assert {"framework", "image.name", "image.tag", "notebook_link"} <= left
    assert platform_store.versions.get(name).fields.parameters == {"epochs": 3}
