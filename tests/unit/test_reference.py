"""Image references: the grammar of docker's own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import UsageError
from builder.reference import Reference, parse_reference, parse_repository

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
HOST = st.sampled_from(
    "registry.example.com registry.example.com:5000 localhost:5000 127.0.0.1:1 [::1]:5000 localhost".split()
)
REPOSITORY = st.builds(
    lambda host, parts: "/".join([*([host] if host else []), *parts]),
    st.none() | HOST,
    st.lists(COMPONENT, min_size=1, max_size=3),
)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
REFERENCE = st.builds(Reference, REPOSITORY, st.none() | TAG, st.none() | st.just(DIGEST))


@given(REFERENCE)
def test_a_reference_is_read_back_from_its_own_text(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(HOST, st.lists(COMPONENT, min_size=1, max_size=3))
def test_registry_and_path_are_the_two_halves_of_the_repository(host: str, parts: list[str]) -> None:
    reference = parse_reference("/".join([host, *parts]))
    assert (reference.registry, reference.path) == (host, "/".join(parts))


@given(st.lists(COMPONENT.filter(lambda part: "." not in part and part != "localhost"), min_size=1))
def test_a_name_without_a_host_is_of_the_default_registry(parts: list[str]) -> None:
    reference = Reference("/".join(parts))
    assert (reference.registry, reference.path) == (None, "/".join(parts))


@given(REFERENCE, st.data())
def test_blanks_newlines_quotes_and_shell_characters_are_never_accepted(
    reference: Reference, data: st.DataObject
) -> None:
    text = str(reference)
    position = data.draw(st.integers(0, len(text)))
    foreign = data.draw(st.sampled_from(list(" \t\n\r\0\"'`$\\;&|<>(){}#%,?*!~^+=\u2028\u00e9")))
    with pytest.raises(UsageError):
        parse_reference(text[:position] + foreign + text[position:])


@given(st.text())
def test_any_text_is_either_refused_or_round_trips(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A/b",
        "Vision/pedestrian",
        "vision/Pedestrian",
        "a//b",
        "/a",
        "a/",
        "a..b",
        "a:",
        "a@",
        "a:b:c",
        "a:-x",
        "a:" + "x" * 129,
        "a@sha256:abc",
        f"a@{DIGEST.upper()}",
        f"a@{DIGEST}@{DIGEST}",
        "x" * 256,
        "https://registry.example.com/a:1",
        "user:password@registry.example.com/a:1",
    ],
)
def test_what_docker_would_refuse_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(text)


def test_a_port_is_not_a_tag() -> None:
    assert parse_reference("localhost:5000/a") == Reference("localhost:5000/a")
    assert parse_reference("localhost:5000/a:1") == Reference("localhost:5000/a", "1")


def test_a_very_long_text_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="not a valid image name"):
        parse_repository("a-" * 500_000)


def test_a_repository_has_no_tag() -> None:
    with pytest.raises(ValueError, match="without a tag"):
        parse_repository("vision/pedestrian:1")


def test_a_password_in_front_of_the_host_is_not_repeated() -> None:
    for text in ("user:s3cret@registry.example.com/a:1", "https://user:s3cret@registry.example.com/a"):
        with pytest.raises(UsageError) as caught:
            parse_reference(text)
        assert "s3cret" not in str(caught.value)
