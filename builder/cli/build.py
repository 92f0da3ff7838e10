"""`trainpack build`."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.building import BuildRequest, build_index, build_project
from builder.cli.output import HERE, AttestOption, FolderOption, JsonOption, note, result, table
from builder.cli.printing import describe_build

if TYPE_CHECKING:
    from builder.builders.buildkit import Follow
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
        typer.Option(
            help="oci writes the layers itself; docker runs a Dockerfile; auto chooses, and says why."
        ),
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
    request = BuildRequest(
        builder=builder.value,
        update_lock=update_lock,
        push=push,
        load=load,
        output=output,
        platforms=tuple(platform.split(",")) if platform else (),
        tag=tag,
        attest=attest,
    )
    if len(set(request.platforms)) > 1:
        index = build_index(folder, os.environ, request, say=note)
        result(index, as_json=as_json, text=lambda: _describe_index(index))
        return
    made = build_project(folder, os.environ, request, follow=_progress(), say=note)
    data = made.built.model_dump(mode="json")
    told = json.dumps(data, indent=2) if as_json else describe_build(data)
    print(told, flush=True)
    if not (output or update_lock or platform or tag):
        made.remember(sys.argv[1:], told, as_json=as_json, request=request)


def _progress() -> Follow:
    if sys.stderr.isatty() and not os.environ.get("CI"):
        return _watch
    return _tell


def _watch(events: Events) -> list[Step]:
    from builder.builders.progress import watch  # noqa: PLC0415  (rich, and no build by oci needs it)

    return watch(events)


def _tell(events: Events) -> list[Step]:
    from builder.builders.progress import tell  # noqa: PLC0415

    return tell(events, note)


def _describe_index(index: dict[str, Any]) -> str:
    rows = [("reference", index["reference"]), ("digest", index["digest"]), *index["images"].items()]
    return table(rows)
