"""Parameters, read off the `add_argument` calls of argparse."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from trainpack_entrypoint.schema import NAME, SCALAR_TYPES, is_secret, type_of

from builder.scan.facts import Note, Positional, ScannedParameter
from builder.scan.literals import Constants, UnknownValueError, choices, literal

Found = ScannedParameter | Positional | Note

_PATH_TYPES = ("Path", "pathlib.Path", "os.path.abspath", "os.path.expanduser", "PurePath")
_FILLED_IN = re.compile(r"[ ,;]*[(\[]?(default|defaults to)?[:=]?\s*%\(\w+\)\w[)\]]?", re.IGNORECASE)
_UNPASSED = "nothing is passed unless a value is set"


@dataclass
class _Option:
    """One `add_argument` call, being read.

    Attributes:
        flags: The option strings, or the name of a positional argument.
        exclusive: Whether it stands in a mutually exclusive group.
        checks: What a person should look at.
    """

    file: str
    line: int
    flags: list[str]
    keywords: dict[str, ast.expr]
    constants: Constants
    exclusive: bool
    checks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The destination, by argparse's own rule: `dest`, else the first long option, else the first."""
        named = self.text("dest")
        long = [flag for flag in self.flags if flag.startswith("--")]
        return named or (long or self.flags)[0].lstrip("-").replace("-", "_")

    @property
    def flag(self) -> str:
        """The option that a value is passed with: the first long one, else the first."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0])

    def text(self, keyword: str) -> str | None:
        """A keyword's literal text, None when it is absent or computed."""
        try:
            value = literal(self.keywords[keyword], self.constants)
        except (KeyError, UnknownValueError):
            return None
        return value if isinstance(value, str) else None

    def source(self, keyword: str) -> str:
        """A keyword's expression as written."""
        return ast.unparse(self.keywords[keyword])

    def note(self, reason: str) -> Note:
        return Note(file=self.file, line=self.line, reason=f"{self.flags[0]}: {reason}")

    def parameter(self, kind: str, default: Any, **values: Any) -> ScannedParameter:
        """The finished parameter; a default that cannot be passed on is left to the script."""
        found = ScannedParameter(
            file=self.file,
            line=self.line,
            reason=f"argparse option {', '.join(self.flags)}",
            name=self.name,
            type=kind,
            help=_help(self),
            **{"argument": self.flag, **values},
        )
        default = self._passable(found, default)
        check = "; ".join(self.checks) or None
        return replace(found, default=default, check=check)

    def _passable(self, found: ScannedParameter, default: Any) -> Any:
        if default is None or found.required:
            return None
        try:
            # Not optional: "" and "none" are texts here, not spellings of null.
            value = found.parameter._replace(optional=False).coerce(default)
        except ValueError as error:
            self.checks.append(f"the script's own default does not fit: {error}; {_UNPASSED}")
            return None
        if is_secret(found.name) and value != "":
            self.checks.append(f"its name says that it is secret, so its default is not kept; {_UNPASSED}")
            return None
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            self.checks.append(f"its default is {value}, which JSON cannot say; {_UNPASSED}")
            return None
        if isinstance(value, str) and value.startswith(("/", "~")):
            self.checks.append("a path of the machine that the script was written on?")
        return value


def read_arguments(tree: ast.Module, file: str, constants: Constants) -> Iterator[Found]:
    """What a module's argparse parsers accept, in order of appearance.

    Arguments of subcommands are not read; a note says so.
    """
    parsers = _parsers(tree)
    calls = sorted(_calls(tree, "add_argument"), key=lambda call: (call.lineno, call.col_offset))
    for call in calls:
        found = _read(call, file, constants, parsers)
        if found:
            yield found


def merge(found: Iterable[Found]) -> list[Found]:
    """One parameter per name: `--cache` and `--no-cache` with one `dest` are one switch."""
    parameters: dict[str, ScannedParameter] = {}
    others: list[Found] = []
    for thing in found:
        if not isinstance(thing, ScannedParameter):
            others.append(thing)
        elif thing.name in parameters:
            parameters[thing.name] = _join(parameters[thing.name], thing)
        else:
            parameters[thing.name] = thing
    return [*parameters.values(), *others]


def _join(first: ScannedParameter, second: ScannedParameter) -> ScannedParameter:
    if first.type == second.type == "bool" and bool(first.argument) != bool(second.argument):
        check = "; ".join(filter(None, (first.check, second.check))) or None
        return replace(
            first,
            argument=first.argument or second.argument,
            argument_false=first.argument_false or second.argument_false,
            reason=f"{first.reason} and {second.reason.removeprefix('argparse option ')}",
            check=check,
        )
    check = "; ".join(filter(None, (first.check, f"declared again at {second.place}")))
    return replace(first, check=check)


