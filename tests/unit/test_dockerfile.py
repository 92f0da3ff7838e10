"""The rendered Dockerfile: golden, clean, and closed to what a spec's values might smuggle in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from golden_files import assert_golden
from hypothesis import given
from hypothesis import strategies as st
from plans import inputs, plan

from builder.builders.dockerfile import quoted, render_dockerfile
from builder.errors import SpecError
from builder.plan import make_plan
from builder.spec import parse_spec

VARIANTS = {
    "cpu": plan(),
    "cuda": plan(cuda=True),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_dockerfile_is_golden(name: str) -> None:
    assert_golden(f"dockerfile/{name}.Dockerfile", render_dockerfile(VARIANTS[name]))


@pytest.mark.parametrize("name", VARIANTS)
def test_hadolint_finds_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(render_dockerfile(VARIANTS[name]), encoding="utf-8")
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_dependencies_come_before_code_and_nothing_after_it_runs() -> None:
    instructions = [name for name, _ in parse(render_dockerfile(plan()))]
    assert "RUN" not in instructions[-4:]
    assert instructions[-4:] == ["COPY", "USER", "WORKDIR", "ENTRYPOINT"]


def test_uv_ca_and_tokens_are_mounted_and_never_copied() -> None:
    text = render_dockerfile(plan())
    copies = [rest for name, rest in parse(text) if name in ("COPY", "ADD")]
    assert copies == ["environments/ /", "app/ /"]
    assert "--mount=type=secret,id=ca" in text
    assert "--mount=type=secret,id=netrc" in text


def parse(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions, as the Dockerfile's grammar joins and splits lines."""
    joined = re.sub(r"\\\n\s*", "", dockerfile)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def pairs(dockerfile: str, instruction: str) -> dict[str, str]:
    """The values of ENV or LABEL, with the quoting undone as BuildKit undoes it."""
    (rest,) = [rest for name, rest in parse(dockerfile) if name == instruction]
    found = re.findall(r'([A-Za-z_][\w.-]*)="((?:[^"\\]|\\.)*)"\s*', rest)
    assert "".join(f'{name}="{value}"' for name, value in found) == re.sub(
        r'(?<=") *(?=[A-Za-z_][\w.-]*=")', "", rest
    )
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in found}


@given(st.text())
def test_quoting_is_undone_exactly_or_refused(value: str) -> None:
    try:
        text = quoted(value)
    except SpecError:
        assert re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value)
        return
    assert re.sub(r"\\(.)", r"\1", text[1:-1]) == value
    assert not re.search(r'(?<!\\)(?:\\\\)*[$"]', text[1:-1])


BASELINE = [name for name, _ in parse(render_dockerfile(plan()))]
NASTY = st.text(alphabet=st.sampled_from("ab1./-_ \n\r\t\"'$\\{}#;&|`\x00\u2028=:@"), max_size=30) | st.text()


@given(NASTY, st.sampled_from(["name", "version", "env", "model", "script", "args", "python", "base"]))
def test_no_value_of_a_spec_changes_the_instructions(value: str, field: str) -> None:
    try:
        planned = make_plan(parse_spec(_spec_with(field, value)), inputs())
    except SpecError:
        return
    dockerfile = render_dockerfile(planned)
    assert [name for name, _ in parse(dockerfile)] == BASELINE
    assert pairs(dockerfile, "ENV") == planned.env
    assert pairs(dockerfile, "LABEL") == planned.labels | {"io.trainpack.plan": planned.hash}


def _spec_with(field: str, value: str) -> str:
    image: dict[str, object] = {"name": "registry.example.com/a/b"}
    run: dict[str, object] = {"script": "train.py"}
    model: dict[str, object] = {}
    if field in ("name", "version", "python", "base"):
        image[field] = value
    elif field == "env":
        run["env"] = {"VALUE": value}
    elif field == "model":
        model["version"] = value
    elif field == "script":
        run["script"] = value
    else:
        run["args"] = [value]
    return tomli_w.dumps({"image": image, "run": run, "model": model})
