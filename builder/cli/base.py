"""`trainpack base`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from builder import bases
from builder.bases.publish import joined, publish_base
from builder.cli.output import JsonOption, note, result, table
from builder.errors import UsageError
from builder.outputs import image_writer
from builder.plan import Base
from builder.reference import Reference, parse_reference
from builder.spec import DEBIAN_NAME, check_platforms

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List the base images; build and publish them.",
    epilog="Example: trainpack base build cpu --python 3.11",
)

PlatformOption = Annotated[
    Literal["linux/amd64", "linux/arm64"], typer.Option("--platform", help="What the base runs on.")
]


@app.command("list", epilog="Example: trainpack base list --json")
def list_bases(platform: PlatformOption = "linux/amd64", as_json: JsonOption = False) -> None:
    """List the bases of the catalogue, and which of them are built."""
    found = [bases.resolve_base(name, python, platform) for name, python in _all_bases()]
    result([_to_json(base) for base in found], as_json=as_json, text=lambda: _describe(found))


@app.command(
    "build",
    epilog="Example: trainpack base build cpu --package libgl1 --push registry.example.com/team/base:1.2",
)
def build(
    name: Annotated[str | None, typer.Argument(help="A base of the catalogue.", show_default=False)] = None,
    *,
    python: Annotated[str, typer.Option(help="The Python of the base.")] = "3.11",
    every: Annotated[bool, typer.Option("--all", help="Build every base for this Python.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Leave alone what is built.")] = False,
    source: Annotated[
        bases.Source,
        typer.Option(
            help="debian: unpacked packages; upstream: built in the engine; auto: Debian, else upstream."
        ),
    ] = "auto",
    packages: Annotated[
        list[str] | None,
        typer.Option(
            "--package", metavar="NAME", help="A Debian package to add; may be given several times."
        ),
    ] = None,
    platform: Annotated[
        str, typer.Option(help="linux/amd64, linux/arm64, or both with a comma.")
    ] = "linux/amd64",
    push: Annotated[
        str | None,
        typer.Option(metavar="REFERENCE", help="Publish it too, as registry.example.com/team/base:1.2."),
    ] = None,
    move_tag: Annotated[
        bool, typer.Option("--move-tag", help="Let the tag of --push leave another base.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(metavar="oci:DIR|archive:FILE", help="Also write it to a layout or an archive."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build a base; without an engine where Debian's packages are unpacked.

    Published or written to a file, it is what `base` in [image] of trainpack.toml may name.
    """
    names, platforms = _choose(name, every=every), check_platforms(platform.split(","))
    if every and (push or output):
        raise UsageError("--push and --output take one base", place="--all")
    target, wanted = _target(push), _check(packages or [])
    recipe = bases.find_recipe(names[0], python, platforms[0], wanted)
    write = image_writer(output, target or parse_reference(recipe.reference)) if output else None
    make = bases.ensure_base if missing else bases.build_base
    built = [make(each, python, one, source, note, wanted) for each in names for one in platforms]
    if write:
        write(joined(built))
    published = str(publish_base(built, target, note, move=move_tag)) if target else None
    result(
        [_to_json(base) | {"published": published} for base in built],
        as_json=as_json,
        text=lambda: _describe(built) + (f'\n\nbase = "{published}"' if published else ""),
    )


def _target(push: str | None) -> Reference | None:
    reference = parse_reference(push) if push else None
    if reference and (reference.digest or not reference.tag):
        raise UsageError(f"{push!r}, expected REPOSITORY:TAG", place="--push")
    return reference


def _check(packages: list[str]) -> list[str]:
    for name in packages:
        if not DEBIAN_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a Debian package's name", place="--package")
    return packages


def _choose(name: str | None, *, every: bool) -> list[str]:
    if (name is None) != every:
        raise UsageError("expected either a base's name or --all", remedy="`trainpack base list` shows them")
    return [name] if name else list(bases.load_catalogue().base)


def _all_bases() -> list[tuple[str, str]]:
    catalogue = bases.load_catalogue()
    return [(name, python) for name in catalogue.base for python in catalogue.python]


def _to_json(base: Base) -> dict[str, str | None]:
    return base.model_dump(mode="json") | {"summary": bases.load_catalogue().base[base.name].summary}


def _describe(found: list[Base]) -> str:
    rows: list[tuple[str, ...]] = [(base.name, base.python, base.source, base.reference) for base in found]
    return table(rows, ("BASE", "PYTHON", "SOURCE", "IMAGE"))
