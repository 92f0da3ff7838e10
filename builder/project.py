"""A project folder, read: everything that a plan is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from builder import bases
from builder.builders.contents import entrypoint_hash
from builder.code import check_script_is_carried, read_code
from builder.errors import UsageError
from builder.lock.pylock import is_locked, lock_project, read_lock
from builder.plan import BuildPlan, Inputs, base_name, make_plan
from builder.revision import revision
from builder.scan import option_names, scan_script
from builder.spec import PLATFORMS, TrainingSpec, load_spec


def read_plan(folder: Path, environ: Mapping[str, str], platform: str | None = None) -> BuildPlan:
    """The plan of the project in `folder`, from its files, its lock and the bases that are built.

    Args:
        platform: Another one than `trainpack.toml` declares.

    Raises:
        SpecError: `trainpack.toml` or what it names is wrong.
        LockError: There is no lock, or it does not belong to the requirements.
    """
    spec, other = _target(folder, platform)
    lock = read_lock(spec, folder, glibc=bases.glibc_of(spec.image.python), other=other)
    image = spec.image
    base = bases.resolve_base(base_name(spec, lock.cuda), image.python, image.platform, image.system_packages)
    code = read_code(folder, spec.image.exclude, tuple(spec.data.values()))
    check_script_is_carried(code.files, spec.run.script, spec.run.module)
    return make_plan(
        spec,
        Inputs(
            base=base,
            packages=lock.packages,
            tools=lock.tools,
            lock_hash=lock.hash,
            cuda=lock.cuda,
            driver=lock.driver,
            entrypoint_hash=entrypoint_hash(),
            code=code.files,
            skipped=code.skipped,
            revision=revision(folder, [file.path for file in code.files]),
            options=_options(spec, folder),
        ),
    )


def ensure_base(folder: Path, say: Callable[[str], None], platform: str | None = None) -> None:
    """Build the base of the project's image, with its system packages, where it is missing."""
    spec, other = _target(folder, platform)
    lock = read_lock(spec, folder, glibc=bases.glibc_of(spec.image.python), other=other)
    image = spec.image
    bases.ensure_base(
        base_name(spec, lock.cuda), image.python, image.platform, say=say, packages=image.system_packages
    )


def ensure_lock(
    folder: Path, environ: Mapping[str, str], *, update: bool, platform: str | None = None
) -> bool:
    """Make the lock when it is missing, or anew when `update`; says whether it did."""
    spec, other = _target(folder, platform)
    if is_locked(folder, platform if other else None) and not update:
        return False
    lock_project(spec, folder, glibc=bases.glibc_of(spec.image.python), environ=environ, other=other)
    return True


def _target(folder: Path, platform: str | None) -> tuple[TrainingSpec, bool]:
    """The spec for a platform, and whether that is another one than `trainpack.toml` declares.

    Raises:
        UsageError: It is none that images are built for.
    """
    spec = load_spec(folder)
    if platform in (None, spec.image.platform):
        return spec, False
    if platform not in PLATFORMS:
        raise UsageError(f"{platform!r}, expected {' or '.join(PLATFORMS)}", place="--platform")
    return spec.model_copy(update={"image": spec.image.model_copy(update={"platform": platform})}), True


def _options(spec: TrainingSpec, folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """The options that the script itself declares; a script that cannot be read has none."""
    script = spec.run.script or f"{str(spec.run.module).replace('.', '/')}.py"
    return option_names(scan_script(folder, script)) if (folder / script).is_file() else {}
