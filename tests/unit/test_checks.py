from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trainpack_entrypoint.schema import Parameter
from trainpack_entrypoint.script.command import option

from builder.checks import probe
from builder.checks.context import Context, Observation, probe_source
from builder.checks.contract import CHECKS, Check, NotShownError, ended, package_differences
from builder.checks.junit import junit
from builder.checks.layers import SavedImage
from builder.checks.report import CheckResult, Report
from builder.checks.runner import check_image
from builder.checks.values import missing_values, other_value
from builder.cli.test import text
from builder.errors import ContractError
from builder.plan import BuiltImage

IMAGE = BuiltImage(
    reference="registry.example.com/x:1", image_id="sha256:1", digest=None, tag="1", size=1, layers=()
)

PARAMETERS = st.one_of(
    st.integers(-1000, 1000).map(lambda value: Parameter("p", "int", value)),
    st.floats(-1e6, 1e6).map(lambda value: Parameter("p", "float", value)),
    st.booleans().map(lambda value: Parameter("p", "bool", value)),
    st.text(max_size=5).map(lambda value: Parameter("p", "str", value)),
    st.lists(st.integers(0, 3), max_size=3).map(lambda value: Parameter("p", "list[int]", value)),
    st.lists(st.text(max_size=3), max_size=3).map(lambda value: Parameter("p", "list[str]", value)),
    st.tuples(st.integers(0, 5), st.integers(1, 5)).map(
        lambda pair: Parameter("p", "int", pair[0], ge=pair[0], le=pair[0] + pair[1])
    ),
    st.floats(0.001, 1).map(lambda value: Parameter("p", "float", value, gt=0, lt=value * 2)),
    st.just(Parameter("p", "str", "adam", choices=("adam", "sgd"))),
    st.just(Parameter("p", "dict", {})),
    st.just(Parameter("p", "any", None)),
    st.just(Parameter("p", "float", required=True, gt=0, lt=0.5)),
    st.just(Parameter("p", "int", None, optional=True)),
)


@given(PARAMETERS)
def test_another_value_is_legal_and_not_the_default(parameter: Parameter) -> None:
    value = other_value(parameter)
    assert value is not None
    assert value != parameter.default
    assert parameter.coerce(value) == value


@pytest.mark.parametrize(
    "parameter",
    [Parameter("p", "int", 3, ge=3, le=3), Parameter("p", "str", "adam", choices=("adam",))],
)
def test_where_nothing_else_is_legal_there_is_no_other_value(parameter: Parameter) -> None:
    assert other_value(parameter) is None


def _seen(parameter: Parameter, value: Any, argv: list[str]) -> dict[str, Any]:
    return {"parameters": {parameter.name: value}, "argv": argv, "variables": {}}


@given(PARAMETERS)
def test_a_value_passed_as_the_entrypoint_does_is_found_and_another_one_is_not(parameter: Parameter) -> None:
    value = other_value(parameter)
    argv = option(parameter, value)
    parameters, given_values = {"p": parameter}, {"p": value}
    assert missing_values(parameters, given_values, _seen(parameter, value, argv), "argv") == []
    assume(argv or value is False)
    wrong = option(parameter, parameter.default) if value is not False else ["--p"]
    assert missing_values(parameters, given_values, _seen(parameter, value, wrong), "argv")


@pytest.mark.parametrize(
    ("seen", "arguments"),
    [
        ({"parameters": {"p": 4}, "argv": ["--p", "4"], "variables": {"p": "4"}}, "file"),
        ({"parameters": None, "argv": [], "variables": {}}, "file"),
        ({"parameters": {"p": 3}, "argv": ["--p", "3"], "variables": {"p": None}}, "env"),
        ({"parameters": {"p": 3}, "argv": ["--p", "3"], "variables": {"p": "4"}}, "env"),
        ({"parameters": {"p": 3}, "argv": [], "variables": {"p": "3"}}, "argv"),
        ({"parameters": {"p": 3}, "argv": ["--p", "3"], "variables": {}}, "overrides"),
    ],
)
def test_a_value_must_arrive_in_the_declared_way(seen: dict[str, Any], arguments: str) -> None:
    assert missing_values({"p": Parameter("p", "int", 1)}, {"p": 3}, seen, arguments) == ["p: expected 3"]


def test_values_in_the_environment_are_found() -> None:
    parameters = {"p": Parameter("p", "int", 1, argument="P"), "q": Parameter("q", "list[int]", [])}
    variables = {"P": "3", "q": "[1, 2]"}
    seen = {"parameters": {"p": 3, "q": [1, 2]}, "argv": [], "variables": variables}
    assert missing_values(parameters, {"p": 3, "q": [1, 2]}, seen, "env") == []


def test_the_probe_finds_what_is_writable(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.pt").write_text("weights")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert {Path(path).name for path in probe.writable(str(tmp_path))} == {"folder", "weights.pt"}


def test_the_probe_finds_what_is_installed(tmp_path: Path) -> None:
    metadata = tmp_path / "Pillow-13.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.4\nName: Pillow\nVersion: 13.0\n\nVersion: of a description\n")
    assert probe.packages(str(tmp_path).lstrip("/")) == {"Pillow": "13.0"}


