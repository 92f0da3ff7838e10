"""`trainpack whoami`."""

from __future__ import annotations

import typer

from builder.cli.output import JsonOption, result, table
from builder.host.credentials import load_credentials

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack whoami --json")
def whoami(as_json: JsonOption = False) -> None:
    """Show which Picsellia account answers, and where its credentials came from."""
    credentials = load_credentials()
    from builder.models.picsellia import PicselliaStore  # noqa: PLC0415  (not on the way to --help)

    account = PicselliaStore.connect(credentials).account()
    rows: list[tuple[str, ...]] = [
        ("user", account.user),
        ("organization", f"{account.organization} ({account.organization_id})"),
        ("host", account.host),
        ("credentials", account.source),
    ]
    result(account.model_dump(), as_json=as_json, text=lambda: table(rows))
