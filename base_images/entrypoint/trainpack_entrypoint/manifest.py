"""The baked manifest, `/opt/trainpack/image.json`: written by the host, read by the entrypoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from trainpack_entrypoint.schema import Parameter

SCHEMA = 1
PATH = "/opt/trainpack/image.json"
# A default that nobody changes.
_NONE: dict[str, Any] = {}


class Run(NamedTuple):
    """How the script is started: `launcher|python script|-m module args… parameters… extra…`.

    A launcher (`torchrun`, `accelerate launch`) takes the script itself; one that takes a command names its
    interpreter (`mpirun -n 2 python`).
    """

    script: str | None
    module: str | None = None
    launcher: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    arguments: str = "argv"
    pass_token: bool = True


class Gpu(NamedTuple):
    """What the locked wheels need of a GPU host: CUDA `13.0`, driver at least `580.65.06`."""

    cuda: str
    driver: str


class Manifest(NamedTuple):
    """Everything the entrypoint knows of the image it runs in.

    Attributes:
        gpu: What the lock needs of a GPU host; None for a lock without CUDA.
        gpus: What `[run] flags` ask for: `all`, a number or `device=…`; None for the CPU.
        packages: The versions of the script's locked packages.
    """

    name: str
    version: str
    run: Run
    trainpack: str
    python: str
    lock: str
    revision: str | None
    parameters: dict[str, Parameter] = _NONE
    labelmap: dict[str, str] | None = None
    data: dict[str, str] = _NONE
    outputs_exclude: tuple[str, ...] = ()
    gpu: Gpu | None = None
    gpus: str | None = None
    packages: dict[str, str] = _NONE
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """Read `image.json`.

        Raises:
            ValueError: The manifest was written for a newer contract.
        """
        if data["schema"] > SCHEMA:
            raise ValueError(f"manifest schema {data['schema']} is newer than this entrypoint's {SCHEMA}")
        run = dict(data["run"])
        return cls(
            name=data["name"],
            version=data["version"],
            run=Run(**run | {"launcher": tuple(run["launcher"]), "args": tuple(run["args"])}),
            trainpack=data["trainpack"],
            python=data["python"],
            lock=data["lock"],
            revision=data["revision"],
            parameters={name: Parameter.from_json(name, entry) for name, entry in data["parameters"].items()},
            labelmap=data["labelmap"],
            data=dict(data["data"]),
            outputs_exclude=tuple(data["outputs_exclude"]),
            gpu=Gpu(**data["gpu"]) if data["gpu"] else None,
            gpus=data.get("gpus"),
            packages=dict(data.get("packages", {})),
        )

    def to_json(self) -> dict[str, Any]:
        """The document that `from_json` reads."""
        return self._asdict() | {
            "run": self.run._asdict(),
            "parameters": {name: parameter.to_json() for name, parameter in self.parameters.items()},
            "gpu": self.gpu._asdict() if self.gpu else None,
        }
