"""Every check passes on an image that keeps the contract, and fails on one that breaks its promise."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from commands import succeed, trainpack

from builder.checks.context import Context
from builder.checks.contract import CHECKS, Check
from builder.checks.report import last_report, read_report
from builder.checks.runner import Train, check_image
from builder.containers import find_image

pytest_plugins = ["contract_image"]
pytestmark = pytest.mark.engine

Changed = Callable[[Sequence[str]], str]
PACKAGE = "/opt/trainpack/lib/python3.11/site-packages/trainpack_entrypoint"
NOT_ROOT = "USER 1000:1000"


def in_entrypoint(module: str, code: str) -> list[str]:
    """Dockerfile lines that append Python to a module of the entrypoint."""
    encoded = base64.b64encode(f"\n{code}\n".encode()).decode()
    return as_root(f"echo {encoded} | base64 -d >> {PACKAGE}/{module}.py")


def as_root(command: str) -> list[str]:
    return ["USER root", f"RUN {command}", NOT_ROOT]


# What is broken → the check that must see it, what it then says, and the Dockerfile lines that break it.
BROKEN = {
    "entrypoint-replaced": (
        "entrypoint",
        "expected ['/usr/bin/tini'",
        ['ENTRYPOINT ["/opt/venv/bin/python", "/opt/app/train.py"]'],
    ),
    "arguments-baked-in": ("entrypoint", "expected none", ['CMD ["--epochs", "5"]']),
    "manifest-removed": (
        "entrypoint",
        "no /opt/trainpack/image.json",
        as_root("rm /opt/trainpack/image.json"),
    ),
    "label-untrue": ("labels", "io.trainpack.lock is", [f"LABEL io.trainpack.lock={'d' * 64}"]),
    "label-missing": ("labels", "missing: io.trainpack.plan", ['LABEL io.trainpack.plan=""']),
    "root-by-default": ("non-root", "the default user is 'root'", ["USER root"]),
    "code-for-one-group": (
        "any-user",
        "Permission denied",
        as_root("chgrp -R 1000 /opt/app && chmod -R o-rwx /opt/app"),
    ),
    "writes-outside": (
        "read-only-root",
        "Read-only file system",
        [*as_root("mkdir -m 1777 /scratch"), *in_entrypoint("__init__", "open('/scratch/x', 'w').close()")],
    ),
    "needs-a-network": (
        "no-network",
        "if_nameindex",
        in_entrypoint("__init__", "import socket; assert len(socket.if_nameindex()) > 1"),
    ),
    "needs-shared-memory": (
        "small-shm",
        "/dev/shm",
        in_entrypoint("__init__", "import os; assert os.statvfs('/dev/shm').f_blocks > 4096"),
    ),
    "needs-capabilities": (
        "no-capabilities",
        "CapBnd",
        in_entrypoint(
            "__init__", "assert 'CapBnd:\\t0000000000000000' not in open('/proc/self/status').read()"
        ),
    ),
    "drops-parameters": (
        "parameters",
        "epochs: expected 3",
        in_entrypoint("command", "option = lambda parameter, value: []"),
    ),
    "drops-the-labelmap": (
        "labelmap",
        "trainpack-probe-a",
        in_entrypoint(
            "sources",
            "_all = mounted_sources\n"
            "mounted_sources = lambda *given: [each for each in _all(*given) if each.labelmap is None]",
        ),
    ),
    "takes-unknown-parameters": (
        "bad-parameter",
        "ended with 0",
        in_entrypoint("sources", "environment_source = lambda environment: Source(SET)"),
    ),
    "hides-the-exit-code": (
        "exit-code",
        "ended with 1",
        in_entrypoint("__init__", "import os; _exit = os._exit; os._exit = lambda code: _exit(min(code, 1))"),
    ),
    "swallows-signals": (
        "signal",
        "never reached the script",
        in_entrypoint(
            "__init__",
            "import signal; signal.signal(15, signal.SIG_IGN); signal.signal = lambda *given: None",
        ),
    ),
    "ends-as-if-complete": (
        "signal",
        "expected 143",
        in_entrypoint("__init__", "import os; _exit = os._exit; os._exit = lambda code: _exit(code % 143)"),
    ),
    "collects-nothing": (
        "outputs",
        "missing in outputs",
        in_entrypoint("outputs", "_files = lambda *given: iter(())"),
    ),
    "world-writable": ("writable", "/opt/venv/lib", as_root("chmod 777 /opt/venv/lib")),
    "secret-file": ("contents", "/opt/app/.env", as_root("echo token=1 > /opt/app/.env")),
    "private-key": (
        "contents",
        "/opt/app/server.pem",
        as_root("printf -- '-----BEGIN RSA PRIVATE KEY-----' > /opt/app/server.pem"),
    ),
    "version-control": ("contents", "/opt/app/.git", as_root("mkdir -p /opt/app/.git/objects")),
    "pip-cache": (
        "contents",
        "/root/.cache/pip",
        as_root("mkdir -p /root/.cache/pip/http && touch /root/.cache/pip/http/0"),
    ),
    "apt-lists": (
        "contents",
        "a_Packages",
        as_root("mkdir -p /var/lib/apt/lists && touch /var/lib/apt/lists/a_Packages"),
    ),
    "compiler": ("contents", "gcc-12", as_root("touch /usr/bin/x86_64-linux-gnu-gcc-12")),
}


def check_named(name: str) -> Check:
    return next(check for check in CHECKS if check.name == name)


@pytest.mark.parametrize(("name", "seen", "lines"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_caught_by_its_own_check(
    name: str, seen: str, lines: list[str], changed_image: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.checks.context.PATIENCE", 8.0)
    result = check_named(name).run(Context(find_image(changed_image(lines))))
    assert result.status == "failed", result.detail
    assert seen in result.detail
    assert result.remedy


def test_every_check_has_a_broken_image() -> None:
    assert {check.name for check in CHECKS} == {name for name, _, _ in BROKEN.values()}


def test_an_image_that_keeps_the_contract_passes_every_check(contract_image: str) -> None:
    report = check_image(find_image(contract_image), train=Train({}))
    assert [each for each in report.results if each.status != "passed"] == []
    assert report.passed
    assert len(report.results) == len(CHECKS) + 1


def test_a_script_that_does_not_train_is_caught(changed_image: Changed) -> None:
    image = changed_image(as_root("echo 'raise SystemExit(1)' > /opt/app/train.py"))
    result = Train({}).run(Context(find_image(image)))
    assert result.status == "failed"
    assert "ended with 1" in result.detail


def test_the_command_tells_a_failure_and_keeps_the_record(changed_image: Changed, tmp_path: Path) -> None:
    image = changed_image(["USER root"])
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
