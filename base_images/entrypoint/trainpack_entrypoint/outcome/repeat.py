"""The `trainpack run` line that repeats a run on another machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from trainpack_entrypoint.inputs.merge import BAKED, Merged
from trainpack_entrypoint.manifest import Manifest
from trainpack_entrypoint.schema import is_secret
from trainpack_entrypoint.script.command import as_text
from trainpack_entrypoint.secrets import SET

# Stands where a secret has to be filled in.
FILL_IN = "…"


def repeat_line(
    manifest: Manifest,
    merged: Merged | None,
    environment: Mapping[str, str],
    datasets: Sequence[str],
    arguments: Sequence[str],
) -> str:
    """The shell command, with what differs from the image's defaults.

    What a container cannot know, it names: a secret is `…`, a labelmap `labelmap.json`, undeclared
    parameters `parameters.json`, the folder of a dataset `DIR`.

    Args:
        merged: None when the configuration was refused: then what was set for this run is repeated.
        datasets: The aliases that were mounted.
    """
    words = ["trainpack", "run", _image(manifest, environment)]
    for name, text in _given(manifest, merged, environment):
        words += ["-p", f"{name}={FILL_IN if is_secret(name) else text}"]
    words += ["--parameters", "parameters.json"] if merged and merged.undeclared else []
    words += ["--labelmap", "labelmap.json"] if merged and merged.labelmap_source not in (None, BAKED) else []
    for alias in datasets:
        words += ["--data", f"{alias}=DIR"]
    words += _gpus(manifest, environment)
    return shlex.join([*words, "--", *arguments] if arguments else words)


def _image(manifest: Manifest, environment: Mapping[str, str]) -> str:
    if image := environment.get("TRAINPACK_IMAGE"):
        return image
    digest = environment.get("TRAINPACK_IMAGE_DIGEST")
    return f"{manifest.name}@{digest}" if digest else f"{manifest.name}:{manifest.version}"


def _given(
    manifest: Manifest, merged: Merged | None, environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    if merged is None:
        yield from (
            (name.removeprefix(SET), text) for name, text in environment.items() if name.startswith(SET)
        )
        return
    for name, value in merged.declared.items():
        if value.value != manifest.parameters[name].default:
            yield name, as_text(value.value)


def _gpus(manifest: Manifest, environment: Mapping[str, str]) -> list[str]:
    gpus = environment.get("TRAINPACK_GPUS")
    return ["--gpus", gpus] if gpus and gpus not in ("none", manifest.gpus) else []
