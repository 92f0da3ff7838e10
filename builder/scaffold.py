"""Scaffolds: cookiecutter templates of training repos, as data, and the repo made from one."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainpack_entrypoint.schema import close_match

from builder import __version__
from builder.data import scaffolds
from builder.errors import SpecError, TrainpackError, UsageError
from builder.spec import load_spec
from builder.workdir import write_atomically

RECORD = ".trainpack-scaffold.json"
_CONTEXT = "cookiecutter.json"


@dataclass(frozen=True)
class Scaffold:
    """A template below `scaffolds/`, as its `cookiecutter.json` describes it.

    Attributes:
        variables: The default of each variable, a Jinja expression or the list of its choices.
        patterns: For a variable, the regular expression of its legal values and what to call them.
    """

    name: str
    folder: Path
    description: str
    variables: Mapping[str, str | list[str]]
    patterns: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def list_scaffolds(folder: Path | None = None) -> tuple[Scaffold, ...]:
    """The templates in a folder (by default the ones that come with trainpack), by name."""
    files = sorted((folder or scaffolds()).glob(f"*/{_CONTEXT}"))
    return tuple(_read(file) for file in files)


def find_scaffold(name: str, folder: Path | None = None) -> Scaffold:
    """The template of that name.

    Raises:
        UsageError: There is none.
    """
    known = {scaffold.name: scaffold for scaffold in list_scaffolds(folder)}
    if name not in known:
        raise UsageError(
            f"there is no scaffold {name!r}{close_match(name, list(known))}",
            remedy=f"choose one of {', '.join(known)}",
        )
    return known[name]


def answer(scaffold: Scaffold, given: Mapping[str, str], *, ask: bool) -> dict[str, str]:
    """A value for every variable: what the user answers when asked, else the given one, else the default.

    Raises:
        UsageError: An unknown variable, or a value that its pattern does not allow.
    """
    for name in given:
        if name not in scaffold.variables:
            known = list(scaffold.variables)
            raise UsageError(
                f"{scaffold.name} has no variable {name!r}{close_match(name, known)}",
                remedy=f"its variables are {', '.join(known)}",
            )
    # Before anything is rendered: a default is a Jinja template, what a user gives must not be one.
    _check(scaffold, given)
    answers = _complete(scaffold, given, ask=ask)
    _check(scaffold, answers)
    return answers


def generate(scaffold: Scaffold, answers: Mapping[str, str], parent: Path) -> Path:
    """Make the repo `parent/<project_slug>`, whole or not at all; returns its folder.

    Raises:
        UsageError: The folder has something in it already, or the answers make no valid `trainpack.toml`.
        TrainpackError: It cannot be written.
    """
    target = parent.absolute() / answers["project_slug"]
    _check_vacant(target)
    try:
        # Beside the target, so that the finished repo gets its name in one step.
        with tempfile.TemporaryDirectory(dir=_existing(target.parent), prefix=".trainpack-init-") as folder:
            repo = _render(scaffold, answers, Path(folder))
            _record(repo, scaffold, answers)
            target.parent.mkdir(parents=True, exist_ok=True)
            repo.replace(target)
    except OSError as error:
        raise TrainpackError(f"cannot be written: {error.strerror}", place=str(target)) from None
    return target


def _read(file: Path) -> Scaffold:
    data = json.loads(file.read_text(encoding="utf-8"))
    return Scaffold(
        name=file.parent.name,
        folder=file.parent,
        description=data["_description"],
        variables={name: value for name, value in data.items() if not name.startswith("_")},
        patterns={name: (pattern, expected) for name, (pattern, expected) in data["_patterns"].items()},
    )


def _check(scaffold: Scaffold, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        choices = scaffold.variables[name]
        if isinstance(choices, list) and value not in choices:
            raise UsageError(f"{value!r} is not one of {', '.join(choices)}", place=name)
        pattern, expected = scaffold.patterns.get(name, ("(?s:.*)", ""))
        if not re.fullmatch(pattern, value):
            raise UsageError(f"{value!r} is not {expected}", place=name, remedy=f"give another: -v {name}=…")


def _complete(scaffold: Scaffold, given: Mapping[str, str], *, ask: bool) -> dict[str, str]:
    # cookiecutter takes longer to import than the rest of this command to run.
    from cookiecutter.generate import generate_context  # noqa: PLC0415
    from cookiecutter.prompt import prompt_for_config  # noqa: PLC0415

    context = generate_context(str(scaffold.folder / _CONTEXT), extra_context=dict(given))
    try:
        answers = prompt_for_config(context, no_input=not ask)
    except EOFError:
        raise UsageError("the input ended before every question was answered") from None
    return {name: str(value) for name, value in answers.items() if not name.startswith("_")}


def _check_vacant(target: Path) -> None:
    if target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UsageError(
            "there is something of that name already; nothing was changed",
            place=str(target),
            remedy="choose another folder with --output, or another name with -v project_slug=…",
        )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _render(scaffold: Scaffold, answers: Mapping[str, str], folder: Path) -> Path:
    from cookiecutter.generate import generate_files  # noqa: PLC0415

    context = {"cookiecutter": dict(answers)}
    repo = Path(generate_files(str(scaffold.folder), context, str(folder), accept_hooks=False))
    try:
        load_spec(repo)
    except SpecError as error:
        raise UsageError(
            f"the answers make no valid trainpack.toml: {error.message}", details=error.details
        ) from None
    return repo


def _record(repo: Path, scaffold: Scaffold, answers: Mapping[str, str]) -> None:
    """Keep what the repo was made from, so that it can follow its template later."""
    made = {"scaffold": scaffold.name, "trainpack": __version__, "variables": dict(answers)}
    write_atomically(repo / RECORD, json.dumps(made, indent=2) + "\n")