def _calls(tree: ast.Module, method: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield node


@dataclass(frozen=True)
class _Parsers:
    """The parsers and groups that a module makes.

    Attributes:
        subcommand: Variable → whether it is the parser of a subcommand (or a group of one).
        exclusive: The variables that are mutually exclusive groups.
        defaults: What `set_defaults` says.
    """

    subcommand: dict[str, bool]
    exclusive: frozenset[str]
    defaults: dict[str, ast.expr]


def _parsers(tree: ast.Module) -> _Parsers:
    known: dict[str, bool] = {}
    exclusive: set[str] = set()
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and len(node.targets) == 1]
    for node in sorted(assigned, key=lambda node: node.lineno):
        if isinstance(node.value, ast.Call):
            variable = ast.unparse(node.targets[0])
            known[variable] = _is_subparser(node.value, known)
            if _method(node.value) == "add_mutually_exclusive_group":
                exclusive.add(variable)
    return _Parsers(known, frozenset(exclusive), _set_defaults(tree, known))


def _method(call: ast.Call) -> str | None:
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def _is_subparser(node: ast.expr, known: dict[str, bool]) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "add_parser" or _is_subparser(node.func.value, known)
    return known.get(ast.unparse(node), False)


def _looks_like_parser(node: ast.expr, known: dict[str, bool]) -> bool:
    text = ast.unparse(node)
    return text in known or any(word in text.lower() for word in ("pars", "group", "argument"))


def _set_defaults(tree: ast.Module, known: dict[str, bool]) -> dict[str, ast.expr]:
    return {
        keyword.arg: keyword.value
        for call in _calls(tree, "set_defaults")
        if isinstance(call.func, ast.Attribute) and not _is_subparser(call.func.value, known)
        for keyword in call.keywords
        if keyword.arg
    }


def _read(call: ast.Call, file: str, constants: Constants, parsers: _Parsers) -> Found | None:
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    if not _looks_like_parser(receiver, parsers.subcommand):
        return None
    keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    try:
        flags = _flags(call, keywords, constants)
    except UnknownValueError:
        names = ", ".join(ast.unparse(argument) for argument in call.args)
        reason = f"an option is named by {_one_line(names)}, known only when the script runs"
        return Note(file=file, line=call.lineno, reason=reason)
    if not flags:
        return None
    exclusive = ast.unparse(receiver) in parsers.exclusive
    option = _Option(file, call.lineno, flags, keywords, constants, exclusive)
    if _is_subparser(receiver, parsers.subcommand):
        return option.note("an option of a subcommand is not read")
    if len(keywords) < len(call.keywords):
        option.checks.append("some of its settings are unpacked with **, which is not read")
    if option.name in parsers.defaults:
        option.keywords["default"] = parsers.defaults[option.name]
    return _read_option(option)


def _flags(call: ast.Call, keywords: dict[str, ast.expr], constants: Constants) -> list[str]:
    """The option strings; a positional argument may be named by `dest` alone."""
    arguments = call.args or [keywords[name] for name in ("dest",) if name in keywords]
    values = [literal(argument, constants) for argument in arguments]
    return [value for value in values if isinstance(value, str) and value]


def _read_option(option: _Option) -> Found | None:
    if not option.flags[0].startswith("-"):
        return _positional(option)
    if not NAME.fullmatch(option.name) or not option.flag.isprintable():
        return option.note(f"{option.name!r} cannot be a parameter's name")
    action = _action(option)
    if action in ("help", "version"):
        return None
    if action in ("store_true", "store_false", "BooleanOptionalAction"):
        return _switch(option, action)
    if action not in ("store", "extend"):
        return option.note(f"action {action} cannot be given one value; it is left to [run] args")
    return _valued(option)


def _action(option: _Option) -> str:
    node = option.keywords.get("action")
    if node is None:
        return "store"
    if isinstance(node, ast.Constant):
        return str(node.value)
    return ast.unparse(node).removeprefix("argparse.")


def _positional(option: _Option) -> Positional:
    optional = option.text("nargs") in ("?", "*")
    return Positional(
        file=option.file,
        line=option.line,
        reason="a positional argument of argparse",
        name=option.text("metavar") or option.flags[0],
        required=not optional,
        help=_help(option),
    )


def _switch(option: _Option, action: str) -> ScannedParameter:
    default = _default(option, absent=action == "store_false" if action != "BooleanOptionalAction" else None)
    if default is not None and not isinstance(default, bool):
        default = bool(default)
    if action == "BooleanOptionalAction":
        negative = f"--no-{option.flag.removeprefix('--')}"
        return option.parameter("bool", default, argument_false=negative)
    if action == "store_false":
        return option.parameter("bool", default, argument=None, argument_false=option.flag)
    if default is True:
        option.checks.append(f"true already without {option.flag}: the script has no way to say false")
    return option.parameter("bool", default)


