from __future__ import annotations

import io
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.options import environment, pairs
from builder.cli.run import files
from builder.engine.containers import (
    extract,
    file_entry,
    folder_entry,
    host_options,
    pack,
    repo_digest,
    tree_entries,
)
from builder.errors import EngineError, SpecError, UsageError
from builder.flags import normalise_flags
from builder.plan import BuiltImage
from builder.run import (
    RunRequest,
    Stopper,
    container_environment,
    container_options,
    fitting_flags,
    gpu_request,
    input_entries,
    relay,
)


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.run.is_local", lambda: True)


def test_pairs_split_at_the_first_equals_sign() -> None:
    assert pairs(["a=1", "b=x=y", "a=2", "c="], "-p") == {"a": "2", "b": "x=y", "c": ""}


@pytest.mark.parametrize("text", ["epochs", "=1", ""])
def test_a_pair_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        pairs([text], "-p")


def test_a_variable_without_a_value_is_the_callers() -> None:
    own = {"api_token": "secret", "host": "h"}
    assert environment(["api_token", "host=other"], own) == {"api_token": "secret", "host": "other"}


def test_a_variable_that_the_caller_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="'api_token' is not set"):
        environment(["api_token"], {})


def test_a_request_shows_no_variables_when_it_is_printed() -> None:
    request = RunRequest(image="i", output=Path("o"), env={"api_token": "secret"})
    assert "secret" not in repr(request)


def test_inputs_are_read_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"0": "car"}')
    request = RunRequest(
        image="i", output=tmp_path / "o", labelmap=tmp_path / "labels.json", data={"train": tmp_path}
    )
    assert [info.name for info, _ in input_entries(request)] == ["labelmap.json", "datasets"]


def test_files_are_named_by_their_own_name_or_the_one_that_is_given(tmp_path: Path) -> None:
    odd = tmp_path / "lr=0.1.pt"
    odd.touch()
    given = files([f"best.pt={tmp_path}/a", str(tmp_path / "config.yaml"), str(odd)])
    assert given == {
        "best.pt": tmp_path / "a",
        "config.yaml": tmp_path / "config.yaml",
        "lr=0.1.pt": odd,
    }
    with pytest.raises(UsageError, match=r"'a.pt' stands for both x/a.pt and y/a.pt"):
        files(["x/a.pt", "y/a.pt"])


def test_files_lie_below_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pt").write_bytes(b"weights")
    request = RunRequest(image="i", output=tmp_path, files={"runs/best/model.pt": tmp_path / "weights.pt"})
    folders = ["files", "files/runs", "files/runs/best"]
    assert [info.name for info, _ in input_entries(request)] == folders
    monkeypatch.setattr("builder.run.is_local", lambda: False)
    assert [info.name for info, _ in input_entries(request)] == [*folders, "files/runs/best/model.pt"]


@pytest.mark.parametrize("name", ["", "../x", "/x", "a//b", "a/..", "new\nline"])
def test_a_file_never_leaves_the_folder_of_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="relative path"):
        input_entries(RunRequest(image="i", output=tmp_path, files={name: tmp_path}))


def test_a_file_that_is_not_there_or_below_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        input_entries(RunRequest(image="i", output=tmp_path, files={"a": tmp_path / "a"}))
    with pytest.raises(UsageError, match="below another"):
        input_entries(RunRequest(image="i", output=tmp_path, files={"a": tmp_path, "a/b": tmp_path}))


@pytest.mark.parametrize("text", ["{", "[]", '{"0": 1}', '{"0": "a", "1": "a"}', '{"x": "a"}'])
def test_a_malformed_labelmap_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(text)
    request = RunRequest(image="i", output=tmp_path / "o", labelmap=tmp_path / "labels.json")
    with pytest.raises(SpecError, match="not a labelmap") as caught:
        input_entries(request)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("alias", ["", "../x", "a/b", ".hidden"])
def test_an_alias_never_leaves_the_folder_of_datasets(alias: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="alias"):
        input_entries(RunRequest(image="i", output=tmp_path, data={alias: tmp_path}))


def test_flags_become_options_of_the_engine() -> None:
    flags = normalise_flags(
        "--ipc=host --shm-size=8g --cpus=1.5 --ulimit memlock=-1 --ulimit nofile=1024:2048 --cap-drop=ALL "
        "--tmpfs /scratch:size=1g --read-only --pids-limit=100 --gpus=all --rm --stop-timeout=5"
    )
    options = host_options(flags)
    limits = {limit.name: (limit.soft, limit.hard) for limit in options.pop("ulimits")}
    assert limits == {"memlock": (-1, -1), "nofile": (1024, 2048)}
    assert options == {
        "ipc_mode": "host",
        "shm_size": "8g",
        "nano_cpus": 1_500_000_000,
        "cap_drop": ["ALL"],
        "tmpfs": {"/scratch": "size=1g"},
        "read_only": True,
        "pids_limit": 100,
    }