def test_packages_are_compared_whatever_the_spelling() -> None:
    locked = {"Pillow": "13.0", "ruamel.yaml": "0.18.0", "torch": "2.9.0+cpu", "gone": "1"}
    installed = {"pillow": "13.0.0", "ruamel-yaml": "0.18.0", "torch": "2.9.0", "pip": "26"}
    assert package_differences(locked, installed) == [
        "missing: gone",
        "not locked: pip",
        "other versions: torch 2.9.0 instead of 2.9.0+cpu",
    ]


def test_the_probe_reports_and_ends_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parameters.json").write_text('{"epochs": 3}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINPACK_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("TRAINPACK_INPUTS", str(tmp_path))
    monkeypatch.setenv("A_SECRET", "hunter2")
    source = probe_source({"exit": 37, "variables": ["HOME"]})
    with pytest.raises(SystemExit) as ending:
        exec(compile(source, "train.py", "exec"), {"__name__": "__main__"})
    assert ending.value.code == 37
    report = json.loads((tmp_path / probe.REPORT).read_text())
    assert report["parameters"] == {"epochs": 3}
    assert "A_SECRET" in report["environment"]
    assert "hunter2" not in json.dumps(report)
    assert (tmp_path / probe.RELATIVE).is_file()


def _observation(**fields: Any) -> Observation:
    values: dict[str, Any] = {
        "lines": (),
        "report": None,
        "result": {},
        "failure": {},
        "outputs": frozenset(),
    }
    return Observation(**{"exit_code": 0, **values, **fields})


def test_another_ending_than_expected_says_what_the_container_said() -> None:
    with pytest.raises(ContractError, match=r"ended with 3: no memory; expected 0"):
        ended(_observation(exit_code=3, lines=("", "no memory")))


def test_a_container_that_had_to_be_killed_never_passes() -> None:
    with pytest.raises(ContractError, match="had to be killed"):
        ended(_observation(exit_code=None), 137)


def test_a_probe_that_never_ran_is_a_broken_promise() -> None:
    with pytest.raises(ContractError, match="left no report"):
        _ = _observation().seen


class Passing(Check):
    name, proves, remedy = "passing", "it passes", "nothing"

    def _look(self, context: Context) -> str:
        return "seen"


class Failing(Check):
    name, proves, remedy = "failing", "it fails", "mend it"

    def _look(self, context: Context) -> str:
        raise ContractError("met \x1b[0m <this> & not that")


class NotShown(Check):
    name, proves, remedy = "not-shown", "it cannot be seen", "build again"

    def _look(self, context: Context) -> str:
        raise NotShownError("nothing says so")


class Faulty(Check):
    name, proves, remedy = "faulty", "", ""

    def _look(self, context: Context) -> str:
        raise ZeroDivisionError


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "plain", None)
    monkeypatch.setattr(Context, "saved", SavedImage({}, ()))


@pytest.mark.usefixtures("no_engine")
def test_one_failure_fails_the_report_and_keeps_the_order() -> None:
    told: list[CheckResult] = []
    report = check_image(IMAGE, checks=[Passing(), Failing(), Passing()], tell=told.append)
    assert [each.status for each in report.results] == ["passed", "failed", "passed"]
    assert tuple(told) == report.results
    assert not report.passed
    assert report.results[1].remedy == "mend it"
    assert report.results[0].remedy == ""


@pytest.mark.usefixtures("no_engine")
def test_what_an_image_cannot_show_is_neither_passed_nor_failed() -> None:
    report = check_image(IMAGE, checks=[Passing(), NotShown()])
    assert (report.results[1].status, report.passed) == ("skipped", True)


@pytest.mark.usefixtures("no_engine")
def test_a_fault_of_ours_is_no_result() -> None:
    with pytest.raises(ZeroDivisionError):
        check_image(IMAGE, checks=[Passing(), Faulty()])


def _report() -> Report:
    results = tuple(check.run(Context(IMAGE)) for check in (Passing(), Failing()))
    return Report(reference=IMAGE.reference, image_id=IMAGE.image_id, results=results)


def test_junit_counts_failures_and_survives_what_a_script_prints() -> None:
    suite = ET.fromstring(junit(_report()))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failure = suite.find("testcase[@name='failing']/failure")
    assert failure is not None
    assert "<this> & not that" in str(failure.get("message"))
    assert suite.find("testcase[@name='passing']/failure") is None


def test_the_table_tells_the_remedy_of_a_failure() -> None:
    shown = text(_report())
    assert "→ mend it" in shown
    assert "1 of 2 checks passed" in shown


def test_names_are_unique_and_every_check_says_what_it_proves() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.proves and check.remedy for check in CHECKS)


def test_the_documentation_lists_every_check_with_what_it_proves() -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    assert [check.name for check in CHECKS if f"| `{check.name}` | {check.proves} |" not in text] == []
