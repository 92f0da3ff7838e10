"""When SBOM and provenance are attached: shared by `build` and `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.cli.output import note
from builder.errors import TrainpackError, UsageError
from builder.plan import BuildPlan, PublishedImage
from builder.workdir import last_plan

AttestOption = Annotated[
    bool | None,
    typer.Option(
        "--attest/--no-attest",
        help="Attach SBOM and provenance. Default: to what is new in its registry.",
        show_default=False,
    ),
]


def attach_documents(folder: Path, published: PublishedImage, attest: bool | None) -> None:
    """Attach SBOM and provenance to a pushed build of this folder; nothing is asked of what is not new.

    Raises:
        UsageError: They were asked for, and could not be made.
        TrainpackError: They were asked for, and could not be attached.
    """
    plan = last_plan(folder) if attest or (published.new and attest is None) else None
    if plan:
        _attach(published, plan, required=bool(attest))
    elif attest:
        raise UsageError("the plan of the last build is not known", remedy="`trainpack build` makes it")


def _attach(published: PublishedImage, plan: BuildPlan, *, required: bool) -> None:
    from builder import attestations  # noqa: PLC0415  (a push that finds all in place needs nothing of it)

    try:
        if not published.new:
            attestations.check_origin(published, plan)
        for line in attestations.attest(published, plan):
            note(line)
    except TrainpackError as error:
        if required:
            raise
        # The image is there, whole and tested; what only describes it must not hold it up.
        note(f"warning: pushed without SBOM and provenance: {error}; `trainpack push --attest` tries again")
