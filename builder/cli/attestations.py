"""When SBOM and provenance are attached: shared by `build` and `push`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from builder.cli.output import note
from builder.errors import TrainpackError, UsageError
from builder.oci.artifact import Artifact
from builder.oci.image import Image, Index
from builder.plan import BuildPlan, PublishedImage
from builder.revision import UNCOMMITTED, is_dirty

AttestOption = Annotated[
    bool | None,
    typer.Option(
        "--attest/--no-attest",
        help="Attach SBOM and provenance. Default: to what is new in its registry, its code committed.",
        show_default=False,
    ),
]


def attach_documents(plan: BuildPlan | None, published: PublishedImage, attest: bool | None) -> None:
    """Attach SBOM and provenance to a pushed build; nothing is asked of what was there before.

    Raises:
        UsageError: They were asked for, and could not be made.
        TrainpackError: They were asked for, and could not be attached.
    """
    if attest is False or not (attest or published.new):
        return
    if not plan:
        told = "the plan of the last build is not known, so neither are SBOM and provenance"
        if attest:
            raise UsageError(told, remedy="`trainpack build` makes it")
        note(told)
    elif not attest and is_dirty(plan.manifest["revision"]):
        note(UNCOMMITTED)
    else:
        _attach(plan, published, required=bool(attest))


def layout_documents(plans: Sequence[BuildPlan], image: Image | Index) -> Mapping[str, Sequence[Artifact]]:
    """The documents of the images of a layout, by their digests.

    Raises:
        ImageFormatError: A plan's base is not the one that is kept.
        BlobError: What is kept of it is damaged.
    """
    from builder.attestations import artifacts  # noqa: PLC0415

    pairs = zip(plans, image.images, strict=True)
    return {each.digest: artifacts(plan, each.digest) for plan, each in pairs}


def _attach(plan: BuildPlan, published: PublishedImage, *, required: bool) -> None:
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
