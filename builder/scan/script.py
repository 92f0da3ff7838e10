"""Scan a script and the local modules that it imports."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import SpecError
from builder.scan.arguments import Found, merge, read_arguments
from builder.scan.facts import Import, Note, Positional, ScannedParameter, ScriptFacts, option_names
from builder.scan.framework import framework_of
from builder.scan.imports import Imported, is_main_guard, read_imports
from builder.scan.literals import module_constants

# What an image brings itself: the helper module of docs/contract.md.
_PROVIDED = {"trainpack"}

_OPTION_LIBRARIES = {
    "absl.flags": "absl flags",
    "click": "click",
    "docopt": "docopt",
    "fire": "fire",
    "jsonargparse": "jsonargparse",
    "simple_parsing": "simple_parsing",
    "typer": "typer",
    "tyro": "tyro",
}


@dataclass(frozen=True)
class _Module:
    path: Path
    name: str
    tree: ast.Module


def script_options(folder: Path, script: str) -> dict[str, tuple[str | None, str | None]]:
    """The `option_names` of a script; one that cannot be read has none.

    Raises:
        SpecError: As `scan_script`.
    """
    return option_names(scan_script(folder, script)) if (folder / script).is_file() else {}


def scan_script(folder: Path, script: str) -> ScriptFacts:
    """Read a script of a project, without executing anything.

    Args:
        folder: The project's folder; modules below it are local.
        script: The script's path relative to the folder.

    Raises:
        SpecError: The script, or a local module that it imports, cannot be read or has a syntax error.
    """
    modules, imports = _read_all(folder, folder / script)
    uses_hydra = any(each.package == "hydra" for each in imports)
    read = _config if uses_hydra else _arguments
    found = merge(thing for module in modules for thing in read(module, folder))
    framework, reason = framework_of(imports)
    notes = [thing for thing in found if isinstance(thing, Note)]
    return ScriptFacts(
        script=script,
        files=tuple(module.name for module in modules),
        imports=imports,
        parameters=tuple(thing for thing in found if isinstance(thing, ScannedParameter)),
        positionals=tuple(thing for thing in found if isinstance(thing, Positional)),
        framework=framework,
        framework_reason=reason,
        notes=tuple(notes + _library_notes(imports)),
        arguments="overrides" if uses_hydra else "argv",
    )


def _arguments(module: _Module, _folder: Path) -> Iterator[Found]:
    return read_arguments(module.tree, module.name, module_constants(module.tree))


def _config(module: _Module, folder: Path) -> Iterator[Found]:
    from builder.scan.hydra import read_config  # noqa: PLC0415  (most scripts have no config in YAML)

    return read_config(module.tree, module.path, folder, module_constants(module.tree))


def _read_all(folder: Path, script: Path) -> tuple[list[_Module], tuple[Import, ...]]:
    """Every reachable local module, and what else they import, each top-level name once per need."""
    modules: dict[Path, _Module] = {}
    imports: dict[tuple[str, str], Import] = {}
    waiting = [script]
    while waiting:
        path = waiting.pop(0)
        if path in modules:
            continue
        module = modules[path] = _parse(folder, path, is_script=path == script)
        for imported in read_imports(module.tree):
            local = _local_files(imported, path, script.parent, folder)
            waiting += local
            for fact in [] if local else _outside(imported, module.name):
                imports.setdefault((fact.module, fact.need), fact)
    return list(modules.values()), tuple(imports.values())


def _parse(folder: Path, path: Path, *, is_script: bool) -> _Module:
    name = path.relative_to(folder).as_posix()
    if path.suffix == ".ipynb":
        remedy = f"`jupyter nbconvert --to script {name}` makes a script of it"
        raise SpecError("a notebook is not a Python script", place=name, remedy=remedy)
    try:
        with warnings.catch_warnings():
            # A doubtful escape in somebody's script is not ours to print.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes(), filename=name)
    except FileNotFoundError:
        raise SpecError("the script does not exist", place=name) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", place=name) from None
    except SyntaxError as error:
        place = f"{name}:{error.lineno or 1}:{max(error.offset or 1, 1)}"
        version = ".".join(map(str, sys.version_info[:2]))
        raise SpecError(f"not valid Python: {error.msg}", place=place, remedy=_remedy(version)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"not valid Python: {error}", place=name) from None
    if not is_script:
        tree.body = [statement for statement in tree.body if not is_main_guard(statement)]
    return _Module(path, name, tree)


def _remedy(version: str) -> str:
    return f"correct it; it was read by the grammar of Python {version}, which trainpack runs with"


def _local_files(imported: Imported, importer: Path, beside: Path, folder: Path) -> list[Path]:
    """The project's files that an import statement reads, none for a module from elsewhere."""
    roots = [beside, folder]
    if imported.level:
        roots = list(importer.parents[imported.level - 1 : imported.level])
    for root in dict.fromkeys(root for root in roots if root.is_relative_to(folder)):
        names = [f"{imported.module}.{name}".lstrip(".") for name in imported.names]
        # A package without an __init__.py shows that it is local only through its modules.
        modules = [imported.module, *names]
        files = [file for module in modules if module for file in _module_files(root, module)]
        if files:
            return list(dict.fromkeys(files))
    return []


def _module_files(root: Path, dotted: str) -> list[Path]:
    """`a.b` → its file and the `__init__.py` files on the way; nothing unless the module itself is there."""
    parts = dotted.split(".")
    packages = [root.joinpath(*parts[: end + 1], "__init__.py") for end in range(len(parts))]
    own = [path for path in (packages[-1], root.joinpath(*parts).with_suffix(".py")) if path.is_file()]
    return [path for path in packages[:-1] if path.is_file()] + own[:1] if own else []


def _outside(imported: Imported, file: str) -> Iterator[Import]:
    package = imported.module.partition(".")[0]
    if imported.level or package in sys.stdlib_module_names or package in _PROVIDED:
        return
    modules = [imported.module]
    if imported.names and imported.module in ("google", "google.cloud", "absl"):
        modules = [f"{imported.module}.{name}" for name in imported.names]
    for module in modules:
        yield Import(file=file, line=imported.line, reason=imported.reason, module=module, need=imported.need)


def _library_notes(imports: tuple[Import, ...]) -> list[Note]:
    notes = []
    for library, title in _OPTION_LIBRARIES.items():
        for found in imports:
            if found.module == library or found.module.startswith(f"{library}."):
                reason = f"options declared with {title} are not read: declare them under [parameters]"
                notes.append(Note(file=found.file, line=found.line, reason=reason))
                break
    return notes
