"""Build the folder's Dockerfile through the docker SDK: `legacy.py TAG [--push] [--no-cache]`."""

from __future__ import annotations

import sys

import docker


def main() -> int:
    """Do what the arguments say."""
    tag, options = sys.argv[1], sys.argv[2:]
    engine = docker.from_env(timeout=600)
    engine.images.build(path=".", tag=tag, rm=True, network_mode="host", nocache="--no-cache" in options)
    if "--push" in options:
        for event in engine.api.push(tag, stream=True, decode=True):
            if "error" in event:
                print(event["error"], file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
