"""Every check passes on an image that keeps the contract, and fails on one that breaks its promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from commands import succeed, trainpack

from builder.checks.context import Context
from builder.checks.contract import CHECKS, Check
from builder.checks.report import last_report, read_report
from builder.checks.runner import Train, check_image
from builder.engine import client
from builder.engine.containers import find_image
from builder.workdir import last_build

pytest_plugins = ["contract_image"]
pytestmark = pytest.mark.engine

Changed = Callable[[Path], str]
# A folder each: its Dockerfile breaks one promise, and names the check that must see it.
BROKEN = sorted((Path(__file__).parents[1] / "broken_images").iterdir())


ROOT_BY_DEFAULT = next(broken for broken in BROKEN if broken.name == "root-by-default")


def expectation(broken: Path) -> tuple[str, str]:
    """The check that must fail, and what it then says: the first two comments."""
    check, says = (broken / "Dockerfile").read_text().splitlines()[:2]
    return check.removeprefix("# check: "), says.removeprefix("# says: ")


def check_named(name: str) -> Check:
    return next(check for check in CHECKS if check.name == name)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda folder: folder.name)
def test_a_broken_promise_is_caught_by_its_own_check(
    broken: Path, changed_image: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.checks.context.PATIENCE", 8.0)
    name, says = expectation(broken)
    result = check_named(name).run(Context(find_image(changed_image(broken))))
    assert result.status == "failed", result.detail
    assert says in result.detail
    assert result.remedy


def test_every_check_has_a_broken_image() -> None:
    assert {check.name for check in CHECKS} == {expectation(broken)[0] for broken in BROKEN}


def test_an_image_that_keeps_the_contract_passes_every_check(contract_image: str) -> None:
    report = check_image(find_image(contract_image), train=Train({}))
    assert [each for each in report.results if each.status != "passed"] == []
    assert report.passed
    assert len(report.results) == len(CHECKS) + 1


def test_a_script_that_does_not_train_is_caught(changed_image: Changed, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.py").write_text("raise SystemExit(1)")
    (tmp_path / "broken" / "Dockerfile").write_text("COPY train.py /opt/app/train.py\n")
    result = Train({}).run(Context(find_image(changed_image(tmp_path / "broken"))))
    assert result.status == "failed"
    assert "ended with 1" in result.detail


def test_the_command_tells_a_failure_and_keeps_the_record(changed_image: Changed, tmp_path: Path) -> None:
    image = changed_image(ROOT_BY_DEFAULT)
    image_id = find_image(image).image_id
    done = trainpack(tmp_path, "test", image, "--junit", "report.xml", "--record", "record.json")
    assert done.code == 1, done.stderr
    assert "non-root" in done.stdout
    assert "USER 1000:1000" in done.stdout
    report = read_report(tmp_path / "record.json")
    assert (report.passed, report.image_id) == (False, image_id)
    assert last_report(tmp_path, image_id) == report
    failed = ET.parse(tmp_path / "report.xml").findall("testcase[failure]")
    assert "non-root" in {case.get("name") for case in failed}


def test_json_is_the_report_on_stdout(contract_image: str, tmp_path: Path) -> None:
    document = succeed(tmp_path, "test", contract_image, "--json").json
    assert document["passed"] is True
    assert {each["name"] for each in document["results"]} == {check.name for check in CHECKS}


def test_an_image_that_is_older_than_its_folder_is_tested_and_said_to_be(
    base_image: str, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print('training')\n")
    succeed(tmp_path, "wrap", "train.py", "--name", "registry.example.com/tests/older")
    built = succeed(tmp_path, "build", "--json").json
    try:
        (tmp_path / "requirements.txt").write_text("tomli-w\n")
        succeed(tmp_path, "lock")
        done = trainpack(tmp_path, "test")
        assert done.code == 0, done.output
        assert "older than its folder, where this changed: light wheels" in done.stderr
        assert "lock " in done.stderr
        assert "`trainpack build`" in done.stderr
        succeed(tmp_path, "build")
        assert "older than its folder" not in succeed(tmp_path, "test").stderr
    finally:
        for image in {built["image_id"], last_build(tmp_path).image_id}:
            client().images.remove(image, force=True)
