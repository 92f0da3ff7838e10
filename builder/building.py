"""A project's image, built: by which builder, where it goes, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.attestation.documents import attach_documents, layout_documents
from builder.errors import OnbuildError, UsageError
from builder.oci.image import Image, Index
from builder.plan import BuildPlan, BuiltImage, PublishedImage, index_tag
from builder.project import ensure_base, ensure_lock, read_plan
from builder.rebuild.watch import Build, Watch
from builder.reference import Reference, parse_reference
from builder.spec import FILE
from builder.workdir import previous_push, remember_build, remember_plan, remember_push, workdir

if TYPE_CHECKING:
    from builder.builders.buildkit import Follow  # the engine's SDK, which a build by oci does without
    from builder.oci.remote.push import Push
    from builder.outputs import Write

Say = Callable[[str], None]
BUILDERS = ("auto", "oci", "docker")


@dataclass(frozen=True)
class BuildRequest:
    """How a project is to be built.

    Attributes:
        builder: One of `BUILDERS`; `auto` is oci, unless the base has steps to run.
        load: Give the image to the engine; None does where one answers.
        output: `oci:DIR` or `archive:FILE`, where the image is written too.
        platforms: Others than the one that `trainpack.toml` declares.
        tag: `TAG` or `REPOSITORY:TAG` in place of the version and the plan's hash.
        attest: Attach SBOM and provenance; None does to what is new in its registry, its code committed.
    """

    builder: str = "auto"
    update_lock: bool = False
    push: bool = False
    load: bool | None = None
    output: str | None = None
    platforms: tuple[str, ...] = ()
    tag: str | None = None
    attest: bool | None = None


@dataclass(frozen=True)
class Made:
    """What a build made.

    Attributes:
        image: As data, where the oci builder made it.
        engine: What the next build may ask of the engine that has it now.
        watch: What the build looked at.
    """

    plan: BuildPlan
    built: BuiltImage
    image: Image | None
    engine: dict[str, object] | None
    watch: Watch

    def remember(self, arguments: Sequence[str], told: str, *, as_json: bool, request: BuildRequest) -> None:
        """Let a build with these arguments tell the same at once, while nothing changes.

        Args:
            told: What the command printed, as JSON or not.
            request: What the build was asked for.
        """
        if self.image:
            build = Build(
                arguments,
                self.plan,
                self.image,
                self.built,
                told,
                as_json,
                request.push,
                self.engine,
                request.attest,
            )
            self.watch.remember(build)


def build_project(
    folder: Path, environ: Mapping[str, str], request: BuildRequest, *, follow: Follow, say: Say
) -> Made:
    """Lock where that is needed, build the project's image, and remember it as the folder's last build.

    Args:
        follow: Receives the events of a build by the engine.
        say: Receives one-line messages.

    Raises:
        SpecError: `trainpack.toml` or what it names is wrong.
        LockError: The requirements cannot be resolved, or the lock does not belong to them.
        UsageError: The request contradicts itself.
        BuildError: The build failed.
        EngineError: No engine answers where one is needed.
        RegistryError: The registry did not take the image.
    """
    if request.output and request.builder == "docker":
        raise UsageError("only the oci builder writes layouts and archives", place="--output")
    (planned,), watch = _planned(folder, environ, request, say)
    build = _Build(planned, folder, environ, request, say)
    say(f"building {build.reference}")
    if request.builder != "docker":
        try:
            return build.oci(watch)
        except OnbuildError:
            if request.builder == "oci" or request.output:
                raise
            say("by the docker builder, since the base has ONBUILD steps, which only an engine can run")
    return Made(planned, build.docker(follow), None, None, watch)


def build_index(
    folder: Path, environ: Mapping[str, str], request: BuildRequest, *, say: Say
) -> dict[str, Any]:
    """Build images for several platforms under one tag, for a registry or a file.

    An engine holds one platform only, so none is asked.

    Returns:
        `reference`, `digest`, and the digest of each platform's image as `images`.

    Raises:
        UsageError: The index goes nowhere.
        TrainpackError: As for `build_project`.
    """
    from builder.builders.oci import OciBuilder  # noqa: PLC0415
    from builder.oci.cache import open_cache  # noqa: PLC0415

    if not (request.push or request.output):
        raise UsageError(
            "images for several platforms go to a registry or a file", remedy="add --push or --output"
        )
    plans, _ = _planned(folder, environ, request, say)
    reference = _reference(plans[0], request.tag or index_tag(plans))
    write = _writer(request, plans, reference)
    say(f"building {reference} for {' and '.join(each.platform for each in plans)}")
    cache = open_cache()
    index = Index(tuple(OciBuilder(cache, environ, say).image(each, folder) for each in plans))
    if write:
        write(index)
    if request.push:
        from builder.publish import publish_index  # noqa: PLC0415

        published = publish_index(index, reference, say)
        for planned, image in zip(plans, index.images, strict=True):
            one = published.model_copy(update={"image_id": image.id, "digest": image.digest})
            attach_documents(planned, one, request.attest, say)
    cache.trim()
    images = {image.platform: image.digest for image in index.images}
    return {"reference": str(reference), "digest": index.digest, "images": images}


def _planned(
    folder: Path, environ: Mapping[str, str], request: BuildRequest, say: Say
) -> tuple[list[BuildPlan], Watch]:
    if (folder / FILE).is_file():
        workdir(folder)  # early, since a folder that has just changed is not trusted to stay as it is
    platforms: Sequence[str | None] = list(dict.fromkeys(request.platforms)) or [None]
    for platform in platforms:
        if ensure_lock(folder, environ, update=request.update_lock, platform=platform):
            say(f"resolved the requirements{f' for {platform}' if platform else ''}")
        ensure_base(folder, say, platform)
    watch = Watch.start(folder)
    return [read_plan(folder, environ, platform) for platform in platforms], watch


def _reference(planned: BuildPlan, tag: str | None) -> Reference:
    if tag is None:
        return planned.reference
    named = parse_reference(tag) if ":" in tag or "/" in tag else Reference(planned.name, tag)
    if named.tag is None or named.digest is not None:
        raise UsageError(f"{tag!r}, expected TAG or REPOSITORY:TAG", place="--tag")
    return parse_reference(str(named))


class _Build:
    """One plan on its way to an image."""

    def __init__(
        self, planned: BuildPlan, folder: Path, environ: Mapping[str, str], request: BuildRequest, say: Say
    ) -> None:
        self.planned = planned
        self.folder = folder
        self.environ = environ
        self.request = request
        self.say = say
        self.reference = _reference(planned, request.tag)

    def oci(self, watch: Watch) -> Made:
        from builder.builders.oci import OciBuilder, built_image  # noqa: PLC0415
        from builder.oci.cache import open_cache  # noqa: PLC0415

        write = _writer(self.request, [self.planned], self.reference)
        cache = open_cache()
        with self._pushing() as pushing:
            ready = pushing.start if pushing else lambda _: None
            image = OciBuilder(cache, self.environ, self.say, ready).image(self.planned, self.folder)
            built = self._named(built_image(self.planned, image))
            if write:
                write(image)
            engine = None if self.request.load is False else self._load(image, built)
            self._remember(built)
            if pushing:
                from builder.publish import publish_kept  # noqa: PLC0415

                before = previous_push(self.folder)
                self._remember_push(publish_kept(image, built, self.say, pushing, before))
        cache.trim()
        return Made(self.planned, built, image, engine, watch)

    def _pushing(self) -> AbstractContextManager[Push | None]:
        """A push to send layers with while others are still being made, where the image is to be pushed."""
        if not self.request.push:
            return nullcontext()
        from builder.publish import start_push  # noqa: PLC0415

        return start_push(self.reference, self.say)

    def docker(self, follow: Follow) -> BuiltImage:
        from builder.builders.docker import DockerBuilder  # noqa: PLC0415  (the engine's SDK takes its time)

        built = DockerBuilder(self.environ, follow, self.say).build(self.planned, self.folder)
        if self.reference != self.planned.reference:
            from builder.engine.containers import tag_image  # noqa: PLC0415

            tag_image(built.image_id, self.reference)
        built = self._named(built)
        self._remember(built)
        if not self.request.push:
            return built
        from builder.publish import publish  # noqa: PLC0415

        published = publish(built, self.say)
        self._remember_push(published)
        return built.model_copy(update={"digest": published.digest})

    def _named(self, built: BuiltImage) -> BuiltImage:
        return built.model_copy(update={"reference": str(self.reference), "tag": self.reference.tag})

    def _remember(self, built: BuiltImage) -> None:
        remember_plan(self.folder, self.planned)
        remember_build(self.folder, built)

    def _remember_push(self, published: PublishedImage) -> None:
        remember_push(self.folder, published)
        attach_documents(self.planned, published, self.request.attest, self.say)

    def _load(self, image: Image, built: BuiltImage) -> dict[str, object]:
        """Give the image to the engine where there is one; what the next build may ask of that engine."""
        from builder.last_image import engine_answers, load_image  # noqa: PLC0415
        from builder.rebuild.watch import engine_socket  # noqa: PLC0415

        loaded = bool(self.request.load) or engine_answers()
        if loaded:
            load_image(image, built.reference, self.folder)
        else:
            self.say(
                "no engine answers, so the image is in trainpack's cache only; test and run need an engine"
            )
        return {"socket": engine_socket(), "loaded": loaded}


def _writer(request: BuildRequest, plans: Sequence[BuildPlan], reference: Reference) -> Write | None:
    from builder.outputs import image_writer  # noqa: PLC0415

    if request.output is None:
        return None
    return image_writer(
        request.output, reference, lambda image: layout_documents(plans, image) if request.attest else {}
    )
