"""What a build of a folder looks at: the files whose times `builder.rebuild.unchanged` compares."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import data
from builder.builders.contents import entrypoint_files
from builder.code import code_paths, not_code
from builder.host.tools import cache_folder
from builder.lock.pylock import FILE as LOCK
from builder.lock.pylock import TOOLS_FILE
from builder.oci.blobs import SEALED
from builder.oci.cache import Cache
from builder.oci.image import Image
from builder.plan import LABEL, BuildPlan, BuiltImage
from builder.rebuild import unchanged
from builder.scan import script_options
from builder.spec import FILE as SPEC
from builder.spec import TrainingSpec, load_spec, own_base
from builder.workdir import workdir, write_atomically

_UNIX = "unix://"


@dataclass(frozen=True)
class Watch:
    """A look at all files that a build is about to read."""

    folder: Path
    began: int
    seen: dict[str, unchanged.Status]
    can_tell: bool

    @classmethod
    def start(cls, folder: Path) -> Watch:
        """Look, before anything is read."""
        workdir(folder)
        began = time.time_ns()
        spec = load_spec(folder)
        can_tell = _is_plain(folder, spec) and _base_paths(folder, spec) is not None
        return cls(folder, began, unchanged.look(_paths(folder, spec)), can_tell)

    def remember(self, build: Build) -> None:
        """Write down what this build saw and made, for the next one to compare."""
        place = self.folder / unchanged.FILE
        if not (self.can_tell and unchanged.is_settled(self.seen, self.began)):
            place.unlink(missing_ok=True)
            return
        blobs = Cache(cache_folder() / "oci").blobs
        paths = {str(blobs.path(layer.digest)): layer.size for layer in build.image.layers}
        code = build.image.layers[-1]
        script = _script(build.plan.manifest["run"])
        known = {
            "surroundings": unchanged.surroundings(build.arguments),
            "folder": str(self.folder.absolute()),
            "files": self.seen | unchanged.look(_modules()),
            "code": {str(self.folder / file.path): file.path for file in build.plan.code},
            "script": script,
            # Parameters go by them; without a parameter, nothing does.
            "options": script_options(self.folder, script) if build.plan.manifest["parameters"] else None,
            "blobs": {path: size for path, size in paths.items() if Path(path).exists()},
            "code_blob": str(blobs.path(code.digest)),
            "code_unpacked": code.unpacked or code.size,
            "sealed": SEALED,
            "engine": build.engine,
            "push": build.pushed,
            "attest": build.attest,
            "pushed": build.image.digest,
            "as_json": build.as_json,
            "plan_label": f"{LABEL}.plan",
            "plan": build.plan.model_dump(mode="json"),
            "config": build.image.config.decode(),
            "manifest": build.image.manifest.decode(),
            "built": build.built.model_dump(mode="json"),
            "told": build.told,
        }
        write_atomically(place, json.dumps(known))


@dataclass(frozen=True)
class Build:
    """A build that came to its end.

    Attributes:
        arguments: Of the command line.
        told: What it printed, as JSON or not.
        pushed: Whether it was published.
        engine: Which engine it was loaded into, or was not there; None where none was asked.
        attest: Whether SBOM and provenance were asked for, or were not wanted; None where nothing was said.
    """

    arguments: Sequence[str]
    plan: BuildPlan
    image: Image
    built: BuiltImage
    told: str
    as_json: bool
    pushed: bool
    engine: dict[str, object] | None
    attest: bool | None = None


def engine_socket() -> str | None:
    """The engine's socket where it is one of this machine, the only kind that is quickly asked."""
    from builder.engine import endpoint  # noqa: PLC0415

    return endpoint().removeprefix(_UNIX) if endpoint().startswith(_UNIX) else None


def _paths(folder: Path, spec: TrainingSpec) -> Iterator[str]:
    names = {SPEC, LOCK, TOOLS_FILE, "requirements.txt", "pyproject.toml", spec.image.requirements or SPEC}
    yield from (str(folder / name) for name in sorted(names))
    yield from map(str, code_paths(folder, spec.image.exclude, not_code(spec, folder)))
    yield from _git_paths(folder.resolve())
    yield str(cache_folder() / "bases" / "index.json")
    yield from map(str, _base_paths(folder, spec) or ())
    yield from (str(data.base_images() / name) for name in ("catalogue.toml", "Dockerfile.j2"))
    yield from map(str, entrypoint_files().values())


def _base_paths(folder: Path, spec: TrainingSpec) -> tuple[Path, ...] | None:
    """What changes when a base of the user's own does; None where only asking its place would tell."""
    own = own_base(spec.image.base)
    return own.within(folder).watched if own else ()


def _script(run: Mapping[str, Any]) -> str:
    return str(run["script"] or f"{str(run['module']).replace('.', '/')}.py")


def _git_paths(folder: Path) -> Iterator[str]:
    """What changes when a commit, a checkout or `git add` does; and where a repository may appear."""
    for parent in (folder, *folder.parents):
        repository = parent / ".git"
        yield str(repository)
        if repository.is_file():
            repository = Path(parent, repository.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        if repository.is_dir():
            common = repository.parent.parent if repository.parent.name == "worktrees" else repository
            head = repository / "HEAD"
            reference = (
                head.read_text(encoding="utf-8").strip().removeprefix("ref: ") if head.exists() else ""
            )
            files = [head, repository / "index", repository / "logs/HEAD", common / "packed-refs"]
            yield from map(str, [*files, common / "config", common / reference])
            return


def _modules() -> Iterator[str]:
    """The code of trainpack that made the image."""
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and name.partition(".")[0] in ("builder", "trainpack_entrypoint", "uv", "zlib_ng"):
            yield path


def _is_plain(folder: Path, spec: TrainingSpec) -> bool:
    """Whether the requirements are in one file, so that no other one decides them."""
    for name in (spec.image.requirements, "requirements.txt", "pyproject.toml"):
        path = folder / name if name else None
        if path and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            return "dynamic" not in text and not any(
                line.lstrip().startswith("-") for line in text.splitlines()
            )
    return True
