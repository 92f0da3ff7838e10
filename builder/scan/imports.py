"""Which modules a file imports, and how badly it needs them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Need = Literal["always", "conditional", "optional", "typing"]
_IMPORT_FAILURES = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


@dataclass(frozen=True)
class Imported:
    """One import statement's target.

    Attributes:
        module: Dotted name without leading dots.
        level: Leading dots of a relative import.
        names: What `from module import …` takes, each of which may be a module of its own.
    """

    module: str
    level: int
    names: tuple[str, ...]
    line: int
    need: Need
    reason: str


@dataclass(frozen=True)
class _Context:
    need: Need = "always"
    reason: str = "imported"


def read_imports(tree: ast.Module) -> list[Imported]:
    """Every import statement of a module, wherever it stands, in order."""
    return list(_walk(tree.body, _Context()))


def is_main_guard(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "__name__ == '__main__'",
        "'__main__' == __name__",
    )


def _walk(body: Sequence[ast.AST], context: _Context) -> Iterator[Imported]:
    for node in body:
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    yield _imported(alias.name, 0, (), node.lineno, context)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                names = tuple(alias.name for alias in aliases)
                yield _imported(module or "", level, names, node.lineno, context)
            case ast.If() if not is_main_guard(node):
                yield from _walk_if(node, context)
            case ast.Try() | ast.TryStar():
                yield from _walk_try(node, context)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                reason = f"imported inside {name}()" if context.need == "always" else context.reason
                yield from _walk(node.body, replace(context, reason=reason))
            case _:
                yield from _walk([child for child in ast.iter_child_nodes(node) if _is_block(child)], context)


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case)


def _imported(module: str, level: int, names: tuple[str, ...], line: int, context: _Context) -> Imported:
    return Imported(module, level, names, line, context.need, context.reason)


def _walk_if(node: ast.If, context: _Context) -> Iterator[Imported]:
    test = ast.unparse(node.test)
    if test in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        yield from _walk(node.body, _Context("typing", "imported for type checkers only"))
        yield from _walk(node.orelse, context)
        return
    inner = _Context("conditional", f"imported only if {test}") if context.need == "always" else context
    yield from _walk([*node.body, *node.orelse], inner)


def _walk_try(node: ast.Try | ast.TryStar, context: _Context) -> Iterator[Imported]:
    catching = [handler for handler in node.handlers if _catches_import(handler)]
    outer = context
    if catching and context.need in ("always", "conditional"):
        if any(_gives_up(handler) for handler in catching):
            context = replace(context, reason="imported inside try, and the script gives up without it")
        elif any(_imports(handler) for handler in catching):
            context = _Context("conditional", "imported inside try, with another module to fall back on")
        else:
            context = _Context("optional", "imported inside try, and the script copes without it")
    yield from _walk(node.body, context)
    fallback = _Context("optional", "imported only when another import failed")
    for handler in node.handlers:
        yield from _walk(handler.body, fallback if handler in catching else outer)
    yield from _walk([*node.orelse, *node.finalbody], outer)


def _catches_import(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind) in _IMPORT_FAILURES for kind in kinds)


def _gives_up(handler: ast.ExceptHandler) -> bool:
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) in ("exit", "quit", "sys.exit", "os._exit"))
        for node in ast.walk(handler)
    )


def _imports(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(handler))
