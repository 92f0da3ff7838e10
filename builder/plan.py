"""The BuildPlan: everything an image is made of, as data, each choice with its reason.

`make_plan` reads nothing but its arguments. Both builders render the same plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field
from trainpack_entrypoint.manifest import Gpu, Manifest, Run
from trainpack_entrypoint.schema import Parameter

from builder import __version__, plan_data
from builder.flags import gpus_of
from builder.plan_data import BASE_DIGEST, REVISION, plan_hash
from builder.records import Record
from builder.reference import Reference
from builder.spec import TrainingSpec

CONTRACT = "1"
LABEL = plan_data.LABEL
ENTRYPOINT = ("/usr/bin/tini", "-s", "--", "/opt/trainpack/bin/python", "-I", "-m", "trainpack_entrypoint")
VENV = plan_data.VENV
TOOLS = plan_data.TOOLS
# Of the wheel. Lower, and images have needless layers; higher, and a light change moves much.
HEAVY_BYTES = 5_000_000
USER = "1000:1000"
WORKDIR = "/workspace"
_PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Distribution(Record):
    """One locked distribution for the image's Python and platform: a wheel, or a source archive without one.

    Attributes:
        url: Where its file comes from: `https://…`, or `file://…` from a find-links folder.
        size: Bytes of the file; None where the index did not say.
        sha256: Hex digest of the file.
    """

    name: str
    version: str
    filename: str
    url: str
    size: int | None
    sha256: str

    @property
    def is_wheel(self) -> bool:
        """Whether it can be installed as it is."""
        return self.filename.endswith(".whl")


class Base(Record):
    """A base image, resolved.

    Attributes:
        name: Its name in the catalogue: `cpu`, `cuda`.
        reference: What `FROM` names: a tag that only engines of this machine have.
        image_id: The config digest, `sha256:…`; None while it is not built yet.
        content: Hex digest over its layers, which two machines that build it upstream's way share although
            the engine puts the time of the build into the image id. Of a base of the user's own, that id.
        source: `upstream` or `debian` (unpacked packages), for labels and reasons.
        origin: Where a base of the user's own is, a registry's by its digest; None for the catalogue's.
    """

    name: str
    python: str
    platform: str
    reference: str
    image_id: str | None
    content: str | None
    source: str
    origin: str | None = None


class CodeFile(Record):
    """A file of the code layer: path relative to the project, `0o644` or `0o755`, bytes, hex digest."""

    path: str
    mode: int
    size: int
    sha256: str


class Reason(Record):
    """Why a choice was made: `base = cuda, because the lock holds torch with CUDA 13.0`."""

    choice: str
    value: str
    because: str


class BuildPlan(Record):
    """Everything that decides the image's content. Its hash is in the tag.

    Attributes:
        heavy, light: The script's wheels, in `/opt/venv`: one layer for those over `HEAVY_BYTES`, one for
            the rest, so that a changed light dependency does not move torch.
        tools: The wheels of the entrypoint's own environment, `/opt/trainpack`.
        bytecode: Whether wheels are compiled: faster imports for a larger image.
        entrypoint_hash: Hex digest of the entrypoint package's files.
        manifest: The baked `image.json`.
        env: The image's environment, beyond the base's.
        labels: OCI labels, without the plan's own hash.
    """

    name: str
    version: str
    platform: str
    python: str
    base: Base
    system_packages: tuple[str, ...]
    heavy: tuple[Distribution, ...]
    light: tuple[Distribution, ...]
    tools: tuple[Distribution, ...]
    bytecode: bool
    lock_hash: str
    entrypoint_hash: str
    code: tuple[CodeFile, ...]
    manifest: dict[str, Any]
    env: dict[str, str]
    labels: dict[str, str]
    reasons: tuple[Reason, ...]

    @property
    def hash(self) -> str:
        """Hex digest of all that decides the content; wheels count by content, not by address."""
        return plan_hash(self.model_dump(mode="json"))

    @property
    def tag(self) -> str:
        """`<version>-<12 hex of the plan hash>`: never moved."""
        return f"{self.version}-{self.hash[:12]}"

    @property
    def reference(self) -> Reference:
        """Where the image goes."""
        return Reference(self.name, self.tag)


def index_tag(plans: Sequence[BuildPlan]) -> str:
    """The tag of the plans of several platforms: moved by none of them alone."""
    every = "\n".join(sorted(plan.hash for plan in plans))
    return f"{plans[0].version}-{hashlib.sha256(every.encode()).hexdigest()[:12]}"


class BuiltImage(Record):
    """What a builder made.

    Attributes:
        image_id: The config digest, `sha256:…`: what links test to push.
        digest: The manifest digest, where the builder knows it before a push.
        size: Unpacked bytes, as the engine counts them.
        layers: Layer digests (diff ids), base first.
    """

    reference: str
    image_id: str
    digest: str | None
    tag: str
    size: int
    layers: tuple[str, ...]


class PublishedImage(Record):
    """An image in a registry: the image id that was pushed, and the manifest digest it got there.

    Attributes:
        new: Whether this push brought it there.
    """

    reference: str
    image_id: str
    digest: str
    new: bool = False


class Inputs(Record):
    """What a plan is made from, beside the spec: read from disk, git, lock and engine.

    Attributes:
        options: Parameter → (option, option that says false), as the scan found them in the script.
        cuda, driver: What the lock needs of a GPU host, None for a CPU lock.
    """

    base: Base
    packages: tuple[Distribution, ...]
    tools: tuple[Distribution, ...]
    lock_hash: str
    cuda: str | None
    driver: str | None
    entrypoint_hash: str
    code: tuple[CodeFile, ...]
    skipped: dict[str, str] = Field(default_factory=dict)
    revision: str | None = None
    options: dict[str, tuple[str | None, str | None]] = Field(default_factory=dict)


def make_plan(spec: TrainingSpec, inputs: Inputs) -> BuildPlan:
    """Decide everything an image is made of; touches nothing."""
    # Through JSON, so that a plan read back is equal to the plan that was made.
    manifest = json.loads(json.dumps(_manifest(spec, inputs).to_json()))
    heavy = tuple(package for package in inputs.packages if (package.size or 0) > HEAVY_BYTES)
    light = tuple(package for package in inputs.packages if package not in heavy)
    return BuildPlan(
        name=spec.image.name,
        version=spec.image.version,
        platform=spec.image.platform,
        python=spec.image.python,
        base=inputs.base,
        system_packages=tuple(sorted(set(spec.image.system_packages))),
        heavy=heavy,
        light=light,
        tools=inputs.tools,
        bytecode=spec.image.bytecode,
        lock_hash=inputs.lock_hash,
        entrypoint_hash=inputs.entrypoint_hash,
        code=inputs.code,
        manifest=manifest,
        env=_env(spec, inputs),
        labels=_labels(spec, inputs),
        reasons=tuple(_reasons(spec, inputs, heavy)),
    )


def base_name(spec: TrainingSpec, cuda: str | None) -> str:
    """The catalogue's base: as declared, else by what the lock needs."""
    if spec.image.base != "auto":
        return spec.image.base
    return "cuda" if cuda else "cpu"


