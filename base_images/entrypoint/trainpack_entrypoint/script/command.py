"""How the script is started: its argv and its environment."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainpack_entrypoint.manifest import Manifest, Run
from trainpack_entrypoint.paths import Paths
from trainpack_entrypoint.schema import Parameter

_PLAIN = re.compile(r"(?!(true|false|null|nan|inf)\Z)[a-z_/][\w./-]*", re.IGNORECASE | re.ASCII)
_QUOTE = re.compile(r'(\\*)("|\Z)')
_TOKEN = re.compile(r"(picsellia_)?(api_)?token|project_token", re.IGNORECASE)


def script_command(
    manifest: Manifest, values: Mapping[str, Any], arguments: Sequence[str], paths: Paths
) -> list[str]:
    """`[launcher | python] script|-m module args… parameters… arguments…`.

    Args:
        values: The declared parameters' values.
        arguments: What the container was given; last, verbatim.
    """
    run = manifest.run
    command = [*_program(run, paths), *run.args]
    as_words = {"argv": option, "overrides": override}.get(run.arguments)
    if as_words:
        for name, value in values.items():
            command += as_words(manifest.parameters[name], value)
    return [*command, *arguments]


def _program(run: Run, paths: Paths) -> list[str]:
    # A launcher (torchrun, accelerate launch) takes the script itself and picks the interpreter.
    start = list(run.launcher) or [os.path.join(paths.venv, "bin", "python")]
    return [*start, str(run.script)] if run.script else [*start, "-m", str(run.module)]


def option(parameter: Parameter, value: Any) -> list[str]:
    """A parameter as command-line arguments; nothing for what a command line cannot say."""
    name = parameter.argument or f"--{parameter.name}"
    if value is True:
        # A script with a `store_false` option alone says true by saying nothing.
        return [name] if parameter.argument or not parameter.argument_false else []
    if value is False:
        return [parameter.argument_false] if parameter.argument_false else []
    if value is None or isinstance(value, dict):
        return []
    if isinstance(value, list):
        return _list_option(parameter, name, value)
    text = as_text(value)
    # `--name -x` would be read as two options, and `--name=-x` as one by every parser of long options.
    return [f"{name}={text}"] if text.startswith("-") and name.startswith("--") else [name, text]


def _list_option(parameter: Parameter, name: str, value: list[Any]) -> list[str]:
    # `nargs="+"` with an empty default is legal in argparse, the option without values is not.
    if not value and parameter.default == []:
        return []
    return [name, *(as_text(item) for item in value)]


def override(parameter: Parameter, value: Any) -> list[str]:
    """A parameter as an override of Hydra, `name=value`; nothing for what only a file can say.

    The grammar: https://hydra.cc/docs/advanced/override_grammar/basic/
    """
    if value is None or isinstance(value, dict):
        return []
    return [f"{parameter.argument or parameter.name}={_element(value)}"]


def _element(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_element, value))}]"
    if not isinstance(value, str) or _PLAIN.fullmatch(value):
        return as_text(value)
    # A backslash is one of the text, but for those before a quote.
    return '"' + _QUOTE.sub(lambda found: found[1] * 2 + (r"\"" if found[2] else ""), value) + '"'


def as_text(value: Any) -> str:
    """A value as one argument or variable: text verbatim, all else as JSON; floats as Python writes them."""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def script_environment(
    environment: Mapping[str, str], manifest: Manifest, values: Mapping[str, Any], paths: Paths
) -> dict[str, str]:
    """The container's environment with what the contract adds, and without the token where it says so."""
    result = dict(environment)
    if not manifest.run.pass_token:
        result = {name: value for name, value in result.items() if not _TOKEN.fullmatch(name)}
    result |= {
        "HOME": paths.home,
        "TMPDIR": paths.temporary,
        "PATH": _search_path(environment, paths),
        "TRAINPACK_PARAMETERS": os.path.join(paths.inputs, "parameters.json"),
        "TRAINPACK_LABELMAP": os.path.join(paths.inputs, "labelmap.json"),
        "TRAINPACK_OUTPUTS": paths.outputs,
        "TRAINPACK_INPUTS": paths.inputs,
    }
    result |= _user_names()
    return result | (_variables(manifest, values) if manifest.run.arguments == "env" else {})


def _search_path(environment: Mapping[str, str], paths: Paths) -> str:
    binaries = os.path.join(paths.venv, "bin")
    search = environment.get("PATH", os.defpath)
    return search if search.split(os.pathsep)[0] == binaries else binaries + os.pathsep + search


def _user_names() -> dict[str, str]:
    # getpass.getuser(), which torch and others call, fails under a uid that has no name.
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return {"USER": "trainer", "LOGNAME": "trainer"}
    return {}


def _variables(manifest: Manifest, values: Mapping[str, Any]) -> dict[str, str]:
    return {
        manifest.parameters[name].argument or name: as_text(value)
        for name, value in values.items()
        if value is not None
    }
