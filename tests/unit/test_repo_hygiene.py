"""What no file of this repo may hold, and what every part of it must keep."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from builder.models.records import Framework, InferenceType
from builder.spec import (
    ImageSpec,
    ModelSpec,
    OutputsSpec,
    ParameterSpec,
    RunSpec,
    TrainingSpec,
)

ROOT = Path(__file__).parents[2]

# Written in parts, so that this file does not hold what it forbids.
HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("deb", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("ftp", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("docker", "io/"),
        ("hub", "docker", "com"),
        ("index", "docker", "io"),
        ("gcr", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("nvcr", "io"),
        ("conda", "anaconda", "org"),
    )
]
MACHINE_PATHS = ["/" + path for path in ("work/", "opt/" + "wheels", "opt/" + "pypi", "Users/")]
LOCK = re.compile(r"(^|/)pylock(\.[^/]+)?\.toml$")
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")


def repo_files() -> list[Path]:
    """What git tracks or would take in: not what it ignores, not what is deleted."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [ROOT / name for name in sorted(set(listed.split("\0")) - {""}) if (ROOT / name).is_file()]


def places(pattern: str) -> list[str]:
    """`file:line` of every line that the pattern is found in."""
    found = re.compile(pattern)
    return [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in repo_files()
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if found.search(line)
    ]


def test_the_repo_is_seen() -> None:
    names = {str(file.relative_to(ROOT)) for file in repo_files()}
    assert {"pyproject.toml", "builder/__init__.py", "tests/unit/test_repo_hygiene.py"} <= names


@pytest.mark.parametrize("host", HOSTS)
def test_no_file_names_the_host_of_an_index_a_mirror_or_a_registry(host: str) -> None:
    # `host.com.evil` or `mypypi.org` are other names; the dot before, as in files.HOST, is the same host.
    assert places(rf"(?<![\w-]){re.escape(host)}") == []


@pytest.mark.parametrize("path", MACHINE_PATHS)
def test_no_file_names_a_path_of_one_machine(path: str) -> None:
    assert places(rf"(?<![\w.$}}-]){path}") == []


def test_no_lock_that_records_an_index_is_committed() -> None:
    assert [name for file in repo_files() if LOCK.search(name := str(file.relative_to(ROOT)))] == []


def test_no_file_holds_a_private_key_or_a_merge_conflict() -> None:
    assert places(r"^-----BEGIN [A-Z ]*" + r"PRIVATE KEY-----") == []
    assert places("^(" + "<" * 7 + "|" + ">" * 7 + ") ") == []


def test_the_license_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_test_module_has_a_name_of_its_own() -> None:
    names = Counter(file.name for file in repo_files() if file.is_relative_to(ROOT / "tests"))
    assert [name for name, count in names.items() if name.startswith("test_") and count > 1] == []


def test_every_test_file_lies_where_pytest_looks() -> None:
    tests = [file for file in repo_files() if file.name.startswith("test_") and file.suffix == ".py"]
    outside = [file.relative_to(ROOT) for file in tests if not file.is_relative_to(ROOT / "tests")]
    # What a scaffold generates has tests of its own.
    assert [file for file in outside if file.parts[0] != "scaffolds"] == []


def test_every_relative_link_of_the_documentation_leads_to_a_file() -> None:
    documents = [file for file in repo_files() if file.suffix == ".md" and "scaffolds" not in file.parts]
    assert ROOT / "README.md" in documents
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", target) and not (document.parent / target.split("#")[0]).exists()
    ]
    assert broken == []


def keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


@pytest.mark.parametrize("model", [ImageSpec, RunSpec, OutputsSpec, ModelSpec, ParameterSpec])
def test_every_key_of_a_table_is_in_the_spec_reference(model: type[BaseModel]) -> None:
    # In the first cell of a row of the table's own section.
    title = {"ParameterSpec": "parameters"}.get(model.__name__, model.__name__.removesuffix("Spec").lower())
    section = re.split(r"^## ", (ROOT / "docs" / "spec.md").read_text(encoding="utf-8"), flags=re.M)
    text = next(part for part in section if part.startswith(f"`[{title}]`"))
    documented = {
        key for row in re.findall(r"^\| (.*?) \|", text, re.M) for key in re.findall(r"`([^`]+)`", row)
    }
    assert documented == set(keys_of(model))


def test_every_table_is_in_the_spec_reference() -> None:
    sections = re.findall(r"^## `\[(\w+)\]`", (ROOT / "docs" / "spec.md").read_text(encoding="utf-8"), re.M)
    assert sections == keys_of(TrainingSpec)


def test_every_choice_of_a_key_is_in_the_spec_reference() -> None:
    text = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    assert [
        value for value in (*get_args(Framework), *get_args(InferenceType)) if f"`{value}`" not in text
    ] == []


def test_every_shell_script_stops_at_its_first_error() -> None:
    scripts = [
        file for file in repo_files() if file.read_bytes()[:2] == b"#!" and b"sh\n" in file.read_bytes()[:30]
    ]
    assert ROOT / ".ci" / "run" in scripts
    lax = [file.relative_to(ROOT) for file in scripts if not re.search(r"^set -e", file.read_text(), re.M)]
    assert lax == []
    assert [file.relative_to(ROOT) for file in scripts if not file.stat().st_mode & 0o100] == []