def _valued(option: _Option) -> Found:
    many = _takes_many(option)
    if many is None:
        return option.note("takes whatever is left on the command line; it is left to [run] args")
    if "const" in option.keywords:
        option.checks.append(f"{option.flag} alone means {option.source('const')}, which is not passed")
    kind, default = _type(option, _passed_default(option), many=many)
    return option.parameter(kind, default, required=_required(option), choices=_choices(option))


def _passed_default(option: _Option) -> Any:
    """The default, None where giving it on the command line is not the same as not giving it."""
    default = _default(option, absent=None)
    if default is None:
        return None
    if option.exclusive:
        option.checks.append(f"it excludes others, so its default, {default!r}, is not given; {_UNPASSED}")
        return None
    if _action(option) == "extend" and default != []:
        option.checks.append(f"what is given extends its default, {default!r}; {_UNPASSED}")
        return None
    return default


def _takes_many(option: _Option) -> bool | None:
    """Whether `nargs` makes it a list; None when what it takes is not one."""
    node = option.keywords.get("nargs")
    if node is None:
        return False
    try:
        count = literal(node, option.constants)
    except UnknownValueError:
        return None
    return None if count in ("...", "A...") else count != "?" and count is not None


def _required(option: _Option) -> bool:
    node = option.keywords.get("required")
    if node is None or isinstance(node, ast.Constant):
        return bool(node and node.value)
    option.checks.append(f"required={ast.unparse(node)} is known only when the script runs")
    return False


def _choices(option: _Option) -> tuple[Any, ...] | None:
    if "choices" not in option.keywords:
        return None
    try:
        found = choices(option.keywords["choices"], option.constants)
    except UnknownValueError:
        option.checks.append(f"its choices, {option.source('choices')}, are known only when the script runs")
        return None
    scalars = found and all(type_of(choice) in SCALAR_TYPES for choice in found)
    return found if scalars else None


def _default(option: _Option, absent: Any) -> Any:
    """The default's value, None where the script alone knows it."""
    if "default" not in option.keywords:
        return absent
    if option.source("default") in ("argparse.SUPPRESS", "SUPPRESS"):
        return None
    try:
        return literal(option.keywords["default"], option.constants)
    except UnknownValueError:
        source = _one_line(option.source("default"))
        option.checks.append(f"its default, {source}, is known only when the script runs; {_UNPASSED}")
        return None


def _type(option: _Option, default: Any, *, many: bool) -> tuple[str, Any]:
    """The parameter's type, and the default as far as passing it does not change what the script sees."""
    node = option.keywords.get("type")
    name = ast.unparse(node) if node is not None else ""
    if name in ("int", "float"):
        return (f"list[{name}]", _listed(option, default)) if many else (name, default)
    if name == "str" or name in _PATH_TYPES or name.endswith("FileType") or "FileType(" in name:
        return ("list[str]", _listed(option, default)) if many else ("str", default)
    if many:
        return _untyped_list(option, default, name)
    if not name:
        return _untyped(option, default)
    return _converted(option, default, name)


def _listed(option: _Option, default: Any) -> Any:
    if default is None or isinstance(default, list):
        return default
    option.checks.append(f"its default, {default!r}, is not a list; {_UNPASSED}")
    return None


def _untyped_list(option: _Option, default: Any, name: str) -> tuple[str, Any]:
    default = _listed(option, default)
    if not name and (default is None or all(isinstance(item, str) for item in default)):
        return "list[str]", default
    what = f"each value goes through {name}" if name else "the script gets each value as text"
    option.checks.append(f"{what}; {_UNPASSED}")
    return "any", None


def _untyped(option: _Option, default: Any) -> tuple[str, Any]:
    if default is None or isinstance(default, str):
        return "str", default
    option.checks.append(
        f"its default is {default!r}, but an option without type= hands the script text; {_UNPASSED}"
    )
    kind = type_of(default)
    return (kind if kind in ("int", "float") else "str"), None


def _converted(option: _Option, default: Any, name: str) -> tuple[str, Any]:
    """A `type=` of the script's own, or the trap `type=bool`."""
    if name == "bool":
        option.checks.append(f"type=bool takes any text, even False, for true; {_UNPASSED}")
        return "str", None
    option.checks.append(f"its value goes through {_one_line(name)}")
    if isinstance(default, bool) and "bool" in name.lower():
        return "str", str(default)
    if default is None:
        return "any", None
    if type_of(default) in ("int", "float", "str"):
        return type_of(default), default
    option.checks.append(f"its default is {default!r}; {_UNPASSED}")
    return "any", None


def _help(option: _Option) -> str | None:
    """The help text as argparse prints it, without what it fills in itself."""
    text = option.text("help")
    if text is None or option.source("help").endswith("SUPPRESS"):
        return None
    return _one_line(_FILLED_IN.sub("", text).replace("%%", "%")) or None


def _one_line(text: str) -> str:
    """Text on one line without control characters, at most 200 characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= 200 else f"{line[:199]}…"
