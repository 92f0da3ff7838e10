"""A project folder, read: everything that a plan is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from builder import bases
from builder.builders.contents import entrypoint_hash
from builder.code import check_script_is_carried, not_code, read_code
from builder.lock.pylock import is_locked, lock_project, read_lock
from builder.plan import Base, BuildPlan, Inputs, base_name, make_plan
from builder.revision import revision
from builder.scan import script_options
from builder.spec import TrainingSpec, check_platforms, load_spec, own_base


def read_plan(folder: Path, environ: Mapping[str, str], platform: str | None = None) -> BuildPlan:
    """The plan of the project in `folder`, from its files, its lock and the bases that are built.

    Args:
        platform: Another one than `trainpack.toml` declares.

    Raises:
        SpecError: `trainpack.toml` or what it names is wrong.
        LockError: There is no lock, or it does not belong to the requirements.
        TrainpackError: A base of the user's own cannot be had; see `bases.resolve_own`.
    """
    spec, other = _target(folder, platform)
    lock = read_lock(spec, folder, glibc=bases.glibc_of(spec.image.python), other=other)
    base = _base(spec, folder, lock.cuda)
    code = read_code(folder, spec.image.exclude, not_code(spec, folder))
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
            options=script_options(folder, _script(spec)),
        ),
    )


def ensure_base(folder: Path, say: Callable[[str], None], platform: str | None = None) -> None:
    """Build the base of the project's image, with its system packages, where it is missing.

    One of the user's own is there already, or is not.
    """
    spec, other = _target(folder, platform)
    if own_base(spec.image.base):
        return
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
    check_platforms([str(platform)])
    return spec.model_copy(update={"image": spec.image.model_copy(update={"platform": platform})}), True


def _base(spec: TrainingSpec, folder: Path, cuda: str | None) -> Base:
    image = spec.image
    if own := own_base(image.base):
        return bases.resolve_own(own.within(folder), image.python, image.platform)
    return bases.resolve_base(base_name(spec, cuda), image.python, image.platform, image.system_packages)


def _script(spec: TrainingSpec) -> str:
    return spec.run.script or f"{str(spec.run.module).replace('.', '/')}.py"
