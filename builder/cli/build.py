"""`trainpack build`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from builder.builders.buildkit import Follow
from builder.builders.progress import tell, watch
from builder.cli.output import HERE, FolderOption, JsonOption, note, result, table
from builder.plan import BuiltImage
from builder.project import build_project
from builder.publish import publish
from builder.workdir import remember_push

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack build --push")
def build(
    folder: FolderOption = HERE,
    update_lock: Annotated[
        bool, typer.Option("--update-lock", help="Resolve the requirements anew before the build.")
    ] = False,
    push: Annotated[bool, typer.Option("--push", help="Publish the image once it is built.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the image of trainpack.toml; its tag is the version and 12 digits of the plan's hash."""
    image = build_project(folder, os.environ, follow=_progress(), say=note, update_lock=update_lock)
    digest = None
    if push:
        published = publish(image, note)
        remember_push(folder, published)
        digest = published.digest
    data = image.model_copy(update={"digest": digest})
    result(data.model_dump(mode="json"), as_json=as_json, text=lambda: _describe(data))


def _progress() -> Follow:
    if sys.stderr.isatty() and not os.environ.get("CI"):
        return watch
    return lambda events: tell(events, note)


def _describe(image: BuiltImage) -> str:
    rows = [
        ("reference", image.reference),
        ("image id", image.image_id),
        ("digest", image.digest or "not pushed yet"),
        ("size", f"{image.size / 1e6:.0f} MB in {len(image.layers)} layers"),
    ]
    return table(rows)
