"""Write `trainpack.toml`, and requirements when there are none, for a script as it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tomli_w
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from trainpack_entrypoint.schema import type_of

from builder.errors import UsageError
from builder.records import Record
from builder.reference import parse_repository
from builder.scan import Import, ScannedParameter, ScriptFacts, scan_script
from builder.scan.distributions import distribution_of
from builder.spec import FILE, parse_spec
from builder.workdir import write_all_atomically

REQUIREMENTS = "requirements.txt"
CHECK = "check: "


class Guess(Record):
    """Something that was decided for the user, and why; `check` when a person should look at it."""

    what: str
    because: str
    check: bool = False


class Wrapping(Record):
    """The files for a script, not written yet.

    Attributes:
        requirements: The text of requirements.txt; None when the project names its requirements already.
    """

    spec: str
    requirements: str | None
    guesses: tuple[Guess, ...]


def wrap_script(script: Path, *, name: str | None, force: bool) -> Wrapping:
    """Write the files beside the script, both or none; the script itself is not touched.

    Args:
        name: The image's name; None makes one of the folder's.
        force: Replace a `trainpack.toml` that is there.

    Raises:
        UsageError: There is a `trainpack.toml` already, or the name is not valid.
        SpecError: The script is missing or not valid Python.
    """
    folder = script.parent
    if not force and (folder / FILE).exists():
        remedy = f"edit it, or `trainpack wrap {script} --force` replaces it"
        raise UsageError("exists already", place=str(folder / FILE), remedy=remedy)
    wrapping = make_wrapping(folder, scan_script(folder, script.name), name=name)
    _write(folder, wrapping)
    return wrapping


def make_wrapping(folder: Path, facts: ScriptFacts, *, name: str | None) -> Wrapping:
    """Decide what the files say; writes nothing."""
    image, naming = _image_name(folder, name)
    declared, source = _declared_requirements(folder)
    needed = [found for found in facts.imports if found.need != "typing"]
    requirements = None if declared else _requirements_text(facts.script, needed)
    guesses = [naming, *source, *(_missing(folder, declared, needed) if declared else _sources(needed))]
    guesses += [_guess(f"[model] framework = {facts.framework}", facts.framework_reason)]
    guesses += [_parameter_guess(found) for found in facts.parameters]
    guesses += [Guess(what=note.place, because=note.reason, check=True) for note in facts.notes]
    guesses += [
        Guess(what=found.place, because=f"{found.name}: {found.reason}", check=found.required)
        for found in facts.positionals
    ]
    spec = "\n".join(_spec_lines(facts, image, naming, declared or REQUIREMENTS))
    parse_spec(spec)
    return Wrapping(spec=spec, requirements=requirements, guesses=tuple(guesses))


def _write(folder: Path, wrapping: Wrapping) -> None:
    texts = {folder / FILE: wrapping.spec}
    if wrapping.requirements is not None:
        texts[folder / REQUIREMENTS] = wrapping.requirements
    try:
        write_all_atomically(texts)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", place=str(folder / FILE)) from None


def _image_name(folder: Path, name: str | None) -> tuple[str, Guess]:
    what = "[image] name"
    if name is not None:
        try:
            return parse_repository(name), Guess(what=what, because="as given by --name")
        except ValueError as error:
            raise UsageError(str(error), place="--name") from None
    raw = folder.resolve().name
    name = re.sub(r"[^a-z0-9]+", "-", raw.lower()).strip("-")[:100].strip("-") or "training"
    because = f"the folder is called {_comment(raw)}; put your registry before it to push"
    return name, Guess(what=what, because=because, check=True)


def _declared_requirements(folder: Path) -> tuple[str | None, list[Guess]]:
    """The file that names the project's requirements already, if any."""
    what = "[image] requirements"
    if (folder / REQUIREMENTS).is_file():
        return REQUIREMENTS, [Guess(what=what, because=f"{REQUIREMENTS} is there")]
    if "dependencies" in _project_table(folder):
        return "pyproject.toml", [Guess(what=what, because="pyproject.toml declares dependencies")]
    return None, [Guess(what=what, because="written from the script's imports; the lock pins versions")]


