"""What a parameter and a labelmap may be."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from trainpack_entrypoint.schema import (
    TYPES,
    Parameter,
    close_match,
    is_secret,
    labelmap_gaps,
    parse_labelmap,
    type_of,
)

_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_BOUND = st.none() | st.integers(-100, 100).map(float)
_PARAMETERS = st.builds(
    Parameter,
    name=st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]*", fullmatch=True),
    type=st.sampled_from(TYPES),
    default=_JSON,
    required=st.booleans(),
    optional=st.booleans(),
    choices=st.none() | st.lists(_JSON, max_size=3).map(tuple),
    gt=_BOUND,
    ge=_BOUND,
    lt=_BOUND,
    le=_BOUND,
    argument=st.none() | st.text(),
    argument_false=st.none() | st.text(),
    help=st.none() | st.text(),
)
_KINDS = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict}


@pytest.mark.parametrize(
    ("kind", "given_value", "expected"),
    [
        ("int", 3, 3),
        ("int", 3.0, 3),
        ("int", "3", 3),
        ("int", "3.0", 3),
        ("int", "-1e3", -1000),
        ("float", 3, 3.0),
        ("float", "1e-4", 0.0001),
        ("bool", "true", True),
        ("bool", "Off", False),
        ("bool", True, True),
        ("str", "3", "3"),
        ("list[int]", "1, 2", [1, 2]),
        ("list[int]", "[1, 2.0]", [1, 2]),
        ("list[float]", [1, 2.5], [1.0, 2.5]),
        ("list[str]", "", []),
        ("list[str]", "a,b", ["a", "b"]),
        ("dict", '{"a": 1}', {"a": 1}),
        ("dict", {"a": 1}, {"a": 1}),
        ("any", {"a": [None]}, {"a": [None]}),
        ("any", None, None),
    ],
)
def test_a_value_is_read_as_the_declared_type(kind: str, given_value: Any, expected: Any) -> None:
    result = Parameter("it", type=kind).coerce(given_value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "abc"),
        ("int", 3.5),
        ("int", True),
        ("int", "1e400"),
        ("int", []),
        ("float", "fast"),
        ("float", "nan"),
        ("float", 10**400),
        ("float", False),
        ("bool", 1),
        ("bool", "maybe"),
        ("str", 3),
        ("list[int]", "1,x"),
        ("list[int]", "[1"),
        ("list[int]", "[" * 100_000),
        ("list[bool]", [1]),
        ("dict", "[1]"),
        ("dict", "{"),
        ("int", None),
    ],
)
def test_another_type_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"is not an? "):
        Parameter("it", type=kind).coerce(value)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [({"gt": 0}, 0.1, 0), ({"ge": 0}, 0, -0.1), ({"lt": 1}, 0.9, 1), ({"le": 1}, 1, 1.1)],
)
def test_bounds_hold_for_values_and_for_the_items_of_lists(
    bounds: dict[str, float], inside: float, outside: float
) -> None:
    Parameter("it", type="float", **bounds).coerce(inside)  # type: ignore[arg-type]
    for kind, value in (("float", outside), ("list[float]", [inside, outside])):
        with pytest.raises(ValueError, match="out of bounds: it must be"):
            Parameter("it", type=kind, **bounds).coerce(value)  # type: ignore[arg-type]


def test_a_choice_that_does_not_exist_is_refused_with_a_suggestion() -> None:
    parameter = Parameter("optimizer", type="str", choices=("sgd", "adam"))
    assert parameter.coerce("adam") == "adam"
    with pytest.raises(ValueError, match=r'"adma" is not one of "sgd", "adam"; did you mean "adam"\?'):
        parameter.coerce("adma")


@pytest.mark.parametrize("text", ["null", "None", ""])
def test_null_is_legal_only_for_an_optional_parameter(text: str) -> None:
    assert Parameter("seed", type="int", optional=True).coerce(text) is None
    with pytest.raises(ValueError, match="is not an int"):
        Parameter("seed", type="int").coerce(text)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("any", "3", 3),
        ("any", "[1, null]", [1, None]),
        ("any", "plain", "plain"),
        ("any", "NaN", "NaN"),
        ("str", "3", "3"),
        ("str", "true", "true"),
        ("str", '"quoted"', "quoted"),
        ("int", "3", 3),
        ("list[str]", "1,2", ["1", "2"]),
    ],
)
def test_text_is_json_where_it_can_be_and_plain_otherwise(kind: str, text: str, expected: Any) -> None:
    assert Parameter("it", type=kind).from_text(text) == expected


@given(parameter=_PARAMETERS, value=_JSON)
@example(parameter=Parameter("it", type="float"), value=10**400)
def test_coerce_returns_the_declared_type_or_raises_value_error(parameter: Parameter, value: Any) -> None:
    try:
        result = parameter.coerce(value)
    except ValueError:
        return
    if result is None or parameter.type == "any":
        return
    assert type(result) is _KINDS[parameter.type.partition("[")[0]]
    if parameter.type.startswith("list"):
        assert isinstance(result, list)
        assert all(type(item) is _KINDS[parameter.type[5:-1]] for item in result)


@given(parameter=_PARAMETERS, value=_JSON)
def test_coerce_is_idempotent(parameter: Parameter, value: Any) -> None:
    try:
        result = parameter.coerce(value)
    except ValueError:
        return
    assert parameter.coerce(result) == result


@given(parameter=_PARAMETERS, text=st.text())
def test_any_text_is_read_or_refused_as_a_value_error(parameter: Parameter, text: str) -> None:
    with contextlib.suppress(ValueError):
        parameter.from_text(text)


@given(parameter=_PARAMETERS)
def test_a_parameter_survives_json(parameter: Parameter) -> None:
    document = json.loads(json.dumps(parameter.to_json()))
    assert Parameter.from_json(parameter.name, document) == parameter


def test_keys_of_a_newer_trainpack_are_ignored() -> None:
    assert Parameter.from_json("it", {"type": "int", "default": 1, "colour": "red"}) == Parameter(
        "it", type="int", default=1
    )


def test_the_manifest_form_holds_only_what_differs() -> None:
    assert Parameter("it", type="int", default=1, ge=0).to_json() == {"type": "int", "default": 1, "ge": 0}


@pytest.mark.parametrize(
    ("default", "kind"),
    [
        (True, "bool"),
        (1, "int"),
        (1.0, "float"),
        ("x", "str"),
        ({}, "dict"),
        (None, "any"),
        ([], "any"),
        ([1, 2], "list[int]"),
        ([1, 2.5], "list[float]"),
        ([1, "x"], "any"),
        ([[1]], "any"),
    ],
)
def test_a_bare_default_stands_for_its_type(default: Any, kind: str) -> None:
    assert type_of(default) == kind


@pytest.mark.parametrize("name", ["api_token", "API_KEY", "hf-token", "db_password", "credential_file"])
def test_a_secret_is_told_by_its_name(name: str) -> None:
    assert is_secret(name)
    assert Parameter(name).is_secret
    assert not is_secret("learning_rate")


def test_a_labelmap_keeps_order_and_first_index() -> None:
    assert list(parse_labelmap({"2": "b", "1": "a"}).items()) == [("2", "b"), ("1", "a")]


def test_every_problem_of_a_labelmap_is_told() -> None:
    with pytest.raises(ValueError, match="whole number") as caught:
        parse_labelmap({"01": "a", "1": 3, "2": "a", "3": " "})
    assert len(str(caught.value).split("; ")) == 4


@pytest.mark.parametrize("data", [[], "x", None, 3])
def test_a_labelmap_is_an_object(data: Any) -> None:
    with pytest.raises(ValueError, match="expected an object"):
        parse_labelmap(data)


def test_gaps_are_between_first_and_last() -> None:
    assert labelmap_gaps({"1": "a", "4": "b"}) == [2, 3]
    assert labelmap_gaps({}) == []


def test_a_close_name_is_suggested_and_a_far_one_is_not() -> None:
    assert close_match("epoch", ["epochs", "rate"]) == '; did you mean "epochs"?'
    assert close_match("zoo", ["epochs", "rate"]) == ""