def _manifest(spec: TrainingSpec, inputs: Inputs) -> Manifest:
    run = spec.run
    return Manifest(
        name=spec.image.name,
        version=spec.image.version,
        run=Run(run.script, run.module, run.launcher, run.args, run.arguments, run.pass_token),
        trainpack=__version__,
        python=spec.image.python,
        lock=inputs.lock_hash,
        revision=inputs.revision,
        parameters=dict(_parameters(spec, inputs)),
        labelmap=spec.labelmap,
        data=dict(spec.data),
        outputs_exclude=spec.outputs.exclude,
        gpu=Gpu(inputs.cuda, inputs.driver) if inputs.cuda and inputs.driver else None,
        gpus=gpus_of(spec.run.flags),
        packages={package.name: package.version for package in inputs.packages},
    )


def _parameters(spec: TrainingSpec, inputs: Inputs) -> Iterator[tuple[str, Parameter]]:
    for name, declared in spec.parameters.items():
        parameter = declared.parameter(name)
        argument, argument_false = inputs.options.get(name, (None, None))
        yield (
            name,
            parameter._replace(
                argument=parameter.argument or argument,
                argument_false=parameter.argument_false or argument_false,
            ),
        )


def _env(spec: TrainingSpec, inputs: Inputs) -> dict[str, str]:
    # The container toolkit refuses to start on an older driver; `driver>=` is one of its constraints:
    # https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
    driver = {"NVIDIA_REQUIRE_CUDA": f"driver>={inputs.driver.split('.')[0]}"} if inputs.driver else {}
    return dict(sorted({"PATH": _PATH, "VIRTUAL_ENV": VENV, **driver, **spec.run.env}.items()))