def _project_table(folder: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
    project = data.get("project", {})
    return project if isinstance(project, dict) else {}


def _by_distribution(imports: Iterable[Import]) -> dict[str, tuple[Import, str | None]]:
    """Distribution → the import that needs it most, and what to check."""
    order = ("always", "conditional", "optional")
    found: dict[str, tuple[Import, str | None]] = {}
    for imported in sorted(imports, key=lambda imported: order.index(imported.need)):
        name, check = distribution_of(imported.module)
        if imported.need == "conditional":
            check = "; ".join(filter(None, (imported.reason, check)))
        found.setdefault(name, (imported, check))
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _requirements_text(script: str, imports: Iterable[Import]) -> str:
    lines = [
        f"# Written by `trainpack wrap` from the imports of {_comment(script)}; `trainpack lock` pins them."
    ]
    for name, (imported, check) in _by_distribution(imports).items():
        where = f"{imported.place} imports {imported.module}"
        if imported.need == "optional":
            lines.append(f"# {name}  # {CHECK}{_comment(where)}, {imported.reason}; uncomment to install it")
        elif check:
            lines.append(f"{name}  # {CHECK}{_comment(where)}: {_comment(check)}")
        else:
            lines.append(f"{name}  # {_comment(where)}")
    return "\n".join(lines) + "\n"


def _sources(imports: Iterable[Import]) -> Iterator[Guess]:
    for name, (imported, check) in _by_distribution(imports).items():
        because = f"{imported.place} imports {imported.module}"
        if imported.need == "optional":
            yield Guess(what=f"{name} left out", because=f"{because}, {imported.reason}", check=True)
        else:
            because = f"{because}: {check}" if check else because
            yield Guess(what=f"requires {name}", because=because, check=bool(check))


def _missing(folder: Path, declared: str, imports: Iterable[Import]) -> Iterator[Guess]:
    """Imports that the declared requirements do not seem to name; they may come with another package."""
    named = _named_requirements(folder, declared)
    for name, (imported, _) in _by_distribution(imports).items():
        alternatives = {canonicalize_name(name), canonicalize_name(imported.package)}
        if imported.need != "optional" and not _names(alternatives, named):
            because = f"{imported.place} imports {imported.module}, and {declared} does not name {name}"
            yield Guess(what=f"requires {name}?", because=because, check=True)


def _names(alternatives: Iterable[str], named: Iterable[str]) -> bool:
    # opencv-python for opencv-python-headless, tensorflow-cpu for tensorflow.
    return any(
        name == wanted or name.startswith(f"{wanted}-") or wanted.startswith(f"{name}-")
        for name in named
        for wanted in alternatives
    )


def _named_requirements(folder: Path, declared: str) -> set[str]:
    if declared == "pyproject.toml":
        lines = [str(line) for line in _project_table(folder)["dependencies"]]
    else:
        lines = (folder / declared).read_text(encoding="utf-8", errors="replace").splitlines()
    names: set[str] = set()
    for line in lines:
        try:
            names.add(canonicalize_name(Requirement(re.sub(r"(^|\s)#.*", "", line).strip()).name))
        except InvalidRequirement:
            continue
    return names


def _guess(what: str, because: str, *, check: str | None = None) -> Guess:
    reason = because.removeprefix(CHECK)
    return Guess(
        what=what,
        because=f"{reason}: {check}" if check else reason,
        check=bool(check) or because.startswith(CHECK),
    )


def _parameter_guess(found: ScannedParameter) -> Guess:
    return _guess(f"[parameters] {found.name}", f"{found.place}, {found.reason}", check=found.check)


_ARGUMENTS = {
    "argv": "each parameter reaches the script as a command-line option",
    "overrides": "each parameter reaches the script as name=value, Hydra's overrides",
}
_SOURCES = {"argv": "option of argparse", "overrides": "value of a Hydra config"}


def _spec_lines(facts: ScriptFacts, image: str, naming: Guess, requirements: str) -> Iterator[str]:
    yield f"# Written by `trainpack wrap {_comment(facts.script)}`, which only read the script."
    yield f'# What is marked "{CHECK.strip()}" is a guess that wants your eye.'
    yield from ("", "[image]")
    yield f"name = {_toml(image)}  # {_marked(naming)}"
    yield f"requirements = {_toml(requirements)}"
    if facts.framework == "PYTORCH":
        yield '# torch = "cpu" takes the CPU build of PyTorch, "cuda" the CUDA build; by default the newest.'
    yield from ("", "[run]", f"script = {_toml(facts.script)}")
    yield f"arguments = {_toml(facts.arguments)}  # {_ARGUMENTS[facts.arguments]}"
    yield from _fixed_arguments(facts)
    yield from (f"# {CHECK}{_comment(f'{note.place}: {note.reason}')}" for note in facts.notes)
    yield from ("", "[model]", '# version = "MODEL/VERSION" is where `trainpack attach` puts the image.')
    yield f"framework = {_toml(facts.framework)}  # {_comment(facts.framework_reason)}"
    yield from ("", "[parameters]")
    if not facts.parameters:
        yield f"# No {_SOURCES[facts.arguments]} was found."
    for found in facts.parameters:
        yield from _parameter_lines(found)
    yield ""


def _fixed_arguments(facts: ScriptFacts) -> Iterator[str]:
    for found in facts.positionals:
        need = "needs" if found.required else "may be given"
        yield (
            f"# {CHECK}{_comment(f'{found.place}: the script {need} the positional argument {found.name}')}; "
            "write its value into args"
        )
    if facts.positionals:
        yield "args = []"


def _parameter_lines(found: ScannedParameter) -> Iterator[str]:
    yield f"# {_comment(f'{found.place}, {found.reason}')}"
    if found.check:
        yield f"# {CHECK}{_comment(found.check)}"
    yield f"{_key(found.name)} = {_parameter_value(found)}"


def _parameter_value(found: ScannedParameter) -> str:
    """The bare default where that says everything, else the long form."""
    own = f"--{found.name}"
    entries = {
        "default": found.default,
        "type": found.type if found.type != type_of(found.default) else None,
        "required": found.required or None,
        "choices": list(found.choices) if found.choices else None,
        "argument": found.argument if found.argument != own else None,
        "argument-false": found.argument_false,
        "help": found.help,
    }
    entries = {key: value for key, value in entries.items() if value is not None}
    if entries.keys() == {"default"}:
        return _toml(found.default)
    if not entries:
        entries = {"type": found.type}
    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in entries.items()) + " }"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")


def _marked(guess: Guess) -> str:
    return _comment((CHECK if guess.check else "") + guess.because)


def _comment(text: str) -> str:
    """Text that stays inside one comment line."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
