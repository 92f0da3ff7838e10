"""The pytest plugin where there is nothing to run: it costs nothing, and says why it does nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

HEAVY = {"builder.run", "cookiecutter", "docker", "jinja2", "pydantic", "requests", "typer", "uv"}
TEST = """
def test_it_learns(trainpack_run):
    assert trainpack_run(parameters={"epochs": 1}).exit_code == 0

def test_of_a_function():
    assert True
"""


@pytest.fixture
def tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A training repo's tests, on a machine without an engine."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.delenv("CI", raising=False)
    pytester.makepyfile(test_train=TEST)
    return pytester


def test_loading_the_plugin_imports_nothing_that_pytest_does_not() -> None:
    code = "import sys, pytest; import builder.pytest_plugin; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) & HEAVY == set()


def test_without_an_engine_tests_of_the_image_are_skipped_and_say_why(tests: pytest.Pytester) -> None:
    result = tests.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines("*no container engine answers at unix:///nowhere/docker.sock*")


def test_without_an_engine_tests_of_the_image_fail_in_ci(
    tests: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = tests.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines("*no container engine answers*")
    result.stdout.fnmatch_lines("*→ start Docker*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_tests_of_the_image_carry_a_marker_to_leave_them_out(tests: pytest.Pytester) -> None:
    result = tests.runpytest_subprocess("--strict-markers", "-m", "not trainpack")
    result.assert_outcomes(passed=1, deselected=1)


def test_a_session_that_asks_for_no_image_imports_none_of_trainpack(tests: pytest.Pytester) -> None:
    tests.makepyfile(
        test_train=f"""
        import sys

        def test_of_a_function():
            assert sys.modules.keys() & {HEAVY!r} == set()
        """
    )
    tests.runpytest_subprocess().assert_outcomes(passed=1)
