"""Bases in the engine: looked up, and built where they are missing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jinja2

from builder import apt
from builder.bases.bootstrap import Say, bootstrap, cache_folder
from builder.bases.catalogue import Recipe, entry_of, find_recipe, load_catalogue, upstream_reference
from builder.builders.buildkit import run_build
from builder.builders.progress import tell
from builder.errors import EngineUnavailableError
from builder.package_index import ca_bundle, redact
from builder.plan import LABEL, Base
from builder.workdir import write_atomically

Source = Literal["auto", "upstream", "debian"]
UNBUILT = "unbuilt"


def resolve_base(name: str, python: str, platform: str) -> Base:
    """A base of the catalogue, with its image id when it is in the engine.

    Raises:
        UsageError: The catalogue has no such base, or not for this Python.
    """
    recipe = find_recipe(name, python, platform)
    image = _find_image(recipe.reference)
    labels: dict[str, str] = image.labels if image else {}
    return Base(
        name=name,
        python=python,
        platform=platform,
        reference=recipe.reference,
        image_id=image.id if image else None,
        content=_layers_digest(image.attrs["RootFS"]["Layers"]) if image else None,
        source=labels.get(f"{LABEL}.base.source", UNBUILT),
    )


def ensure_base(
    name: str, python: str, platform: str, source: Source = "auto", say: Say = lambda line: None
) -> Base:
    """A base that is in the engine: the one that is there, else a new one; see `build_base`.

    Raises:
        UsageError: The catalogue has no such base, or not for this Python.
        EngineUnavailableError: No engine answers.
        BuildError: It could not be built.
    """
    with _locked("build"):
        base = resolve_base(name, python, platform)
        return base if base.image_id else _build(name, python, platform, source, say)


def build_base(
    name: str, python: str, platform: str, source: Source = "auto", say: Say = lambda line: None
) -> Base:
    """Build a base and tag it in the engine.

    Args:
        name: A base of the catalogue.
        python: Like `3.11`.
        platform: Like `linux/amd64`.
        source: `upstream` takes the catalogue's image, `debian` bootstraps from Debian's mirror; `auto` takes
            upstream when the engine has the image or its registry answers.
        say: Is told each line of progress.

    Raises:
        UsageError: The catalogue has no such base, or no mirror is known.
        EngineUnavailableError: No engine answers.
        BuildError: A step failed.
    """
    with _locked("build"):
        return _build(name, python, platform, source, say)


def render_dockerfile(recipe: Recipe, source: str, upstream: str) -> str:
    """The Dockerfile of a base, from `upstream` or from the root file system beside it."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  (a Dockerfile, made of the catalogue alone)
    )
    return environment.from_string(recipe.template).render(
        name=recipe.name,
        python=recipe.python,
        source=source,
        upstream=upstream,
        rootfs=recipe.rootfs,
        packages=recipe.packages,
        epoch=recipe.epoch,
        env=recipe.base.env,
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


def package_sources(base: Base, environ: Mapping[str, str]) -> str:
    """The `sources.list` to install system packages from on top of a base; empty where it has its own.

    Raises:
        UsageError: The base has none and no mirror is known.
    """
    origin = entry_of(load_catalogue().python, base.python, "Python")
    if base.source == "debian" and origin.suite:
        return apt.sources_text(environ, origin.suite)
    return apt.sources_text(environ, origin.upstream_suite) if environ.get(apt.MIRROR) else ""


def _layers_digest(layers: list[str]) -> str:
    return hashlib.sha256("\n".join(layers).encode()).hexdigest()


def _find_image(reference: str) -> Any:
    import docker.errors  # noqa: PLC0415

    from builder.engine import client  # noqa: PLC0415

    try:
        return client().images.get(reference)
    except (docker.errors.ImageNotFound, EngineUnavailableError):
        return None


def _build(name: str, python: str, platform: str, source: Source, say: Say) -> Base:
    recipe = find_recipe(name, python, platform)
    upstream = upstream_reference(recipe.origin, os.environ)
    source = _choose(recipe, source, upstream, say)
    if source == "debian":
        bootstrap(recipe, say)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="context-") as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(render_dockerfile(recipe, source, upstream), encoding="utf-8")
        secrets = _apt_secrets(recipe, context) if source == "upstream" else _add_rootfs(recipe, context)
        run_build(
            context,
            tag=recipe.reference,
            platform=recipe.platform,
            secrets=secrets,
            environ=os.environ,
            follow=lambda events: tell(events, say),
        )
    return resolve_base(name, python, platform)


def _choose(recipe: Recipe, source: Source, upstream: str, say: Say) -> Source:
    from builder.engine import client  # noqa: PLC0415

    client()
    if source != "auto":
        return source
    reason = why_not_upstream(upstream)
    if reason is None:
        return "upstream"
    say(f"{upstream} cannot be had ({reason}): bootstrapping from Debian's packages instead")
    return "debian"


def _add_rootfs(recipe: Recipe, context: Path) -> dict[str, Path]:
    os.link(cache_folder() / recipe.rootfs, context / recipe.rootfs)
    return {}


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
def _locked(name: str) -> Iterator[None]:
    """One build at a time on this machine: two at once would only do the same work twice."""
    with (cache_folder() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
