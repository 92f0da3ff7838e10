"""`docker run` flags: every spelling gives one canonical form; what is dangerous is named and refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.flags import REFUSED, REPEATABLE, SWITCHES, TAKES_VALUE, gpus_of, normalise_flags

VALUES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="'\\"), min_size=1).filter(
    lambda value: not value.startswith("-")
)
PAIRS = st.dictionaries(
    st.sampled_from(sorted(TAKES_VALUE)), VALUES.filter(lambda value: '"' not in value), max_size=5
)
CANONICAL = st.builds(
    lambda pairs, switches: (
        [f"--{name}={value}" for name, value in pairs.items()] + [f"--{name}" for name in switches]
    ),
    PAIRS,
    st.sets(st.sampled_from(sorted(SWITCHES))),
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
    assert normalise_flags("--ulimit a=1 --ulimit b=2") == ("--ulimit=a=1", "--ulimit=b=2")


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


def test_the_tables_do_not_contradict_each_other() -> None:
    assert not (TAKES_VALUE & SWITCHES)
    assert not ((TAKES_VALUE | SWITCHES) & REFUSED.keys())
    assert REPEATABLE <= TAKES_VALUE


@pytest.mark.parametrize(
    ("flags", "gpus"),
    [
        (["--ipc=host"], None),
        (["--gpus all", "--ipc=host"], "all"),
        (["--gpus=2"], "2"),
        (['--gpus="device=0,1"'], "device=0,1"),
    ],
)
def test_the_gpus_are_read_off_the_flags(flags: list[str], gpus: str | None) -> None:
    assert gpus_of(normalise_flags(flags)) == gpus
