"""The docker builder: the engine's BuildKit builds the rendered Dockerfile."""

from __future__ import annotations

import fcntl
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from builder import engine
from builder.bases import load_base
from builder.builders.buildkit import Follow, run_build
from builder.builders.context import stage_context
from builder.host.certificates import ca_bundle
from builder.host.package_index import index_settings, netrc_text, uv_arguments, uv_environment
from builder.host.tools import uv_for
from builder.oci.cache import open_cache
from builder.plan import BuildPlan, BuiltImage
from builder.sources import built_wheels
from builder.workdir import workdir, write_atomically


class DockerBuilder:
    """Builds with the engine's BuildKit."""

    def __init__(self, environ: Mapping[str, str], follow: Follow, say: Callable[[str], None]) -> None:
        """Make a builder.

        Args:
            environ: Where index, CA and engine settings come from.
            follow: Shows the progress.
            say: Is told what is made before it.
        """
        self._environ = environ
        self._follow = follow
        self._say = say

    def build(self, plan: BuildPlan, folder: Path) -> BuiltImage:
        """Build the plan's image; see `builder.builders.Builder`."""
        engine.client()
        built = built_wheels(plan, folder, open_cache(), self._environ, self._say)
        settings = index_settings(self._environ)
        uv = uv_for(plan.platform, uv_arguments(settings), uv_environment(settings, self._environ))
        context = workdir(folder) / "context"
        with _alone(workdir(folder) / "build.lock"), tempfile.TemporaryDirectory() as scratch:
            stage_context(plan, folder, uv, context, built)
            secrets = _secrets(Path(scratch), self._environ)
            load_base(plan.base)
            image_id = run_build(
                context,
                tag=str(plan.reference),
                platform=plan.platform,
                secrets=secrets,
                environ=self._environ,
                follow=self._follow,
            )
        return _inspect(plan, image_id)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One build at a time in a folder, since the context is laid out in place."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build of this folder is running; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _secrets(scratch: Path, environ: Mapping[str, str]) -> dict[str, Path]:
    """The build's secrets as files: mounted while a step runs, in no layer and no cache key."""
    secrets = {}
    if bundle := ca_bundle(environ):
        secrets["ca"] = bundle
    if text := netrc_text(index_settings(environ), environ):
        secrets["netrc"] = scratch / "netrc"
        write_atomically(secrets["netrc"], text, mode=0o600)
    return secrets


def _inspect(plan: BuildPlan, image_id: str) -> BuiltImage:
    attributes = engine.client().images.get(image_id).attrs
    return BuiltImage(
        reference=str(plan.reference),
        image_id=image_id,
        digest=None,
        tag=plan.tag,
        size=attributes["Size"],
        layers=tuple(attributes["RootFS"]["Layers"]),
    )
