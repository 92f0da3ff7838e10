"""What a use needs of a version: what is missing, why it is needed, and the command that adds it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Literal

from trainpack_entrypoint.schema import close_match, is_secret, labelmap_gaps

from builder.errors import UsageError
from builder.flags import asks_for_gpu
from builder.models.records import ModelVersion
from builder.records import Record

Use = Literal["training", "inference", "experiment", "publishing"]
USES: tuple[Use, ...] = ("training", "inference", "experiment", "publishing")


class Requirement(Record):
    """One thing that a use needs and the version does not have.

    Attributes:
        field: What is missing.
        needed: The use fails or misleads without it; else it is only advised.
        why: What goes wrong without it.
        command: What adds it.
    """

    field: str
    needed: bool
    why: str
    command: str


def parse_use(text: str) -> Use:
    """One of the uses.

    Raises:
        UsageError: It is none.
    """
    for use in USES:
        if text == use:
            return use
    raise UsageError(
        f"{text!r} is no use{close_match(text, USES)}: expected {', '.join(USES)}", place="--for"
    )


def unmet(version: ModelVersion, use: Use) -> tuple[Requirement, ...]:
    """What a version lacks for a use, the needed first. Pure."""
    found = [requirement for check in _CHECKS[use] for requirement in check(version, use)]
    return tuple(sorted(found, key=lambda requirement: not requirement.needed))


def _edit(version: ModelVersion, *options: str) -> str:
    return f"trainpack models edit {shlex.quote(str(version.name))} {' '.join(options)}"


def _image(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    image, name = version.fields.image, shlex.quote(str(version.name))
    if image is None:
        what = "a run has no container to start" if use != "publishing" else "nobody could train it again"
        yield Requirement(field="image", needed=True, why=what, command=f"trainpack attach {name}")
        return
    if image.digest is None:
        yield Requirement(
            field="image.digest",
            needed=True,
            why=f"the tag {image.tag or '(none)'} may come to name another image, "
            "and nobody could tell what was trained",
            command=f"trainpack attach {name} --image {image.tagged}",
        )
    if image.tag in ("", "latest"):
        yield Requirement(
            field="image.tag",
            needed=True,
            why=f"{image.tag or 'no tag, which means latest,'} moves with every push, "
            "so that each run may train with other code",
            command=f"trainpack attach {name} --image {image.name}:TAG",
        )


def _gpu(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    image = version.fields.image
    if image and not asks_for_gpu(image.flags):
        yield Requirement(
            field="image.flags",
            needed=False,
            why="without a flag that asks for one the container sees no GPU: it trains on the CPU",
            command=_edit(version, "--flag --gpus=all", *(f"--flag {shlex.quote(f)}" for f in image.flags)),
        )


def _parameters(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    if not version.fields.parameters:
        yield Requirement(
            field="parameters",
            needed=True,
            why="a run starts from the base parameters; with none, nobody sees what can be set, "
            "and only the image's own defaults count",
            command=_edit(version, "--parameter NAME=VALUE"),
        )


def _training_files(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    if not version.files:
        yield _files(
            version,
            needed=False,
            why="a script that loads pretrained weights or a config from the version finds none",
        )


def _model_files(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    if not version.files:
        yield _files(version, needed=True, why="there are no weights to load, so nothing can be predicted")


def _files(version: ModelVersion, *, needed: bool, why: str) -> Requirement:
    command = f"trainpack models store {shlex.quote(str(version.name))} FILE --as weights"
    return Requirement(field="files", needed=needed, why=why, command=command)


def _framework(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    if version.fields.framework in (None, "NOT_CONFIGURED"):
        yield Requirement(
            field="framework",
            needed=use != "experiment",
            why="whoever serves the files must know what loads them",
            command=_edit(version, "--framework PYTORCH"),
        )


def _type(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    if version.fields.type in (None, "NOT_CONFIGURED"):
        yield Requirement(
            field="type",
            needed=True,
            why="it says what a prediction is (boxes, classes, masks), "
            "and with which datasets the version can be used",
            command=_edit(version, "--type OBJECT_DETECTION"),
        )


def _labelmap(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    labelmap = version.fields.labelmap
    if not labelmap:
        whys = {
            "inference": "a prediction is a number, and nothing says which class it is",
            "experiment": "the run cannot map the dataset's labels to the model's outputs",
        }
        yield Requirement(
            field="labelmap",
            needed=True,
            why=whys.get(use, "nobody can tell which classes it knows"),
            command=_edit(version, "--labelmap labels.json"),
        )
    elif gaps := labelmap_gaps(labelmap):
        yield Requirement(
            field="labelmap",
            needed=False,
            why=f"no name for {', '.join(map(str, gaps[:10]))}: such a prediction has no class",
            command=_edit(version, "--labelmap labels.json"),
        )


def _about(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    fields = version.fields
    if not fields.description:
        yield Requirement(
            field="description",
            needed=True,
            why="others see a name and nothing that says what it is for",
            command=_edit(version, "--description TEXT"),
        )
    if not fields.notebook_link:
        yield Requirement(
            field="notebook_link",
            needed=False,
            why="others have no example of how it is used",
            command=_edit(version, "--notebook-link URL"),
        )
    if version.thumbnail is None:
        yield Requirement(
            field="thumbnail",
            needed=False,
            why="the catalogue shows a blank picture",
            command=_edit(version, "--thumbnail picture.png"),
        )


def _source(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    model = shlex.quote(f"{version.name.store}:{version.name.model}")
    publish = f"trainpack experiments publish PROJECT/EXPERIMENT {model}/NEW-VERSION"
    attach = "trainpack experiments attach-dataset PROJECT/EXPERIMENT ALIAS DATASET/VERSION"
    if version.source is None or version.source.experiment is None:
        yield Requirement(
            field="source.experiment",
            needed=True,
            why="nobody can tell which run made it; only publishing an experiment as a new version says so",
            command=publish,
        )
    if version.source is not None and not version.source.datasets:
        yield Requirement(
            field="source.datasets",
            needed=True,
            why="nobody can tell which data it has seen",
            command=f"{attach} && {publish}",
        )


def _secrets(version: ModelVersion, use: Use) -> Iterator[Requirement]:
    tables = {
        "parameters": version.fields.parameters or {},
        "env": version.fields.image.env if version.fields.image else {},
    }
    for table, values in tables.items():
        for key in sorted(key for key, value in values.items() if is_secret(key) and value):
            yield Requirement(
                field=f"{table}.{key}",
                needed=True,
                why="by its name it is a secret, and everybody who may see the version could read it",
                command=_edit(version, f"--unset {shlex.quote(f'{table}.{key}')}"),
            )


_Check = Callable[[ModelVersion, Use], Iterator[Requirement]]
_CHECKS: dict[Use, tuple[_Check, ...]] = {
    "training": (_image, _parameters, _training_files, _gpu),
    "inference": (_model_files, _framework, _type, _labelmap),
    "experiment": (_image, _parameters, _labelmap, _type, _training_files, _framework, _gpu),
    "publishing": (
        _about,
        _framework,
        _type,
        _labelmap,
        _source,
        _model_files,
        _image,
        _parameters,
        _secrets,
    ),
}
