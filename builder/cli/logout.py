"""`trainpack logout`."""

from __future__ import annotations

import os

import typer

from builder.cli.output import JsonOption, note, result
from builder.host.credentials import environment_token, forget_credentials

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack logout")
def logout(as_json: JsonOption = False) -> None:
    """Forget the Picsellia credentials that `login` keeps; the token itself stays valid on the platform."""
    path = forget_credentials()
    if variable := environment_token(os.environ):
        note(f"the token in {variable} is still used")
    result(
        {"removed": str(path) if path else None},
        as_json=as_json,
        text=lambda: f"removed {path}" if path else "there were no stored credentials",
    )
