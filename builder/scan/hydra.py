"""Parameters, read off the primary config of a Hydra script.

Hydra composes a config of YAML files (https://hydra.cc/docs/advanced/defaults_list/); only the one that
`@hydra.main` names is read, since what the others are depends on the command line.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from trainpack_entrypoint.schema import NAME, is_secret, type_of

from builder.scan.facts import Note, ScannedParameter
from builder.scan.literals import Constants, UnknownValueError, literal

Found = ScannedParameter | Note

_MISSING = "???"  # a mandatory value: https://omegaconf.readthedocs.io/en/latest/usage.html
_DEPTH = 10


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number, as OmegaConf does and YAML 1.1 does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_config(tree: ast.Module, script: Path, folder: Path, constants: Constants) -> Iterator[Found]:
    """The values of the config that a script's `@hydra.main` names, one parameter for each leaf.

    Args:
        script: The file that `tree` was read from; Hydra searches beside it.
        folder: The project's folder.
    """
    for line, place in _configs(tree, constants):
        path = (script.parent / place).with_suffix(".yaml")
        name = script.relative_to(folder).as_posix()
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            yield Note(file=name, line=line, reason=f"the Hydra config {place} is not in the project")
            continue
        yield from _leaves(path, path.resolve().relative_to(folder.resolve()).as_posix())


def _configs(tree: ast.Module, constants: Constants) -> Iterator[tuple[int, str]]:
    """Line and path of each config that is named by literals."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("hydra.main", "main"):
                names = {keyword.arg: keyword.value for keyword in call.keywords}
                try:
                    parts = [literal(names[key], constants) for key in ("config_path", "config_name")]
                except (KeyError, UnknownValueError):
                    continue
                if all(isinstance(part, str) for part in parts):
                    yield call.lineno, "/".join(parts)


def _leaves(path: Path, name: str) -> Iterator[Found]:
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            yield from _mapping(node, "", name, loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        yield Note(file=name, line=line, reason="the Hydra config cannot be read")


def _mapping(node: yaml.MappingNode, prefix: str, file: str, loader: _Loader) -> Iterator[Found]:
    for key, child in node.value:
        name, line = f"{prefix}{key.value}", child.start_mark.line + 1
        if name == "defaults":
            reason = "what the groups of this list hold is not read: declare it under [parameters]"
            yield Note(file=file, line=line, reason=reason)
        elif name == "hydra" or str(key.value).startswith("_") or not NAME.fullmatch(name):
            continue  # settings of Hydra itself, of its `instantiate`, or what no parameter can be called
        elif isinstance(child, yaml.MappingNode) and name.count(".") < _DEPTH:
            yield from _mapping(child, f"{name}.", file, loader)
        else:
            yield from _leaf(name, loader.construct_object(child, deep=True), file, line)


def _leaf(name: str, value: Any, file: str, line: int) -> Iterator[ScannedParameter]:
    if not _is_plain(value):
        return
    required = value == _MISSING
    secret = is_secret(name) and not required and bool(value)
    default = None if required or secret else value
    yield ScannedParameter(
        file=file,
        line=line,
        reason="a value of the Hydra config",
        name=name,
        type="str" if secret else type_of(default),
        default=default,
        required=required,
        check="its name says that it is secret, so its default is not kept" if secret else None,
    )


def _is_plain(value: Any) -> bool:
    """Whether a value can be a parameter's: one that JSON can say, and that is not computed from others."""
    if isinstance(value, list):
        return all(_is_plain(item) and not isinstance(item, list) for item in value)
    if isinstance(value, str):
        return "${" not in value
    return (
        value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    )
