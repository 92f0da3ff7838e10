"""The local store: shared by processes, whole after a kill, clear about what it cannot do."""

from __future__ import annotations

import getpass
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.local import database, listing, versions
from builder.models.local.database import FILE as DATABASE
from builder.models.local.database import FOLDER_VARIABLE
from builder.models.local.schema import MIGRATIONS
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.records import VersionFields

NAME = VersionName(model="pedestrian", version="v3")
PROCESSES, WRITES, KILLS = 4, 15, 4
NOBODY = 65534
START = """
import sys
from pathlib import Path
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.records import VersionFields

folder, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
"""
# Each process writes one field of a version that all share, and versions of a model that all make.
WRITER = f"""{START}
with LocalStore(folder) as store:
    for number in range(count):
        store.versions.create(VersionName(model="shared", version=f"{{who}}-{{number}}"), VersionFields())
        store.versions.update(
            VersionName(model="pedestrian", version="v3"), VersionFields(**{{who: f"{{who}} {{number}}"}})
        )
"""
# Two fields always say the same; a number is printed once its write has returned.
COUNTER = f"""{START}
name = VersionName(model="pedestrian", version="v3")
with LocalStore(folder) as store:
    for number in range(count, count + 100_000):
        store.versions.update(
            name, VersionFields(description=f"{{number}} " * 20_000, parameters={{"number": number}})
        )
        print(number, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(tmp_path / "store") as opened:
        yield opened


def start(script: str, folder: Path, arguments: Sequence[tuple[str, int]]) -> list[subprocess.Popen[str]]:
    """Processes that all begin to work at the same moment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder), who, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who, count in arguments
    ]
    for process in processes:
        assert read_line(process) == "ready"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def execute(folder: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        return list(connection.execute(statement))


@contextmanager
def without_rights() -> Iterator[None]:
    """As an account to which a folder's mode applies, which it does not to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_folder_is_the_one_of_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "a" / "b"))
    with LocalStore() as store:
        store.versions.create(NAME, VersionFields())
    assert (tmp_path / "a" / "b" / DATABASE).is_file()


def test_versions_are_listed_by_model_and_version(store: LocalStore) -> None:
    assert list(store.versions.list()) == []
    for model, version in (("b", "v1"), ("a", "v2"), ("a", "v1")):
        store.versions.create(VersionName(model=model, version=version), VersionFields())
    assert [str(version.name) for version in store.versions.list()] == [
        "local:a/v1",
        "local:a/v2",
        "local:b/v1",
    ]


@pytest.mark.parametrize("text", ["team/vision/pedestrian/v3", "Fußgänger/v1", "行人/第一版", "a:b %_'\"/v1"])
def test_a_model_can_have_any_printable_name(store: LocalStore, text: str) -> None:
    name = VersionName.parse(f"local:{text}")
    assert store.versions.create(name, VersionFields(description="x")).name == name
    assert [version.name for version in store.versions.list()] == [name]


@pytest.mark.parametrize("model", ["with\nnewline", "bell\a", " padded ", "half \ud800 pair"])
def test_a_name_that_cannot_be_shown_is_refused_and_nothing_is_made(store: LocalStore, model: str) -> None:
    with pytest.raises(UsageError):
        store.versions.create(VersionName(model=model, version="v1"), VersionFields())
    assert list(store.versions.list()) == []


def test_a_missing_version_is_offered_to_be_created(store: LocalStore) -> None:
    store.versions.create(NAME, VersionFields())
    missing = VersionName(model="somethingelse", version="v3")
    with pytest.raises(NotFoundError, match=r"there is no model 'somethingelse'$") as caught:
        store.versions.get(missing)
    assert "--create" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("model", "version", "hint"),
    [("pedestrain", "v3-large", "pedestrian"), ("pedestrian", "v3-lrge", "v3-large")],
)
def test_a_misspelt_name_is_answered_with_the_one_that_is_meant(
    store: LocalStore, model: str, version: str, hint: str
) -> None:
    store.versions.create(VersionName(model="pedestrian", version="v3-large"), VersionFields())
    name = VersionName(model=model, version=version)
    for use in (
        store.versions.get,
        store.versions.history,
        lambda name: store.versions.update(name, VersionFields()),
    ):
        with pytest.raises(NotFoundError, match=f'did you mean "{hint}"'):
            use(name)


def test_every_update_leaves_the_former_state_in_the_history(store: LocalStore) -> None:
    store.versions.create(NAME, VersionFields(description="first"))
    assert store.versions.history(NAME) == ()
    store.versions.update(NAME, VersionFields(description="second"))
    store.versions.update(NAME, VersionFields(framework="ONNX"))
    former = store.versions.history(NAME)
    assert [state.fields.description for state in former] == ["second", "first"]
    assert former[0].replaced >= former[1].replaced


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    with LocalStore(tmp_path) as store:
        store.versions.create(NAME, VersionFields())
    fields = ("description", "notebook_link")
    processes = start(WRITER, tmp_path, [(field, WRITES) for field in fields])
    assert [process.wait(60) for process in processes] == [0] * len(fields)
    with LocalStore(tmp_path) as store:
        held = store.versions.get(NAME).fields
        assert [getattr(held, field) for field in fields] == [f"{field} {WRITES - 1}" for field in fields]
        assert len(store.versions.history(NAME)) == WRITES * len(fields)
        shared = {version.name.version for version in store.versions.list() if version.name.model == "shared"}
    assert shared == {f"{field}-{number}" for field in fields for number in range(WRITES)}


def test_processes_that_open_a_new_store_at_once_all_use_it(tmp_path: Path) -> None:
    script = (
        f"{START}\nLocalStore(folder).versions.create(VersionName(model='m', version=who), VersionFields())"
    )
    processes = start(script, tmp_path, [(str(number), 0) for number in range(PROCESSES)])
    assert [process.wait(60) for process in processes] == [0] * PROCESSES
    with LocalStore(tmp_path) as store:
        assert len(list(store.versions.list())) == PROCESSES


def test_a_store_that_cannot_switch_its_journal_now_opens_and_switches_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with LocalStore(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as reader:
        reader.execute("PRAGMA journal_mode = DELETE")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM models").fetchone()
        with LocalStore(tmp_path) as store:
            assert list(store.versions.list()) == []
        reader.execute("COMMIT")
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    with LocalStore(tmp_path), closing(sqlite3.connect(tmp_path / DATABASE)) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_is_whole_after_a_kill_and_holds_every_write_that_returned(tmp_path: Path) -> None:
    with LocalStore(tmp_path) as store:
        store.versions.create(NAME, VersionFields())
    first = 0
    for round_ in range(KILLS):
        (process,) = start(COUNTER, tmp_path, [("counter", first)])
        returned = [int(read_line(process)) for _ in range(round_ + 2)][-1]
        process.kill()
        process.wait(60)
        returned = max([returned, *map(int, rest(process))])
        with LocalStore(tmp_path) as store:
            held = store.versions.get(NAME).fields
            assert held.parameters is not None
            number = held.parameters["number"]
            assert number in (returned, returned + 1)
            assert held.description == f"{number} " * 20_000
            assert len(store.versions.history(NAME)) == number + 1
        assert execute(tmp_path, "PRAGMA integrity_check") == [("ok",)]
        first = number + 1


def rest(process: subprocess.Popen[str]) -> list[str]:
    """What a process that ended had printed and nobody had read; a line that was cut off is none."""
    assert process.stdout
    return [line for line in process.stdout if line.endswith("\n")]


def test_an_interrupted_write_changes_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.versions.create(NAME, VersionFields(description="before"))

    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(versions, "now", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.versions.update(NAME, VersionFields(description="after"))
    assert store.versions.get(NAME).fields.description == "before"
    assert store.versions.update(NAME, VersionFields(description="later")).fields.description == "later"


def test_a_full_disk_is_told_and_leaves_no_half_of_a_version(store: LocalStore) -> None:
    store.database.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StoreError, match="full") as caught:
        store.versions.create(NAME, VersionFields(description="x" * 1_000_000))
    assert caught.value.remedy == "free some space on the disk"
    assert list(store.versions.list()) == []
    store.versions.create(NAME, VersionFields())


def test_a_store_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    with LocalStore(tmp_path) as holder, LocalStore(tmp_path) as other, holder.database.transaction():
        assert list(other.versions.list()) == []
        with pytest.raises(StoreError, match="locked") as caught:
            other.versions.create(NAME, VersionFields())
    assert "another process holds the store" in str(caught.value.remedy)


def test_a_folder_that_cannot_be_made_is_told_with_the_variable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with without_rights(), pytest.raises(StoreError, match="cannot be made: Permission denied") as caught:
        LocalStore(tmp_path / "store")
    assert caught.value.place == str(tmp_path / "store")
    assert FOLDER_VARIABLE in str(caught.value.remedy)


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be made: File exists"):
        LocalStore(tmp_path / "store")


def test_a_store_that_may_only_be_read_refuses_to_write(store: LocalStore) -> None:
    store.database.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="readonly") as caught:
        store.versions.create(NAME, VersionFields())
    assert FOLDER_VARIABLE in str(caught.value.remedy)


def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    content = b"this is a text, and a longer one than the header of a database.\n" * 100
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(StoreError, match="is damaged: file is not a database") as caught:
        LocalStore(tmp_path)
    assert caught.value.place == str(tmp_path / DATABASE)
    assert (tmp_path / DATABASE).read_bytes() == content


def test_a_store_of_a_newer_trainpack_is_refused_and_left_alone(tmp_path: Path) -> None:
    with LocalStore(tmp_path) as store:
        store.versions.create(NAME, VersionFields())
    newer = len(MIGRATIONS) + 1
    execute(tmp_path, f"PRAGMA user_version = {newer}")
    with pytest.raises(StoreError, match=rf"has schema {newer}, this trainpack knows {newer - 1}") as caught:
        LocalStore(tmp_path)
    assert "upgrade trainpack" in str(caught.value.remedy)
    assert execute(tmp_path, "PRAGMA user_version") == [(newer,)]


def test_fields_of_a_newer_trainpack_are_told_with_the_version(tmp_path: Path, store: LocalStore) -> None:
    store.versions.create(NAME, VersionFields())
    execute(tmp_path / "store", """UPDATE versions SET fields = '{"hyper": 1}'""")
    with pytest.raises(StoreError, match="what is stored of local:pedestrian/v3 cannot be read"):
        store.versions.get(NAME)


# What the first released trainpack made, statement by statement.
OLD_SCHEMA = """
    CREATE TABLE models (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE versions (
        id TEXT PRIMARY KEY, model_id TEXT NOT NULL REFERENCES models (id), name TEXT NOT NULL,
        fields TEXT NOT NULL CHECK (json_valid(fields)), UNIQUE (model_id, name)
    ) STRICT;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY, version_id TEXT NOT NULL REFERENCES versions (id),
        replaced_at TEXT NOT NULL, fields TEXT NOT NULL CHECK (json_valid(fields))
    ) STRICT;
    CREATE INDEX history_of_version ON history (version_id, id);
    INSERT INTO models VALUES ('m', 'pedestrian');
    INSERT INTO versions VALUES ('v', 'm', 'v3', '{"description": "after", "framework": "PyTorch", "image":
        {"name": "vision/pedestrian", "tag": "1", "digest": null, "flags": ["--gpus=all"], "env": {}}}');
    INSERT INTO history VALUES (1, 'v', '2026-01-02T03:04:05+00:00', '{"description": "before"}');
    PRAGMA user_version = 1;
    PRAGMA journal_mode = WAL;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a store that the first released trainpack left."""
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.executescript(OLD_SCHEMA)
    return tmp_path


def test_a_store_of_the_released_schema_is_migrated_with_all_that_it_holds(old: Path) -> None:
    with LocalStore(old) as store:
        version = store.versions.get(NAME)
        assert (version.id, version.fields.description, version.fields.framework) == ("v", "after", "PyTorch")
        assert (version.files, version.creator, version.created, version.updated) == ((), None, None, None)
        assert [line.image for line in store.versions.list()] == ["vision/pedestrian:1"]
        (former,) = store.versions.history(NAME)
        assert (former.fields.description, former.replaced.year) == ("before", 2026)
        assert store.versions.update(NAME, VersionFields(description="new")).fields.framework == "PyTorch"
        assert store.versions.get(NAME).updated
    assert execute(old, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert execute(old, "PRAGMA integrity_check") == [("ok",)]
    assert execute(old, "PRAGMA foreign_key_check") == []


def test_a_migrated_store_has_the_tables_of_a_new_one(old: Path) -> None:
    query = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
    columns = "SELECT m.name, p.name, p.type FROM sqlite_master m, pragma_table_xinfo(m.name) p ORDER BY 1, 2"
    new = old / "new"
    for folder in (old, new):
        LocalStore(folder).close()
    assert execute(old, query) == execute(new, query)
    assert execute(old, columns) == execute(new, columns)


def test_processes_that_open_an_old_store_at_once_migrate_it_once(old: Path) -> None:
    script = (
        f"{START}\nLocalStore(folder).versions.create(VersionName(model='m', version=who), VersionFields())"
    )
    processes = start(script, old, [(str(number), 0) for number in range(PROCESSES)])
    assert [process.wait(60) for process in processes] == [0] * PROCESSES
    with LocalStore(old) as store:
        assert len(list(store.versions.list())) == PROCESSES + 1


def test_a_migration_that_is_interrupted_leaves_the_old_store(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (a); SELECT broken"))
        with pytest.raises(StoreError):
            LocalStore(old)
    assert execute(old, "PRAGMA user_version") == [(1,)]
    with LocalStore(old) as store:
        assert store.versions.get(NAME).fields.description == "after"


def test_a_list_of_versions_reads_one_index_and_no_document(store: LocalStore) -> None:
    plan = store.database.execute(f"EXPLAIN QUERY PLAN {listing.LIST}", (None,))
    steps = [row["detail"] for row in plan]
    assert "USING COVERING INDEX list_of_versions" in steps[1]
    assert not any("TEMP B-TREE" in step for step in steps)


def test_a_slash_belongs_to_the_model_and_not_to_the_version(store: LocalStore) -> None:
    with pytest.raises(UsageError, match="slash"):
        store.versions.create(VersionName(model="a", version="b/c"), VersionFields())


def test_a_name_of_another_store_is_refused(store: LocalStore) -> None:
    name = VersionName(store="picsellia", model="pedestrian", version="v3")
    with pytest.raises(UsageError, match="local store"):
        store.versions.create(name, VersionFields())
    with pytest.raises(UsageError, match="local store"):
        store.versions.get(name)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_parameters_may_be_nested_as_deep_as_they_can_be_read_again(store: LocalStore) -> None:
    created = store.versions.create(NAME, VersionFields(parameters={"deep": nested(100)}))
    assert store.versions.get(NAME) == created
    for depth in (300, 100_000):
        with pytest.raises(UsageError, match="nested too deep"):
            store.versions.update(NAME, VersionFields(parameters={"deep": nested(depth)}))
    assert store.versions.get(NAME) == created


def test_numbers_of_any_size_are_kept(store: LocalStore) -> None:
    parameters = {"seed": 2**80, "rate": 1e-300, "text": "\u0000 \U0001f600", "true": True}
    assert store.versions.create(NAME, VersionFields(parameters=parameters)).fields.parameters == parameters


def test_the_same_content_again_is_no_write(store: LocalStore) -> None:
    created = store.versions.create(NAME, VersionFields(description="x", parameters={"b": 1, "a": 2}))
    assert store.versions.update(NAME, created.fields) == created
    assert store.versions.restore(NAME, created.fields) == created
    assert store.versions.history(NAME) == ()


def test_a_restored_state_leaves_what_it_replaced_in_the_history(store: LocalStore) -> None:
    store.versions.create(NAME, VersionFields(description="x", labelmap={"0": "car"}))
    store.versions.restore(NAME, VersionFields(framework="ONNX"))
    (former,) = store.versions.history(NAME)
    assert former.fields == VersionFields(description="x", labelmap={"0": "car"})


def test_not_configured_clears_what_was_set(store: LocalStore) -> None:
    store.versions.create(NAME, VersionFields(framework="ONNX", type="POINT", description="x"))
    held = store.versions.update(NAME, VersionFields(framework="not_configured")).fields
    assert (held.framework, held.type, held.description) == (None, "POINT", "x")


def test_a_version_tells_who_made_it_and_when(store: LocalStore) -> None:
    before = datetime.now(UTC)
    created = store.versions.create(NAME, VersionFields())
    assert created.creator == getpass.getuser()
    assert created.created is not None
    assert before <= created.created <= datetime.now(UTC)
    assert created.updated == created.created
    updated = store.versions.update(NAME, VersionFields(description="x"))
    assert updated.created == created.created
    assert updated.updated is not None
    assert updated.updated > before


def test_a_user_without_a_name_can_write(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert store.versions.create(NAME, VersionFields()).creator is None
