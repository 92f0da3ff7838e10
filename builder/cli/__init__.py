"""The `trainpack` command line.

Each command is a module of this package with a typer `app`; it is imported only when it is called, and the
root help is answered from the table below, so that `trainpack --help` costs no more than Python's start.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import NoReturn

COMMANDS = {
    "init": "Start a new training repo from a scaffold.",
    "wrap": "Write trainpack.toml (and requirements) for an existing script, unedited.",
    "lock": "Resolve the requirements to pylock.toml.",
    "plan": "Show what would be built, and why.",
    "build": "Build the image.",
    "test": "Check that the image keeps the contract, through its own entrypoint.",
    "run": "Train locally in the container.",
    "push": "Publish the image to its registry.",
    "attach": "Attach the image to a ModelVersion.",
    "trace": "Follow an image, version, experiment or file to all that it is linked to.",
    "sbom": "Show what is in an image: its SBOM, or its provenance.",
    "models": "The ModelVersions of a store: show, edit, check, compare, copy; their files.",
    "experiments": "The experiments of a store: show, create, attach datasets, publish.",
    "datasets": "The dataset versions of a store: add, list, show.",
    "base": "List the base images; build and publish them.",
    "cache": "Show, bound, check and empty the cache of layers.",
    "login": "Keep Picsellia credentials in a file that only you can read.",
    "logout": "Forget the Picsellia credentials.",
    "whoami": "Show which Picsellia account answers.",
    "doctor": "Check engine, BuildKit, package index, CA and platform, each with its remedy.",
}


def main() -> NoReturn:
    """Run the command line and exit with the codes of docs/cli.md."""
    arguments = sys.argv[1:]
    if arguments in ([], ["--help"], ["-h"]):
        print(_help())
        sys.exit(0 if arguments else 2)
    if arguments == ["--version"]:
        from builder import __version__  # noqa: PLC0415  (kept off the path of --help)

        print(f"trainpack {__version__}")
        sys.exit(0)
    if arguments[:2] == ["models", "list"] and set(arguments[2:]) <= {"local", "--json"}:
        _list_local_versions(as_json="--json" in arguments)
    if arguments[0] == "build":
        from builder.rebuild.unchanged import told_before  # noqa: PLC0415

        try:
            told = told_before(arguments)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(130)
        if told is not None:
            print(told)
            sys.exit(0)
    from builder.cli.dispatch import run  # noqa: PLC0415  (typer takes most of a start)

    sys.exit(run(arguments))


def _list_local_versions(*, as_json: bool) -> None:
    """Exit when the list is printed; a failure is left to be met again, and told, on the usual way.

    Scripts ask for it often, and loading typer takes longer than listing ten thousand versions.
    """
    from builder.cli.version_list import print_versions  # noqa: PLC0415
    from builder.errors import TrainpackError  # noqa: PLC0415

    with suppress(TrainpackError, OSError):
        print_versions("local", as_json=as_json)
        sys.exit(0)


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return f"""Usage: trainpack COMMAND [OPTIONS]

A training script in, a tested GPU-ready image on a Picsellia ModelVersion out.

Commands:
{rows}

Options:
  --version  Print the version.
  --help     Print this, or a command's own help: trainpack build --help

Example:
  trainpack wrap train.py && trainpack build && trainpack test

Exit codes: 0 it worked, 1 it failed, 2 wrong usage or spec, 130 Ctrl-C; `run` ends with the container's."""