def _labels(spec: TrainingSpec, inputs: Inputs) -> dict[str, str]:
    labels = {
        "org.opencontainers.image.title": spec.image.name.rpartition("/")[2],
        "org.opencontainers.image.version": spec.image.version,
        REVISION: inputs.revision,
        "org.opencontainers.image.base.name": inputs.base.reference,
        BASE_DIGEST: inputs.base.image_id,
        f"{LABEL}.contract": CONTRACT,
        f"{LABEL}.version": __version__,
        f"{LABEL}.lock": inputs.lock_hash,
        f"{LABEL}.base": inputs.base.name,
        f"{LABEL}.cuda": inputs.cuda,
        f"{LABEL}.driver": inputs.driver,
        f"{LABEL}.model-version": spec.model.version,
    }
    return {name: value for name, value in sorted(labels.items()) if value}


def _reasons(spec: TrainingSpec, inputs: Inputs, heavy: tuple[Distribution, ...]) -> Iterator[Reason]:
    base = f"{inputs.base.name}, {inputs.base.source}"
    if inputs.base.origin:
        because = f"[image] base names it: {inputs.base.image_id}, made from {base}"
        yield Reason(choice="base", value=inputs.base.origin, because=because)
    elif spec.image.base != "auto":
        yield Reason(choice="base", value=base, because="[image] base names it")
    elif inputs.cuda:
        yield Reason(choice="base", value=base, because=f"the lock holds wheels for CUDA {inputs.cuda}")
    else:
        yield Reason(choice="base", value=base, because="nothing in the lock needs CUDA")
    if spec.image.system_packages:
        names = ", ".join(sorted(set(spec.image.system_packages)))
        because = "[image] system-packages names them: they are part of the base"
        yield Reason(choice="system packages", value=names, because=because)
    if inputs.driver:
        because = f"CUDA {inputs.cuda} needs at least this driver"
        yield Reason(choice="driver", value=inputs.driver, because=because)
    if sources := [package.name for package in (*inputs.packages, *inputs.tools) if not package.is_wheel]:
        because = "none of their wheels fits the image: each is made one, once, in a container of the base"
        yield Reason(choice="from source", value=", ".join(sources), because=because)
    if heavy:
        names = ", ".join(package.name for package in heavy)
        because = f"over {HEAVY_BYTES // 10**6} MB: a layer of their own, below what changes more often"
        yield Reason(choice="heavy wheels", value=names, because=because)
    yield Reason(
        choice="arguments",
        value=spec.run.arguments,
        because={
            "argv": "each parameter becomes a command-line option",
            "overrides": "each parameter becomes name=value on the command line",
            "env": "each parameter becomes an environment variable",
            "file": "the script reads parameters.json itself",
        }[spec.run.arguments],
    )
    for path, because in sorted(inputs.skipped.items()):
        yield Reason(choice="left out", value=path, because=because)
    if inputs.revision is None:
        yield Reason(choice="revision", value="none", because="no git commit holds these files")
