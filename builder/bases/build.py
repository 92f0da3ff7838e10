"""Bases: looked up, built where they are missing, and kept as one OCI layout in trainpack's cache.

Only what builds on an upstream image needs an engine. `load_base` gives one to the engine, which the docker
builder alone asks for.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from builder.bases.catalogue import Recipe, find_recipe, upstream_reference
from builder.bases.own import engine_names, own_image
from builder.errors import EngineUnavailableError, TrainpackError
from builder.host import apt, tools
from builder.host.certificates import ca_bundle
from builder.host.package_index import redact
from builder.oci.blobs import Blobs
from builder.oci.cache import open_cache
from builder.oci.image import Image
from builder.oci.layout import read_layout, write_layout
from builder.plan import LABEL, Base
from builder.reference import parse_reference
from builder.workdir import write_atomically

Say = Callable[[str], None]
Source = Literal["auto", "upstream", "debian"]
UNBUILT = "unbuilt"


def resolve_base(name: str, python: str, platform: str, packages: Iterable[str] = ()) -> Base:
    """A base of the catalogue, with its image id when it is built.

    Args:
        packages: Debian packages of the user's.

    Raises:
        UsageError: The catalogue has no such base, or not for this Python.
    """
    recipe = find_recipe(name, python, platform, packages)
    image = _find(recipe)
    return Base(
        name=name,
        python=python,
        platform=platform,
        reference=recipe.reference,
        image_id=image.id if image else None,
        content=_layers_digest(image) if image else None,
        source=image.labels.get(f"{LABEL}.base.source", UNBUILT) if image else UNBUILT,
    )


def base_image(base: Base) -> Image:
    """The image of a base that is resolved; its bytes stay where they are until a layer is opened.

    Raises:
        ImageFormatError: It is not built, or is another one by now.
        BlobError: What is kept of it is damaged.
        TrainpackError: One of the user's own cannot be read any more.
    """
    if base.origin:
        return own_image(base)
    image = read_layout(_layout(), base.platform, str(parse_reference(base.reference).tag))
    kept = Blobs(_layout())
    # What turns out to be damaged is removed, so that the next build finds the base not whole and makes it.
    layers = tuple(replace(each, open=functools.partial(kept.open, each.digest)) for each in image.layers)
    return replace(image, layers=layers)


def load_base(base: Base) -> None:
    """Have a base in the engine, under its reference.

    Raises:
        ImageFormatError: It is not built.
        BlobError: What is kept of it is damaged.
        EngineError: The engine refused it, or none answers.
    """
    from builder.oci.local_engine import load  # noqa: PLC0415  (a listing of the catalogue needs no engine)

    load(base_image(base), parse_reference(base.reference), engine_names(base))


def ensure_base(
    name: str,
    python: str,
    platform: str,
    source: Source = "auto",
    say: Say = lambda line: None,
    packages: Iterable[str] = (),
) -> Base:
    """A base that is built: the one that is there, else a new one; see `build_base`.

    Raises:
        TrainpackError: It could not be built.
    """
    recipe = find_recipe(name, python, platform, packages)
    with _locked():
        return _resolved(recipe) if _find(recipe) else _build(recipe, source, say)


def build_base(
    name: str,
    python: str,
    platform: str,
    source: Source = "auto",
    say: Say = lambda line: None,
    packages: Iterable[str] = (),
) -> Base:
    """Build a base, whether it is there or not.

    Args:
        name: A base of the catalogue.
        python: Like `3.11`.
        platform: Like `linux/amd64`.
        source: `debian` unpacks Debian's packages, `upstream` builds on the catalogue's image in the engine;
            `auto` does the first where it can be done.
        say: Is told each line of progress.
        packages: Debian packages of the user's.

    Raises:
        UsageError: The catalogue has no such base, no mirror is known, or there is no such package.
        MirrorError: A mirror serves nothing that can be used.
        EngineUnavailableError: No engine answers, and one is needed.
        BuildError: A step failed.
    """
    recipe = find_recipe(name, python, platform, packages)
    with _locked():
        return _build(recipe, source, say)


def render_dockerfile(recipe: Recipe, upstream: str) -> str:
    """The Dockerfile of a base on top of an upstream image."""
    import jinja2  # noqa: PLC0415  (a base that is there is rendered by nobody)

    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  (a Dockerfile, made of the catalogue and of checked names)
    )
    return environment.from_string(recipe.template).render(
        name=recipe.name,
        python=recipe.python,
        upstream=upstream,
        packages=recipe.packages,
        epoch=recipe.epoch,
        contract=recipe.contract,
        env=recipe.env,
    )


def why_not_upstream(reference: str) -> str | None:
    """Why the upstream image cannot be had; None when the engine has it or its registry answers for it."""
    import docker.errors  # noqa: PLC0415  (a listing of the catalogue needs no engine)

    from builder.engine import client  # noqa: PLC0415

    if _find_image(reference):
        return None
    try:
        client().images.get_registry_data(reference)
    except docker.errors.APIError as error:
        return redact(str(error.explanation).split("\n")[0])
    return None


def _find(recipe: Recipe) -> Image | None:
    """The base as it is kept, None where it is not, or not whole."""
    layout = _layout()
    if not (layout / "index.json").exists():
        return None
    try:
        image = read_layout(layout, recipe.platform, recipe.tag)
    except TrainpackError:
        return None
    blobs = Blobs(layout)
    return image if all(blobs.has(layer.digest, layer.size) for layer in image.layers) else None


def _resolved(recipe: Recipe) -> Base:
    return resolve_base(recipe.name, recipe.python, recipe.platform, recipe.packages)


def _layers_digest(image: Image) -> str:
    return hashlib.sha256("\n".join(layer.diff_id for layer in image.layers).encode()).hexdigest()


def _find_image(reference: str) -> Any:
    import docker.errors  # noqa: PLC0415

    from builder.engine import client  # noqa: PLC0415

    try:
        return client().images.get(reference)
    except (docker.errors.ImageNotFound, EngineUnavailableError):
        return None


def _build(recipe: Recipe, source: Source, say: Say) -> Base:
    image = _unpack(recipe, say) if _choose(recipe, source, say) == "debian" else _build_on_top(recipe, say)
    kept = Blobs(_layout())
    for layer in image.layers:
        # A damaged one would be taken for the layer that is to be written, by its name and size.
        kept.verify(layer.digest)
    write_layout(kept.folder, image, recipe.tag)
    return _resolved(recipe)


def _choose(recipe: Recipe, source: Source, say: Say) -> Source:
    from builder.bases.debian import why_not_debian  # noqa: PLC0415

    if source != "auto":
        return source
    reason = why_not_debian(recipe, os.environ)
    if reason is None:
        return "debian"
    say(f"{reason}: building on {recipe.origin.upstream} instead")
    return "upstream"


def _unpack(recipe: Recipe, say: Say) -> Image:
    from builder.bases.debian import make_image  # noqa: PLC0415  (reads no package where none is unpacked)

    return make_image(recipe, open_cache(), say)


def _build_on_top(recipe: Recipe, say: Say) -> Image:
    from builder.builders.buildkit import run_build  # noqa: PLC0415
    from builder.builders.progress import tell  # noqa: PLC0415
    from builder.engine import client  # noqa: PLC0415
    from builder.oci.local_engine import read_engine  # noqa: PLC0415

    client()
    upstream = upstream_reference(recipe.origin, os.environ)
    with tempfile.TemporaryDirectory(prefix="trainpack-") as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(render_dockerfile(recipe, upstream), encoding="utf-8")
        run_build(
            context,
            tag=recipe.reference,
            platform=recipe.platform,
            secrets=_apt_secrets(recipe, context),
            environ=os.environ,
            follow=lambda events: tell(events, say),
        )
    return read_engine(recipe.reference, recipe.platform, open_cache())


def _apt_secrets(recipe: Recipe, folder: Path) -> dict[str, Path]:
    suite = recipe.origin.upstream_suite
    mirror = apt.sources_text(os.environ, suite) if os.environ.get(apt.MIRROR) else ""
    secrets = {"apt-options": folder / "apt-options", "apt-sources": folder / "apt-sources"}
    write_atomically(secrets["apt-options"], apt.proxies(), mode=0o600)
    write_atomically(secrets["apt-sources"], mirror, mode=0o600)
    if bundle := ca_bundle(os.environ):
        secrets["ca"] = bundle
    return secrets


@contextmanager
def _locked() -> Iterator[None]:
    """One build at a time on this machine: two at once would only do the same work twice."""
    with (_layout() / "build.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _layout() -> Path:
    folder = tools.cache_folder() / "bases"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
