"""`trainpack build`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.attestations import AttestOption, attach_documents, layout_documents
from builder.cli.output import HERE, FolderOption, JsonOption, note, result, table
from builder.cli.text import describe_build
from builder.errors import UsageError
from builder.oci.image import Image, Index
from builder.plan import BuildPlan, BuiltImage, index_tag
from builder.project import ensure_base, ensure_lock, read_plan
from builder.reference import Reference, parse_reference
from builder.spec import FILE
from builder.watch import Build, Watch
from builder.workdir import previous_push, remember_build, remember_plan, remember_push, workdir

if TYPE_CHECKING:
    from builder.builders.progress import Events, Step

app = typer.Typer(rich_markup_mode=None)


class BuilderName(StrEnum):
    """What `--builder` takes."""

    AUTO = "auto"
    OCI = "oci"
    DOCKER = "docker"


@app.command(epilog="Example: trainpack build --push")
def build(
    folder: FolderOption = HERE,
    *,
    builder: Annotated[
        BuilderName,
        typer.Option(help="oci needs no engine; docker runs a Dockerfile; auto takes oci where it can."),
    ] = BuilderName.AUTO,
    update_lock: Annotated[
        bool, typer.Option("--update-lock", help="Resolve the requirements anew before the build.")
    ] = False,
    push: Annotated[bool, typer.Option("--push", help="Publish the image once it is built.")] = False,
    load: Annotated[
        bool | None,
        typer.Option("--load/--no-load", help="Give the image to the engine. Default: where one answers."),
    ] = None,
    attest: AttestOption = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="oci:DIR|archive:FILE", help="Also write the image to a layout or an archive."),
    ] = None,
    platform: Annotated[
        str | None,
        typer.Option(help="linux/amd64, linux/arm64, or both with a comma: one index. Default: the spec's."),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(help="TAG or REPOSITORY:TAG in place of the version and the plan's hash."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build the image of trainpack.toml; its tag is the version and 12 digits of the plan's hash."""
    if (folder / FILE).is_file():
        workdir(folder)  # early, since a folder that has just changed is not trusted to stay as it is
    platforms = list(dict.fromkeys(platform.split(","))) if platform else [None]
    for each in platforms:
        if ensure_lock(folder, os.environ, update=update_lock, platform=each):
            note(f"resolved the requirements{f' for {each}' if each else ''}")
        ensure_base(folder, note, each)
    watch = Watch.start(folder)
    plans = [read_plan(folder, os.environ, each) for each in platforms]
    if len(plans) > 1:
        _build_index(plans, folder, tag, output=output, push=push, attest=attest, as_json=as_json)
        return
    (planned,) = plans
    reference = _reference(planned, tag)
    note(f"building {reference}")
    if not _takes_oci(builder, planned, output):
        built = _build_docker(planned, folder, reference, push=push, attest=attest)
        result(
            built.model_dump(mode="json"), as_json=as_json, text=lambda: describe_build(built.model_dump())
        )
        return
    write = _writer(output, plans, reference, attest=attest) if output else None
    image, built, engine = _build_oci(
        planned, folder, reference, write=write, load=load, push=push, attest=attest
    )
    data = built.model_dump(mode="json")
    told = json.dumps(data, indent=2) if as_json else describe_build(data)
    print(told, flush=True)
    if not (output or update_lock or platform or tag):
        watch.remember(Build(sys.argv[1:], planned, image, built, told, as_json, push, engine, attest))


def _reference(planned: BuildPlan, tag: str | None) -> Reference:
    if tag is None:
        return planned.reference
    named = parse_reference(tag) if ":" in tag or "/" in tag else Reference(planned.name, tag)
    if named.tag is None or named.digest is not None:
        raise UsageError(f"{tag!r}, expected TAG or REPOSITORY:TAG", place="--tag")
    return parse_reference(str(named))


def _takes_oci(builder: BuilderName, planned: BuildPlan, output: str | None) -> bool:
    from builder.builders.oci import why_not  # noqa: PLC0415

    reason = why_not(planned)
    if builder is BuilderName.AUTO and reason:
        note(f"the docker builder builds this: {reason}")
    takes = builder is BuilderName.OCI or (builder is BuilderName.AUTO and not reason)
    if output and not takes:
        raise UsageError("only the oci builder writes layouts and archives", place="--output")
    return takes


