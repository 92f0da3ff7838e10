"""The Dockerfile of a BuildPlan, rendered by Jinja."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from builder import __version__
from builder.errors import SpecError
from builder.plan import ENTRYPOINT, LABEL, TOOLS, USER, VENV, WORKDIR, BuildPlan

_TEMPLATES = Path(__file__).parent.parent / "templates"


def render_dockerfile(plan: BuildPlan) -> str:
    """The text of the Dockerfile; it builds in the context that `builder.builders.context` lays out.

    Raises:
        SpecError: A value holds what a Dockerfile cannot: a line break or another control character.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (not HTML; `quoted` escapes what a Dockerfile would read)
    )
    environment.filters["quoted"] = quoted
    text = environment.get_template("Dockerfile.j2").render(
        plan=plan,
        labels=plan.labels | {f"{LABEL}.plan": plan.hash},
        site_packages=lambda environment: site_packages(environment, plan.python),
        trainpack=__version__,
        venv=VENV,
        tools=TOOLS,
        user=USER,
        workdir=WORKDIR,
        entrypoint=list(ENTRYPOINT),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def site_packages(environment: str, python: str) -> str:
    """Where an environment's packages lie: `/opt/venv` → `/opt/venv/lib/python3.11/site-packages`."""
    return f"{environment}/lib/python{python}/site-packages"


def quoted(value: str) -> str:
    r"""A value in double quotes, of which the Dockerfile's parser expands and ends nothing.

    Inside double quotes it reads `\\`, `\"` and `\$` as the character itself:
    https://docs.docker.com/reference/dockerfile/#environment-replacement

    Raises:
        SpecError: A control character, which no quoting carries.
    """
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value):
        raise SpecError(f"{value!r} holds a control character, which an image's metadata cannot carry")
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'
