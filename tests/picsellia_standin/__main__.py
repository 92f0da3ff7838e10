"""`python -m picsellia_standin`: the stand-in as a process, for tests with containers."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from . import Standin


def main() -> None:
    """Serve until SIGTERM or Ctrl-C; prints one JSON line with the address, token and seeded ids."""
    arguments = _arguments()
    platform = Standin(arguments.host, arguments.port)
    if arguments.token:
        platform.token = arguments.token
    seeded = platform.seed(json.loads(arguments.seed.read_text())) if arguments.seed else {}
    signal.signal(signal.SIGTERM, _stop)
    with platform:
        ready = {"url": platform.url, "token": platform.token, "organization_id": platform.organization_id}
        print(json.dumps({**ready, **seeded}), flush=True)
        signal.pause()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="picsellia_standin", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", help="the one token that is accepted; made up when it is not given")
    parser.add_argument("--seed", type=Path, help="a JSON file: versions, experiments, jobs")
    return parser.parse_args()


def _stop(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