@pytest.mark.parametrize(
    ("text", "count", "devices"), [("all", -1, None), ("2", 2, None), ("device=0,1", 0, ["0", "1"])]
)
def test_gpus_are_all_a_number_or_devices(text: str, count: int, devices: list[str] | None) -> None:
    request = gpu_request(text)
    assert (request.count, request.device_ids or None) == (count, devices)


IMAGE = BuiltImage(
    reference="registry.example.com/a:1-ab", image_id="sha256:1", digest=None, tag="1-ab", size=1, layers=()
)


@pytest.mark.parametrize(
    ("request_options", "has_gpu", "given"),
    [
        ({}, True, "none"),
        ({"flags": ("--gpus=all",)}, True, "all"),
        ({"flags": ("--gpus=all",)}, False, "none"),
        ({"flags": ('--gpus="device=0,1"',)}, True, "device=0,1"),
        ({"flags": ("--gpus=all",), "gpus": "2"}, True, "2"),
    ],
)
def test_a_container_is_told_which_gpus_it_gets_and_what_it_is_called(
    request_options: dict[str, Any], has_gpu: bool, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.run.has_gpu", lambda: has_gpu)
    request = RunRequest(image="i", output=Path("o"), **request_options)
    flags = fitting_flags(request, lambda line: None)
    asked = [] if given == "none" else [gpu_request(given)]
    assert container_options(request, flags).get("device_requests", []) == asked
    environment = container_environment(request, IMAGE, flags)
    assert (environment["TRAINPACK_GPUS"], environment["TRAINPACK_IMAGE"]) == (given, IMAGE.reference)


def test_what_the_user_passes_is_stronger_than_what_the_run_knows() -> None:
    request = RunRequest(image="i", output=Path("o"), env={"TRAINPACK_GPUS": "2"})
    assert container_environment(request, IMAGE, ())["TRAINPACK_GPUS"] == "2"


def test_the_digest_of_an_image_is_that_of_its_own_repository() -> None:
    digests = ["a.example.com/x@sha256:1", "a.example.com/xy@sha256:2"]
    assert repo_digest(digests, "a.example.com/xy") == "sha256:2"
    assert repo_digest(digests, "a.example.com/z") is None


def test_a_folder_arrives_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "deep" / "b.bin").write_bytes(bytes(range(256)) * 5000)
    (source / "link").symlink_to("deep/b.bin")
    with _read(b"".join(pack(tree_entries("train", source)))) as archive:
        owners = {(member.uid, member.gid) for member in archive}
    with _read(b"".join(pack(tree_entries("train", source)))) as archive:
        assert extract(archive, tmp_path / "target") == ()
    target = tmp_path / "target" / "train"
    assert (target / "deep" / "b.bin").read_bytes() == (source / "deep" / "b.bin").read_bytes()
    assert (target / "link").readlink() == Path("deep/b.bin")
    assert owners == {(0, 0)}


@given(st.lists(st.binary(max_size=2000), max_size=5))
def test_what_is_packed_can_be_read_back(contents: list[bytes]) -> None:
    stream = b"".join(pack(file_entry(str(number), content) for number, content in enumerate(contents)))
    with _read(stream) as archive:
        files = (archive.extractfile(member) for member in archive)
        assert [file.read() for file in files if file] == contents


def test_a_file_that_shrinks_while_it_is_copied_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12")
    entries = list(tree_entries("train", tmp_path))
    path.write_bytes(b"1")
    with pytest.raises(EngineError, match="shrank"):
        b"".join(pack(entries))


def _hostile(name: str, **fields: Any) -> Callable[[], bytes]:
    def stream() -> bytes:
        info, content = file_entry(name, b"hostile")
        for field, value in fields.items():
            setattr(info, field, value)
        if info.type != tarfile.REGTYPE:
            info.size, content = 0, None
        return b"".join(pack([(info, content), file_entry("good", b"good")]))

    return stream


@pytest.mark.parametrize(
    "stream",
    [
        _hostile("../outside"),
        _hostile("/etc/outside"),
        _hostile("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        _hostile("link", type=tarfile.SYMTYPE, linkname="../outside"),
        _hostile("link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        _hostile("pipe", type=tarfile.FIFOTYPE),
        _hostile("device", type=tarfile.CHRTYPE),
    ],
)
def test_a_hostile_archive_writes_nothing_outside(stream: Callable[[], bytes], tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    with _read(stream()) as archive:
        assert len(extract(archive, into)) == 1
    assert sorted(tmp_path.rglob("*")) == [into, into / "good"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "../outside"
    with (
        _read(b"".join(pack([(link, None), folder_entry("other"), file_entry("link/a", b"x")]))) as archive,
        pytest.raises(FileExistsError),
    ):
        extract(archive, tmp_path / "into")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_reader_that_went_away_does_not_stop_the_other() -> None:
    class Gone(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    other = io.BytesIO()
    relay([(b"1", None), (None, b"2"), (b"3", b"4")], (Gone(), other))
    assert other.getvalue() == b"24"


def test_a_signal_before_the_start_ends_everything() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Stopper(1, lambda line: None):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def _read(stream: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(stream), mode="r|")
