"""`trainpack push`: publish the image to its registry."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from builder.attestation.documents import attach_documents
from builder.cli.output import HERE, AttestOption, FolderOption, JsonOption, note, result
from builder.engine.containers import find_image
from builder.errors import UsageError
from builder.last_image import kept_image
from builder.publish import adopt, publish, publish_kept, start_push
from builder.reference import parse_reference
from builder.workdir import last_build, last_plan, previous_push, remember_build, remember_push

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack build && trainpack test && trainpack push")
def push(
    image: Annotated[
        str | None, typer.Argument(help="An image of the engine; the last build if none.")
    ] = None,
    *,
    take: Annotated[
        bool,
        typer.Option("--adopt", help="Take the image that the registry has under this tag; then test it."),
    ] = False,
    attest: AttestOption = None,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Publish the image to its registry and print the manifest digest it got there.

    A tag is never moved: pushing the same image again is done already, another image under it is refused.
    """
    if attest and (image or take):
        raise UsageError("only the last build is known well enough to be attested", place="--attest")
    built = find_image(image) if image else last_build(folder)
    if take:
        adopted, published = adopt(built, note)
        remember_build(folder, adopted)
    elif not image and (kept := kept_image(folder, built, os.environ)):
        with start_push(parse_reference(built.reference), note) as pushing:
            published = publish_kept(kept, built, note, pushing, previous_push(folder))
    else:
        published = publish(built, note)
    remember_push(folder, published)
    if not image:
        attach_documents(last_plan(folder), published, attest, note)
    result(
        published.model_dump(),
        as_json=as_json,
        text=lambda: f"{published.reference}@{published.digest}",
    )
