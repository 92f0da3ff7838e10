"""The value of an expression, where the source alone says it."""

from __future__ import annotations

import ast
import operator
import posixpath
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

_MAX_ITEMS = 100
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_BIGGEST = 2**63


class UnknownValueError(Exception):
    """The value is known only when the script runs."""


Constants = Mapping[str, ast.expr]


def module_constants(tree: ast.Module) -> Constants:
    """Module-level names that are assigned once, with their expressions."""
    stored = Counter(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    values: dict[str, ast.expr] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                values[name] = value
    return {name: value for name, value in values.items() if stored[name] == 1}


def literal(node: ast.expr, constants: Constants) -> Any:  # noqa: PLR0911  (one per kind of expression)
    """The value of an expression, tuples and sets as lists.

    Raises:
        UnknownValueError: It depends on anything but literals and module-level constants.
    """
    match node:
        case ast.Constant(value=str() as text) if _is_unicode(text):
            return text
        case ast.Constant(value=bool() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in constants:
            rest = {other: value for other, value in constants.items() if other != name}
            return literal(constants[name], rest)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return [literal(item, constants) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {_key(key, constants): literal(value, constants) for key, value in pairs}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, constants)
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(left, op, right, constants)
        case ast.Call(keywords=[]):
            return _call(node, constants)
    raise UnknownValueError


def choices(node: ast.expr, constants: Constants) -> tuple[Any, ...]:
    """The members of a collection; of a mapping its keys, even when its values are not known.

    Raises:
        UnknownValueError: As for `literal`.
    """
    match node:
        case ast.Name(id=name) if isinstance(mapping := constants.get(name), ast.Dict):
            return choices(mapping, constants)
        case ast.Dict(keys=keys):
            return tuple(_key(key, constants) for key in keys)
        case ast.Call(func=ast.Attribute(value=mapping, attr="keys"), args=[]):
            return choices(mapping, constants)
        case ast.Call(func=ast.Name(id="list" | "tuple" | "sorted" | "set"), args=[inner], keywords=[]):
            return choices(inner, constants)
    value = literal(node, constants)
    if not isinstance(value, list):
        raise UnknownValueError
    return tuple(value)


def _is_unicode(text: str) -> bool:
    # A lone surrogate is legal in a Python string, and in no file, argument or JSON document.
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _key(node: ast.expr | None, constants: Constants) -> Any:
    if node is None:
        raise UnknownValueError
    key = literal(node, constants)
    if isinstance(key, list | dict):
        raise UnknownValueError
    return key


def _number(node: ast.expr, constants: Constants) -> int | float:
    value = literal(node, constants)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnknownValueError
    return value


def _arithmetic(left: ast.expr, op: ast.operator, right: ast.expr, constants: Constants) -> int | float:
    first, second = _number(left, constants), _number(right, constants)
    if type(op) not in _OPERATORS or (isinstance(op, ast.Pow) and (abs(second) > 64 or abs(first) > 1e6)):
        raise UnknownValueError
    try:
        result = _OPERATORS[type(op)](first, second)
    except ArithmeticError:
        raise UnknownValueError from None
    if not isinstance(result, int | float) or abs(result) > _BIGGEST:
        raise UnknownValueError
    return result


def _call(node: ast.Call, constants: Constants) -> Any:
    arguments = [literal(argument, constants) for argument in node.args]
    name = ast.unparse(node.func)
    texts = bool(arguments) and all(isinstance(argument, str) for argument in arguments)
    if name in ("Path", "pathlib.Path", "os.path.join") and texts:
        return posixpath.join(*arguments)
    if name in ("list", "tuple", "sorted") and len(arguments) == 1 and isinstance(arguments[0], list):
        return sorted(arguments[0], key=str) if name == "sorted" else arguments[0]
    if name == "range" and arguments and all(type(argument) is int for argument in arguments):
        return _range(arguments)
    if name == "float" and arguments in (["inf"], ["-inf"]):
        return float(arguments[0])
    raise UnknownValueError


def _range(arguments: list[int]) -> list[int]:
    try:
        numbers = range(*arguments)
    except (TypeError, ValueError):
        raise UnknownValueError from None
    if len(numbers) > _MAX_ITEMS:
        raise UnknownValueError
    return list(numbers)
