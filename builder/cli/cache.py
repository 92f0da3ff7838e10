"""`trainpack cache`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from builder.cli.output import JsonOption, result, table
from builder.oci.cache import Removed, open_cache, parse_size

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Show, bound, check and empty the cache of layers and bases.",
    epilog="Example: trainpack cache info",
)


@app.command(epilog="Example: trainpack cache info --json")
def info(as_json: JsonOption = False) -> None:
    """Show where the cache is and what it holds."""
    found = open_cache().info()
    rows: list[tuple[str, ...]] = [
        ("folder", found.folder),
        ("layers", str(found.layers)),
        ("blobs", f"{found.blobs}, {_megabytes(found.size)}"),
        ("bases", f"{found.bases}, {_megabytes(found.bases_size)}"),
        ("left by killed builds", _megabytes(found.stray)),
        ("limit", _megabytes(found.limit)),
    ]
    result(asdict(found), as_json=as_json, text=lambda: table(rows))


@app.command(epilog="Example: trainpack cache prune --limit 5GB")
def prune(
    limit: Annotated[str | None, typer.Option(help="Bytes to keep; default TRAINPACK_CACHE_LIMIT.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what was used longest ago until the cache fits its limit, and what killed builds left."""
    cache = open_cache()
    _told(cache.prune(parse_size(limit, "--limit") if limit else cache.limit), as_json=as_json)


@app.command(epilog="Example: trainpack cache clear")
def clear(as_json: JsonOption = False) -> None:
    """Remove everything but the bases; the next build makes it anew."""
    _told(open_cache().clear(), as_json=as_json)


@app.command(epilog="Example: trainpack cache verify")
def verify(as_json: JsonOption = False) -> None:
    """Hash every blob and remove the corrupt ones; ends with 1 when there were any."""
    corrupt = open_cache().verify()
    lines = [f"corrupt, removed: {digest}" for digest in corrupt] or ["every blob is what its digest says"]
    result({"corrupt": corrupt}, as_json=as_json, text=lambda: "\n".join(lines))
    if corrupt:
        raise typer.Exit(1)


def _told(removed: Removed, *, as_json: bool) -> None:
    result(
        asdict(removed),
        as_json=as_json,
        text=lambda: f"removed {removed.files} files, {_megabytes(removed.size)}",
    )


def _megabytes(count: int) -> str:
    return f"{count / 10**6:,.1f} MB"
