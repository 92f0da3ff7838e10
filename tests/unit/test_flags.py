"""`docker run` flags: every spelling gives one canonical form; what is dangerous is named and refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.flags import KNOWN, REFUSED, asks_for_gpu, explain_flags, gpus_of, normalise_flags

SWITCHES = sorted(name for name, kind in KNOWN.items() if kind.canonical is None)
SIZES = st.builds("{}{}".format, st.integers(0, 999), st.sampled_from(["", "k", "m", "g", "t"]))
COUNTS = st.integers(0, 9999).map(str)
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="'\"\\"), min_size=1).filter(
    lambda value: not value.startswith("-")
)
VALUES: dict[str, st.SearchStrategy[str]] = {
    "cap-drop": st.sampled_from(["ALL", "NET_RAW"]),
    "cpus": st.sampled_from(["1", "1.5", "16"]),
    "cpu-shares": COUNTS,
    "cpuset-cpus": st.sampled_from(["0", "0-3", "0,2"]),
    "gpus": st.sampled_from(["all", "2", "device=0"]),
    "ipc": st.sampled_from(["host", "private", "shareable", "none"]),
    "memory": SIZES,
    "memory-swap": SIZES | st.just("-1"),
    "pids-limit": COUNTS,
    "runtime": st.sampled_from(["nvidia", "runc"]),
    "shm-size": SIZES,
    "tmpfs": st.sampled_from(["/scratch", "/scratch:size=1g,noexec"]),
    "ulimit": st.sampled_from(["memlock=-1", "nofile=1024:2048", "stack=67108864"]),
    "user": TEXTS,
}
PAIRS = st.fixed_dictionaries({}, optional=VALUES)
CANONICAL = st.builds(
    lambda pairs, switches: (
        [f"--{name}={value}" for name, value in pairs.items()] + [f"--{name}" for name in switches]
    ),
    PAIRS,
    st.sets(st.sampled_from(SWITCHES)),
)


@pytest.mark.parametrize(
    "spelling",
    [
        "--gpus all --ipc=host --ulimit memlock=-1",
        ["--gpus all", "--ipc host", "--ulimit memlock=-1"],
        ["--gpus", "all", "--ipc", "host", "--ulimit", "memlock=-1"],
        ["--ulimit=memlock=-1", "--ipc=host", "--gpus=all", "--gpus=all"],
        ["--gpus all --ipc=host", "--ulimit=memlock=-1"],
    ],
)
def test_every_spelling_of_the_platform_gives_one_form(spelling: str | list[str]) -> None:
    assert normalise_flags(spelling) == ("--gpus=all", "--ipc=host", "--ulimit=memlock=-1")


@pytest.mark.parametrize("spelling", ["-m 4g", "-m=4g", "-m4g", "--memory 4g", "--memory=4g"])
def test_short_flags_are_written_out(spelling: str) -> None:
    assert normalise_flags(spelling) == ("--memory=4g",)


def test_a_negative_number_is_a_value() -> None:
    assert normalise_flags("--memory-swap -1 --oom-score-adj -500") == (
        "--memory-swap=-1",
        "--oom-score-adj=-500",
    )


@pytest.mark.parametrize("spelling", ["--gpus '\"device=0,1\"'", ['--gpus="device=0,1"']])
def test_the_quotes_that_the_engine_reads_stay(spelling: str | list[str]) -> None:
    assert normalise_flags(spelling) == ('--gpus="device=0,1"',)


def test_a_switch_said_true_is_the_switch_and_said_false_is_none() -> None:
    assert normalise_flags(["--rm=true", "--init=false"]) == ("--rm",)


def test_repeatable_flags_keep_all_their_values() -> None:
    assert normalise_flags("--ulimit stack=1 --ulimit core=2") == ("--ulimit=core=2", "--ulimit=stack=1")


@given(CANONICAL)
def test_canonical_flags_stay_as_they_are(flags: list[str]) -> None:
    once = normalise_flags(flags)
    assert once == tuple(sorted(flags))
    assert normalise_flags(once) == once


@given(CANONICAL.flatmap(lambda flags: st.tuples(st.just(flags), st.permutations(flags))))
def test_order_does_not_matter(both: tuple[list[str], list[str]]) -> None:
    flags, shuffled = both
    assert normalise_flags(shuffled) == normalise_flags(flags)


@given(PAIRS, st.data())
def test_spelling_does_not_matter(pairs: dict[str, str], data: st.DataObject) -> None:
    spelled: list[str] = []
    for name, value in pairs.items():
        forms = [[f"--{name}={value}"], [f"--{name} {value}"], [f"--{name}", value]]
        spelled += data.draw(st.sampled_from(forms))
    assert normalise_flags(spelled) == normalise_flags([f"--{name}={value}" for name, value in pairs.items()])


@given(st.lists(st.text(st.sampled_from("-gpusallrmv=/ \n'\"\\x00 ") | st.characters())))
def test_whatever_is_accepted_is_canonical_printable_and_without_blanks(flags: list[str]) -> None:
    try:
        accepted = normalise_flags(flags)
    except ValueError:
        return
    assert normalise_flags(accepted) == accepted
    for flag in accepted:
        assert flag.startswith("--")
        assert flag.isprintable()
        assert not any(character.isspace() or character in "'\\" for character in flag)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_dangerous_is_refused_with_the_reason_unless_it_is_allowed(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"--{name} is refused: {REFUSED[name]}")):
        normalise_flags([f"--{name}=x"])
    assert normalise_flags([f"--{name}=x"], allow=[name]) == (f"--{name}=x",)


@pytest.mark.parametrize("spelling", ["-v /a:/b", "-v/a:/b", "--volume=/a:/b", "--volume /a:/b"])
def test_no_spelling_of_a_host_mount_gets_through(spelling: str) -> None:
    with pytest.raises(ValueError, match="it mounts a folder of the host"):
        normalise_flags(spelling)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["all"], "'all' is not a flag"),
        ([""], "'' is not a flag"),
        (["--"], "'--' is not a flag"),
        (["-gpus=all"], "--g is unknown"),
        (["--gpu=all"], 'did you mean "gpus"'),
        (["--gpus"], "--gpus needs a value"),
        (["--gpus="], "--gpus needs a value"),
        (["--gpus", "--ipc=host"], "--gpus needs a value"),
        (["--rm=7"], "--rm takes no value"),
        (["--gpus=all", "--gpus=1"], "--gpus=all and --gpus=1 contradict each other"),
        (["--log-opt 'tag=a b'"], "blanks"),
        (["--user=\x1b[31m"], "control characters"),
        (["--gpus 'all"], "cannot be split"),
    ],
)
def test_what_is_wrong_is_named(flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        normalise_flags(flags)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"--privileged is refused: .*; --gpus needs a value"):
        normalise_flags(["--privileged", "--gpus"])


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("--ulimit memlock=-1:-1", "--ulimit=memlock=-1"),
        ("--ulimit=nofile=1024:1024", "--ulimit=nofile=1024"),
        ("--ulimit nofile=1024:-1", "--ulimit=nofile=1024:-1"),
        ("--shm-size 8G", "--shm-size=8g"),
        ("--shm-size=8gb", "--shm-size=8g"),
        ("--memory 1.5GiB", "--memory=1.5g"),
        ("-m 512b", "--memory=512"),
        ("--gpus -1", "--gpus=all"),
        ("--gpus device=0,1", '--gpus="device=0,1"'),
        ("--gpus device=0", "--gpus=device=0"),
        ("--gpus all,capabilities=utility", None),
        ("--cap-drop cap_net_raw", "--cap-drop=NET_RAW"),
        ("--tmpfs /scratch:", "--tmpfs=/scratch"),
        ("--tmpfs /scratch:rw,size=64m", "--tmpfs=/scratch:rw,size=64m"),
        ("--runtime nvidia", "--runtime=nvidia"),
        ("--device /dev/nvidia0 --device /dev/nvidiactl", "--device=/dev/nvidia0 --device=/dev/nvidiactl"),
        ("--device nvidia.com/gpu=all", "--device=nvidia.com/gpu=all"),
    ],
)
def test_each_value_has_one_form(spelling: str, canonical: str | None) -> None:
    if canonical is None:
        with pytest.raises(ValueError, match="expected all, a number"):
            normalise_flags(spelling)
        return
    assert " ".join(normalise_flags(spelling)) == canonical
    assert " ".join(normalise_flags(normalise_flags(spelling))) == canonical


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--ulimit=a=1", "NAME=SOFT[:HARD]"),
        ("--ulimit=memlock=unlimited", "-1 for no limit"),
        ("--ulimit=nofile=2048:1024", "soft limit 2048 is above the hard limit 1024"),
        ("--ulimit=memlock=-1:1024", "above the hard limit"),
        ("--tmpfs=scratch", "absolute path"),
        ("--tmpfs=/", "absolute path"),
        ("--tmpfs=/a/../b", "absolute path"),
        ("--shm-size=lots", "a size like 512m"),
        ("--memory=-1", "a size like 512m"),
        ("--cpus=two", "a number like 1.5"),
        ("--cpuset-cpus=0..3", "0-3"),
        ("--pids-limit=many", "a whole number"),
        ("--gpus=some", "expected all, a number or device="),
        ("--ipc=container:other", "host, private, shareable or none"),
        ("--cap-drop=net-raw", "a capability like ALL"),
        ("--device=/dev/sda", "opens a device of the host"),
        ("--device=/dev/nvidia0/../sda", "opens a device of the host"),
        ("--network=host", "shares or changes the network"),
        ("--net host", "shares or changes the network"),
        ("--pid=host", "shares the host's processes"),
        ("--uts=host", "shares the host's name"),
        ("--userns=host", "shares the host's users"),
        ("-P", "opens ports of the host"),
        ("-h trainer", "only one container run"),
        ("--env-file=x", "belongs in [run] env"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_is_expected(flag: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        normalise_flags([flag])


def test_a_name_that_is_allowed_lets_only_its_own_flag_through() -> None:
    assert normalise_flags("--privileged --device /dev/fuse", allow=["privileged", "device"]) == (
        "--device=/dev/fuse",
        "--privileged",
    )
    with pytest.raises(ValueError, match="--privileged is refused"):
        normalise_flags("--privileged --device /dev/fuse", allow=["device"])


def test_every_flag_is_explained() -> None:
    explained = dict(explain_flags(normalise_flags("--gpus all --ipc host --pid host", allow=["pid"])))
    assert explained["--gpus=all"] == "which GPUs it sees"
    assert "64 MB" in explained["--ipc=host"]
    assert explained["--pid=host"] == "allowed by name: it shares the host's processes"
    assert dict(explain_flags(["--device=nvidia.com/gpu=0"])).popitem()[1] == "a GPU, by its device"
    assert "does not know" in explain_flags(["--made-up=1"])[0][1]


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ("--gpus all", True),
        ("--runtime=nvidia", True),
        ("--device nvidia.com/gpu=all", True),
        ("--device /dev/nvidia0", True),
        ("--ipc=host --runtime=runc", False),
    ],
)
def test_every_way_to_ask_for_a_gpu_is_known(flags: str, asked: bool) -> None:
    assert asks_for_gpu(normalise_flags(flags)) is asked


def test_the_tables_do_not_contradict_each_other() -> None:
    assert not (KNOWN.keys() & REFUSED.keys())


@pytest.mark.parametrize(
    ("flags", "gpus"),
    [
        (["--ipc=host"], None),
        (["--gpus all", "--ipc=host"], "all"),
        (["--gpus=2"], "2"),
        (['--gpus="device=0,1"'], "device=0,1"),
        (["--runtime=nvidia"], "1"),
    ],
)
def test_the_gpus_are_read_off_the_flags(flags: list[str], gpus: str | None) -> None:
    assert gpus_of(normalise_flags(flags)) == gpus