def _build_oci(
    planned: BuildPlan,
    folder: Path,
    reference: Reference,
    *,
    write: Callable[[Image | Index], None] | None,
    load: bool | None,
    push: bool,
    attest: bool | None,
) -> tuple[Image, BuiltImage, dict[str, object] | None]:
    from builder.builders.oci import OciBuilder, built_image  # noqa: PLC0415
    from builder.oci.cache import open_cache  # noqa: PLC0415

    cache = open_cache()
    image = OciBuilder(cache, os.environ, note).image(planned, folder)
    built = built_image(planned, image).model_copy(update={"reference": str(reference), "tag": reference.tag})
    if write:
        write(image)
    engine = None if load is False else _load(image, built, folder, required=bool(load))
    _remember(folder, planned, built)
    if push:
        from builder.publish import publish_kept  # noqa: PLC0415

        published = publish_kept(image, built, note, previous_push(folder))
        remember_push(folder, published)
        attach_documents(planned, published, attest)
    cache.trim()
    return image, built, engine


def _build_index(
    plans: Sequence[BuildPlan],
    folder: Path,
    tag: str | None,
    *,
    output: str | None,
    push: bool,
    attest: bool | None,
    as_json: bool,
) -> None:
    """Images for several platforms under one tag; an engine holds one platform only, so none is asked."""
    from builder.builders.oci import OciBuilder  # noqa: PLC0415
    from builder.oci.cache import open_cache  # noqa: PLC0415

    if not (push or output):
        raise UsageError(
            "images for several platforms go to a registry or a file", remedy="add --push or --output"
        )
    reference = _reference(plans[0], tag or index_tag(plans))
    write = _writer(output, plans, reference, attest=attest) if output else None
    note(f"building {reference} for {' and '.join(each.platform for each in plans)}")
    cache = open_cache()
    index = Index(tuple(OciBuilder(cache, os.environ, note).image(each, folder) for each in plans))
    if write:
        write(index)
    if push:
        from builder.publish import publish_index  # noqa: PLC0415

        published = publish_index(index, reference, note)
        for planned, image in zip(plans, index.images, strict=True):
            one = published.model_copy(update={"image_id": image.id, "digest": image.digest})
            attach_documents(planned, one, attest)
    cache.trim()
    images = {image.platform: image.digest for image in index.images}
    data = {"reference": str(reference), "digest": index.digest, "images": images}
    rows = [("reference", str(reference)), ("digest", index.digest), *images.items()]
    result(data, as_json=as_json, text=lambda: table(rows))


def _build_docker(
    planned: BuildPlan, folder: Path, reference: Reference, *, push: bool, attest: bool | None
) -> BuiltImage:
    from builder.builders.docker import DockerBuilder  # noqa: PLC0415  (the engine's SDK takes its time)

    built = DockerBuilder(os.environ, _progress()).build(planned, folder)
    if reference != planned.reference:
        from builder.containers import tag_image  # noqa: PLC0415

        tag_image(built.image_id, reference)
        built = built.model_copy(update={"reference": str(reference), "tag": reference.tag})
    _remember(folder, planned, built)
    if not push:
        return built
    from builder.publish import publish  # noqa: PLC0415

    published = publish(built, note)
    remember_push(folder, published)
    attach_documents(planned, published, attest)
    return built.model_copy(update={"digest": published.digest})


def _remember(folder: Path, planned: BuildPlan, built: BuiltImage) -> None:
    remember_plan(folder, planned)
    remember_build(folder, built)


def _writer(
    output: str, plans: Sequence[BuildPlan], reference: Reference, *, attest: bool | None
) -> Callable[[Image | Index], None]:
    from builder.oci.archive import write_archive  # noqa: PLC0415
    from builder.oci.layout import write_layout  # noqa: PLC0415

    kind, _, place = output.partition(":")
    if kind == "oci" and place:
        return lambda image: write_layout(
            Path(place), image, reference.tag, layout_documents(plans, image) if attest else {}
        )
    if kind == "archive" and place:
        return lambda image: write_archive(Path(place), image, reference)
    raise UsageError(f"{output!r}, expected oci:DIR or archive:FILE", place="--output")


def _load(image: Image, built: BuiltImage, folder: Path, *, required: bool) -> dict[str, object] | None:
    """Give the image to the engine where there is one; what the next build may ask of that engine."""
    from builder.last_image import engine_answers, load_image  # noqa: PLC0415
    from builder.watch import engine_socket  # noqa: PLC0415

    loaded = required or engine_answers()
    if loaded:
        load_image(image, built.reference, folder)
    else:
        note("no engine answers, so the image is in trainpack's cache only; test and run need an engine")
    return {"socket": engine_socket(), "loaded": loaded}


def _progress() -> Callable[[Events], list[Step]]:
    from builder.builders.progress import tell, watch  # noqa: PLC0415

    if sys.stderr.isatty() and not os.environ.get("CI"):
        return watch
    return lambda events: tell(events, note)
