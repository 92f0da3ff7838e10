"""Runs the checks of an image, a few containers at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from builder.checks.context import Context
from builder.checks.contract import CHECKS, Check, ended
from builder.checks.report import CheckResult, LayerSize, Report
from builder.errors import ContractError
from builder.plan import BuiltImage

AT_A_TIME = 3


class Train(Check):
    """The image's own script trains with its defaults."""

    name = "train"
    proves = "the image's own script trains with its defaults"
    remedy = "read the last lines above; `trainpack run` shows them all"

    def __init__(self, data: Mapping[str, Path]) -> None:
        self._data = data

    def _look(self, context: Context) -> str:
        seen = ended(context.run_script(self._data))
        status = seen.result.get("status")
        if status != "success":
            raise ContractError(f"result.json says {status!r}, expected 'success'")
        return f"{len(seen.result.get('outputs', ()))} outputs, metrics {seen.result.get('metrics', {})}"


def check_image(
    image: BuiltImage,
    *,
    train: Check | None = None,
    tell: Callable[[CheckResult], None] = lambda result: None,
    checks: Sequence[Check] = CHECKS,
) -> Report:
    """Check that an image keeps the contract.

    Args:
        image: An image that the engine has (`builder.engine.containers.find_image`).
        train: The check that runs the image's own script, `Train`, when that is wanted.
        tell: Receives each result as it comes.

    Raises:
        EngineError: The engine failed; a failing image is no exception but in the report.
    """
    context = Context(image)
    # Several checks read this one, and the others need what it finds out.
    with suppress(ContractError):
        _ = context.plain
    results: list[CheckResult] = []
    try:
        for result in _results(context, checks, train):
            tell(result)
            results.append(result)
    except BaseException:
        context.end()
        raise
    return Report(
        reference=image.reference,
        image_id=image.image_id,
        results=tuple(results),
        layers=_layer_sizes(context),
    )


def _layer_sizes(context: Context) -> tuple[LayerSize, ...]:
    try:
        layers = context.saved.layers
    except ContractError:
        return ()
    return tuple(LayerSize(made_by=each.made_by, digest=each.digest, size=each.size) for each in layers)


def _results(context: Context, checks: Sequence[Check], train: Check | None) -> Iterator[CheckResult]:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        # The longest wait of all; the checks that need it come last.
        pool.submit(lambda: context.saved)
        try:
            yield from pool.map(lambda check: check.run(context), checks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            context.end()
            raise
    # Alone: threads of a numerical library that must share their processors with others spin for minutes.
    if train:
        yield train.run(context)
