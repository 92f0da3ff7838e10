"""The entrypoint as a process: the workspace, what is collected and what is reported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_root import ContainerRoot, Ended
from hypothesis import assume, given
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec
from trainpack_entrypoint.manifest import Run
from trainpack_entrypoint.outcome.globs import Excludes


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    return ContainerRoot(tmp_path)


SOMEBODY = 54321


@pytest.fixture
def open_container() -> Iterator[ContainerRoot]:
    """A container whose script is a shell script, in a folder that every uid can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    container = ContainerRoot(folder)
    container.bake(run=Run(script="train.sh", launcher=("/bin/sh",)))
    (folder / "workspace").chmod(0o1777)
    yield container
    shutil.rmtree(folder)


def run_as_somebody(container: ContainerRoot) -> Ended:
    """Run under a uid without a name, where we may; as ourselves otherwise."""
    # Loaded while they can be read: a checkout in somebody's home is not open to every uid.
    setup = f"""
import hashlib, os, shlex, trainpack_entrypoint.main
import trainpack_entrypoint.outcome.diagnosis, trainpack_entrypoint.outcome.repeat
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({SOMEBODY})
    os.setuid({SOMEBODY})
"""
    return container.run(setup=setup)


def test_created_and_changed_files_are_collected_at_their_relative_paths(container: ContainerRoot) -> None:
    container.write("opt/app/config.yaml", "rate: 1\n")
    container.write("opt/app/untouched.txt", "as it was")
    container.script("""
        import os
        from pathlib import Path
        Path("runs/best").mkdir(parents=True)
        Path("runs/best/model.pt").write_bytes(b"weights")
        Path("config.yaml").write_text("rate: 2\\n")
        Path("__pycache__").mkdir()
        Path("__pycache__/x.pyc").write_text("cache")
        (Path(os.environ["TRAINPACK_OUTPUTS"]) / "direct.txt").write_text("direct")
        Path("empty").touch()
    """)
    ended = container.run()
    assert ended.saved == ["config.yaml", "direct.txt", "empty", "runs/best/model.pt"]
    assert (ended.outputs / "config.yaml").read_text() == "rate: 2\n"
    assert ended.result["outputs"][3] == {
        "path": "runs/best/model.pt",
        "size": 7,
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    assert container.root.joinpath("opt/app/config.yaml").read_text() == "rate: 1\n"


def test_a_file_rewritten_with_the_same_size_and_time_is_collected(container: ContainerRoot) -> None:
    container.write("opt/app/state.txt", "aaa")
    container.script("""
        import os
        before = os.stat("state.txt")
        open("state.txt", "w").write("bbb")
        os.utime("state.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    """)
    assert container.run().saved == ["state.txt"]


def test_excluded_files_and_datasets_are_not_collected(container: ContainerRoot) -> None:
    container.bake(outputs_exclude=("**/*.tmp", "cache/", "!keep.tmp"), data={"train": "data"})
    container.write("opt/app/data/x.csv", "1")
    container.script("""
        from pathlib import Path
        for name in ("a.tmp", "deep/b.tmp", "cache/c", "keep.tmp", "model.pt", "data/made.csv"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(name)
    """)
    assert container.run().saved == ["keep.tmp", "model.pt"]


def test_links_loops_and_special_files_are_safe(container: ContainerRoot) -> None:
    container.write("secret", "not yours")
    container.script(f"""
        import os
        from pathlib import Path
        Path("epoch5.pt").write_text("five")
        os.symlink("epoch5.pt", "last.pt")
        os.symlink("loop", "loop")
        os.symlink(".", "here")
        os.symlink("nowhere", "dangling")
        os.symlink({str(container.root / "secret")!r}, "outside")
        os.mkfifo("pipe")
        outputs = Path(os.environ["TRAINPACK_OUTPUTS"])
        os.symlink({str(container.root / "secret")!r}, outputs / "out")
        os.symlink(Path("epoch5.pt").resolve(), outputs / "best.pt")
    """)
    ended = container.run()
    assert ended.code == 0
    assert ended.saved == ["best.pt", "epoch5.pt", "last.pt"]
    assert all((ended.outputs / name).read_text() == "five" for name in ended.saved)
    assert not any((ended.outputs / name).is_symlink() for name in ended.saved)


def test_what_the_script_put_into_outputs_last_wins(container: ContainerRoot) -> None:
    container.script("""
        import os
        from pathlib import Path
        Path("model.pt").write_text("draft")
        os.utime("model.pt", (1, 1))
        (Path(os.environ["TRAINPACK_OUTPUTS"]) / "model.pt").write_text("final")
    """)
    assert (container.run().outputs / "model.pt").read_text() == "final"


def test_a_second_run_in_the_same_workspace_collects_what_is_new(container: ContainerRoot) -> None:
    container.script("""
        from pathlib import Path
        model = Path("model.pt")
        text = model.read_text() + "+" if model.exists() else "1"
        model.unlink(missing_ok=True)
        model.write_text(text)
    """)
    container.run()
    ended = container.run()
    assert ended.code == 0
    assert (ended.outputs / "model.pt").read_text() == "1+"


def test_a_read_only_code_folder_is_writable_in_its_copy(open_container: ContainerRoot) -> None:
    open_container.script("echo changed > pkg/a.txt && test -x run.sh", "train.sh")
    open_container.write("opt/app/pkg/a.txt", "x").chmod(0o444)
    (open_container.root / "opt/app/pkg").chmod(0o555)
    open_container.write("opt/app/run.sh", "#!/bin/sh\n").chmod(0o555)
    ended = run_as_somebody(open_container)
    assert ended.code == 0, ended.told
    assert ended.saved == ["pkg/a.txt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another uid")
def test_a_uid_without_a_name_gets_one(open_container: ContainerRoot) -> None:
    open_container.script('echo "$(id -u) $USER $LOGNAME"', "train.sh")
    assert run_as_somebody(open_container).stdout == b"54321 trainer trainer\n"


def test_an_unwritable_workspace_ends_with_74_naming_uid_and_mode(open_container: ContainerRoot) -> None:
    open_container.script("echo ran", "train.sh")
    (open_container.root / "workspace").chmod(0o555)
    ended = run_as_somebody(open_container)
    assert ended.code == 74
    uid = SOMEBODY if os.geteuid() == 0 else os.geteuid()
    assert f"runs as uid {uid}" in ended.told
    assert "has mode 0555 and belongs to" in ended.told
    assert "Traceback" not in ended.told
    assert ended.stdout == b""


def test_an_output_that_cannot_be_read_ends_with_74_and_stays(open_container: ContainerRoot) -> None:
    open_container.script("mkdir locked && echo x > locked/model.pt && chmod 0 locked", "train.sh")
    ended = run_as_somebody(open_container)
    assert ended.code == 74
    assert ended.failure["cause"] == "workspace"
    assert ended.failure["problems"] == ["locked: Permission denied"]
    (open_container.root / "workspace/code/locked").chmod(0o755)
    assert (open_container.root / "workspace/code/locked/model.pt").exists()


def test_a_failed_script_keeps_its_code_and_its_outputs(container: ContainerRoot) -> None:
    container.script("import sys; open('half.pt', 'w').write('x'); sys.exit(9)")
    ended = container.run()
    assert ended.code == 9
    assert ended.saved == ["half.pt"]


def test_without_metrics_jsonl_the_numbers_of_the_nearest_metrics_json_count(
    container: ContainerRoot,
) -> None:
    container.script(
        """
        import json, pathlib
        pathlib.Path("runs/old").mkdir(parents=True)
        pathlib.Path("runs/old/metrics.json").write_text(json.dumps({"accuracy": 0.1}))
        measured = {"accuracy": 0.9, "best": True, "by": {"a": 1}}
        pathlib.Path("runs/metrics.json").write_text(json.dumps(measured))
        """
    )
    assert container.run().result["metrics"] == {"accuracy": 0.9}


def test_metrics_are_the_last_value_of_each_name(container: ContainerRoot) -> None:
    container.script("""
        import os
        from pathlib import Path
        lines = ['{"step": 0, "name": "loss", "value": 2}', "not json", "[1]", '{"name": 3, "value": 1}',
                 '{"step": 1, "name": "loss", "value": 0.5}', '{"name": "acc", "value": null}', '{"cut']
        (Path(os.environ["TRAINPACK_OUTPUTS"]) / "metrics.jsonl").write_text("\\n".join(lines))
    """)
    assert container.run().result["metrics"] == {"loss": 0.5, "acc": None}


def test_result_json_describes_a_successful_run(container: ContainerRoot) -> None:
    container.script("pass")
    container.bake(labelmap={"0": "car"})
    result = container.run(env={"TRAINPACK_IMAGE_DIGEST": "sha256:abc"}).result
    assert (result["schema"], result["status"], result["exit_code"], result["signal"]) == (
        1,
        "success",
        0,
        None,
    )
    assert result["labelmap"] == {"0": "car"}
    assert result["labelmap_source"] == "image default"
    assert result["started"] <= result["finished"]
    assert result["started"].endswith("Z")
    assert 0 < result["seconds"] < 30
    assert result["image"] == {
        "name": "registry.example.com/team/model",
        "version": "1.0",
        "lock": "lock-hash",
        "revision": "abc123",
        "digest": "sha256:abc",
    }
    assert result["experiment"] is None


def test_the_failure_of_an_earlier_run_does_not_outlive_a_success(container: ContainerRoot) -> None:
    container.script("raise SystemExit(1)")
    container.run()
    assert (container.root / "workspace/failure.json").exists()
    container.script("pass")
    container.run()
    assert not (container.root / "workspace/failure.json").exists()


def test_a_file_name_that_is_not_utf8_is_listed_and_kept(container: ContainerRoot) -> None:
    container.script(r"open(b'caf\xe9.txt', 'w').write('x')")
    ended = container.run()
    assert ended.code == 0
    assert ended.saved == [os.fsdecode(b"caf\xe9.txt")]
    json.dumps(ended.result)


_PART = st.text("ab.", min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
_PATHS = st.lists(_PART, min_size=1, max_size=3).map("/".join)
_PATTERNS = st.lists(
    st.sampled_from(["**", "*", "a", "b*", "*.a", "?b", "[ab]", "[!a]b"]), min_size=1, max_size=3
)


@given(path=_PATHS, parts=_PATTERNS, anchor=st.sampled_from(["", "/"]), end=st.sampled_from(["", "/"]))
def test_excludes_agree_with_git(path: str, parts: list[str], anchor: str, end: str) -> None:
    # pathspec takes a file for what `**/` ends with, where git wants a folder.
    assume(not (parts[-1] == "**" and end))
    pattern = anchor + "/".join(parts) + end
    spec = GitIgnoreSpec.from_lines([pattern])
    assert (path in Excludes([pattern])) is spec.match_file(path)
