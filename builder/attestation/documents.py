"""When SBOM and provenance are made: what `build` and `push` ask of `builder.attestation.attest`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from builder.errors import UsageError
from builder.oci.artifact import Artifact
from builder.oci.image import Image, Index
from builder.plan import BuildPlan, PublishedImage
from builder.reference import parse_reference

Say = Callable[[str], None]


def attach_documents(
    plan: BuildPlan | None, published: PublishedImage, attest: bool | None, say: Say
) -> None:
    """Attach SBOM and provenance to a pushed build; see `attest`, also for its errors.

    Raises:
        UsageError: They were asked for, and there is no plan to make them from.
    """
    if attest is False or not (attest or published.new):
        return
    from builder.attestation import attest as attestations  # noqa: PLC0415  (a push that finds all in place needs nothing of it)

    if plan:
        data, reference = plan.model_dump(mode="json"), parse_reference(published.reference)
        attestations.attest(data, reference, published.digest, say, new=published.new, wanted=bool(attest))
    elif attest:
        raise UsageError("the plan of the last build is not known", remedy="`trainpack build` makes it")


def layout_documents(plans: Sequence[BuildPlan], image: Image | Index) -> Mapping[str, Sequence[Artifact]]:
    """The documents of the images of a layout, by their digests.

    Raises:
        ImageFormatError: A plan's base is not the one that is kept.
        BlobError: What is kept of it is damaged.
    """
    from builder.attestation.attest import artifacts  # noqa: PLC0415

    pairs = zip(plans, image.images, strict=True)
    return {each.digest: artifacts(plan.model_dump(mode="json"), each.digest) for plan, each in pairs}
