"""`trainpack login`."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated
from uuid import UUID

import typer

from builder.cli.output import JsonOption, note, result
from builder.errors import UsageError
from builder.host.credentials import DEFAULT_HOST, Credentials, make_credentials, save_credentials

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: printenv MY_TOKEN | trainpack login --token-stdin --organization vision")
def login(
    host: Annotated[str, typer.Option(help="The platform's address.")] = DEFAULT_HOST,
    organization: Annotated[
        str, typer.Option(help="Name or id of an organization; the account's own by default.")
    ] = "",
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read the token from standard input.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep Picsellia credentials in a file that only you can read.

    The token is asked for without showing it, tried on the platform, and written only when it works.
    """
    key = "organization_id" if _is_uuid(organization) else "organization_name"
    credentials = make_credentials(
        {"token": _token(from_stdin=token_stdin), "host": host, key: organization}, "the command line"
    )
    _verify_and_save(credentials, as_json=as_json)


def _verify_and_save(credentials: Credentials, *, as_json: bool) -> None:
    from builder.models.picsellia import PicselliaStore  # noqa: PLC0415  (not on the way to --help)

    note(f"asking {credentials.host}")
    account = PicselliaStore.connect(credentials).account()
    path = save_credentials(credentials)
    data = account.model_dump() | {"source": str(path)}
    result(
        data,
        as_json=as_json,
        text=lambda: f"logged in as {account.user} of {account.organization}; kept in {path}",
    )


def _token(*, from_stdin: bool) -> str:
    if from_stdin:
        token = sys.stdin.readline().strip()
    elif sys.stdin.isatty():
        token = getpass.getpass("API token (Profile settings > Token): ").strip()
    else:
        raise UsageError("there is no terminal to ask for the token", remedy="pipe it to --token-stdin")
    if not token:
        raise UsageError("the token is empty")
    return token


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
