"""Find the command, run it, and turn what it raises into one clear message and an exit code."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from builder.cli import COMMANDS
from builder.cli.printing import note
from builder.errors import TrainpackError

INTERRUPTED = 130
COMPLETION = ("install_completion", "show_completion")


class LazyGroup(TyperGroup):
    """The root command: a subcommand's module is imported when the subcommand is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The typer command of the module of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"builder.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        # Shell completion belongs to the whole command line, typer offers it per app.
        command.params = [option for option in command.params if option.name not in COMPLETION]
        return command


root = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False)


@root.callback()
def _root() -> None:
    """A training script in, a tested GPU-ready image on a Picsellia ModelVersion out."""


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code, prints errors to standard error."""
    try:
        _call(arguments)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except TrainpackError as error:
        _report(error, as_json="--json" in arguments)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        print("error: this is a fault of trainpack itself, please report it", file=sys.stderr)
        return 1
    return 0


def _call(arguments: list[str]) -> None:
    try:
        root(args=arguments, prog_name="trainpack", standalone_mode=True)
    except OSError as error:
        # A full disk or a folder without rights, met where no stage has more to say about it.
        place = str(error.filename or "this machine")
        raise TrainpackError(error.strerror or str(error), place=place) from None


def _report(error: TrainpackError, *, as_json: bool) -> None:
    note(f"error: {error.explained}")
    if as_json:
        told = {"message": error.message, "place": error.place, "remedy": error.remedy}
        print(json.dumps({"error": told | {"details": list(error.details)}}))
