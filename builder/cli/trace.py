"""`trainpack trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.options import opened
from builder.cli.output import JsonOption, result

if TYPE_CHECKING:
    from builder.trace import Link, Trace

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack trace local:pedestrian/v3")
def trace(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|DIGEST|[STORE:]MODEL/VERSION|experiment:[STORE:]PROJECT/EXPERIMENT|FILE"
        ),
    ],
    *,
    store: Annotated[
        str, typer.Option(help="Where the versions and experiments of an image or file are looked for.")
    ] = "local",
    as_json: JsonOption = False,
) -> None:
    """Follow an image, a version, an experiment or a file to all that it is linked to, both ways.

    A link is proven when contents match, recorded when it was only written down, broken when what is there
    now is something else; a broken link ends with 1.
    """
    from builder import trace as core  # noqa: PLC0415  (docker and requests, not needed for --help)
    from builder.models.names import Name  # noqa: PLC0415

    parsed = core.parse_subject(subject)
    traced = core.trace(parsed, opened(parsed.store if isinstance(parsed, Name) else store))
    data = {**traced.model_dump(mode="json", by_alias=True), "broken": len(traced.broken)}
    result(data, as_json=as_json, text=lambda: _tree(traced))
    if traced.broken:
        raise typer.Exit(1)


def _tree(traced: Trace) -> str:
    if not traced.links:
        return f"{traced.subject}\n└─ nothing is linked to it: no image is attached, and no source is known"
    children: dict[str, list[Link]] = {}
    for link in traced.links:
        children.setdefault(link.from_, []).append(link)
    return "\n".join([traced.subject, *_branches(traced.subject, children, ())])


def _branches(node: str, children: dict[str, list[Link]], above: tuple[str, ...]) -> list[str]:
    # A label may name the image itself: what was shown above is not followed again.
    links = [] if node in above else children.get(node, [])
    lines: list[str] = []
    for link in links:
        last = link is links[-1]
        lines.append(f"{'└─' if last else '├─'} {link.kind}: {link.to}  [{link.status}: {link.why}]")
        below = _branches(link.to, children, (*above, node))
        lines += [f"{'   ' if last else '│  '}{line}" for line in below]
    return lines
