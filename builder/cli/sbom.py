"""`trainpack sbom`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.cli.output import HERE, FolderOption, JsonOption, result, table

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack sbom --output sbom.cdx.json")
def sbom(
    image: Annotated[
        str | None, typer.Argument(help="An image in its registry; the last build if none.")
    ] = None,
    *,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="What an image in its registry was made from, instead.")
    ] = False,
    platform: Annotated[
        str, typer.Option(help="Which image, where there are several under one name.")
    ] = "linux/amd64",
    output: Annotated[
        Path | None, typer.Option(help="Write the document to this file.", dir_okay=False)
    ] = None,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show what is in an image: Debian packages, wheels and code, as a CycloneDX document with --json.

    Of an image in a registry, the document that is attached to it; of the last build, the one that its push
    attaches.
    """
    content = _attached(image, provenance, platform) if image else _made(folder, provenance)
    if output:
        output.write_bytes(content)
        return
    from builder.oci.manifest import parse_object  # noqa: PLC0415

    document = parse_object(content, image or str(folder))
    result(
        document, as_json=as_json, text=lambda: _describe(document, _inputs if provenance else _components)
    )


def _attached(image: str, provenance: bool, platform: str) -> bytes:
    from builder.attestation.attest import attached  # noqa: PLC0415  (requests, not needed for --help)
    from builder.attestation.provenance import PROVENANCE  # noqa: PLC0415
    from builder.attestation.sbom import SBOM  # noqa: PLC0415
    from builder.reference import parse_reference  # noqa: PLC0415

    return attached(parse_reference(image), PROVENANCE if provenance else SBOM, platform)


def _made(folder: Path, provenance: bool) -> bytes:
    from builder.attestation import attest as attestations  # noqa: PLC0415
    from builder.attestation.provenance import make_provenance  # noqa: PLC0415
    from builder.errors import UsageError  # noqa: PLC0415
    from builder.workdir import last_build, last_plan, last_push  # noqa: PLC0415

    built, plan = last_build(folder), last_plan(folder)
    if not plan:
        raise UsageError("the plan of the last build is not known", remedy="`trainpack build` makes it")
    if not provenance:
        return attestations.sbom(plan.model_dump(mode="json"))
    pushed = last_push(folder, built.image_id)
    digest = built.digest or (pushed.digest if pushed else None)
    if not digest:
        raise UsageError(
            "an image of the docker builder has no digest before it is pushed",
            place=built.reference,
            remedy="`trainpack push` first",
        )
    return make_provenance(plan.model_dump(mode="json"), digest)


def _describe(document: dict[str, Any], describe: Callable[[dict[str, Any]], str]) -> str:
    try:
        return describe(document)
    except (LookupError, TypeError, AttributeError):
        from builder.errors import ImageFormatError  # noqa: PLC0415

        raise ImageFormatError(
            "the document is not of the form that trainpack writes", remedy="--json prints it as it is"
        ) from None


def _components(document: dict[str, Any]) -> str:
    rows = [
        (_kind(each), each["name"], each.get("version", ""), _places(each))
        for each in document.get("components", ())
    ]
    return table(rows, ("kind", "name", "version", "in"))


def _kind(component: dict[str, Any]) -> str:
    scheme = component.get("purl", "").removeprefix("pkg:").partition("/")[0]
    return str(scheme or component["type"])


def _places(component: dict[str, Any]) -> str:
    found = component.get("evidence", {}).get("occurrences", ())
    return ", ".join(each["location"] for each in found)


def _inputs(document: dict[str, Any]) -> str:
    predicate = document["predicate"]
    definition = predicate["buildDefinition"]
    rows = [("builder", predicate["runDetails"]["builder"]["id"])]
    rows += [(f"image {each['name']}", _first(each["digest"])) for each in document["subject"]]
    rows += [(f"{name} hash", value) for name, value in definition["internalParameters"].items()]
    rows += [
        (each.get("name") or each["uri"], _first(each["digest"]))
        for each in definition["resolvedDependencies"]
    ]
    return table(rows)


def _first(digests: dict[str, str]) -> str:
    return next(f"{algorithm}:{value}" for algorithm, value in digests.items())
