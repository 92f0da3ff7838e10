"""Looking at an image: what its registry and the engine say of it now."""

from __future__ import annotations

from builder import engine
from builder.engine.containers import engine_errors, repo_digest
from builder.errors import EngineError, ImageNotFoundError, RegistryError
from builder.oci.remote.pull import RegistryClient
from builder.reference import Reference, parse_reference
from builder.trace.records import FoundImage


def find_image(reference: Reference) -> FoundImage:
    """Ask the image's registry and the engine, whichever answers, by tag where there is one."""
    by_tag = Reference(reference.repository, reference.tag) if reference.tag else reference
    engine_digest, engine_labels = _ask_engine(by_tag)
    client = RegistryClient(by_tag)
    try:
        digest = client.digest()
    except RegistryError as error:
        return FoundImage(
            engine_digest=engine_digest,
            missing=isinstance(error, ImageNotFoundError),
            labels=engine_labels,
            why_not=error.message,
        )
    labels = _registry_labels(client)
    return FoundImage(
        registry_digest=digest,
        engine_digest=engine_digest,
        labels=engine_labels if labels is None and engine_digest == digest else labels,
    )


def _registry_labels(client: RegistryClient) -> dict[str, str] | None:
    try:
        return client.labels()
    except RegistryError:
        # The digest is known, which is what a trace is for; of another platform only the labels are not.
        return None


def _ask_engine(reference: Reference) -> tuple[str | None, dict[str, str] | None]:
    try:
        with engine_errors(str(reference)):
            image = engine.client().images.get(str(reference))
    except EngineError:
        return None, None
    digests = image.attrs.get("RepoDigests") or ()
    return repo_digest(digests, reference.repository), dict(image.labels)


def reference_of(digest: str) -> Reference | None:
    """The name under which the engine has an image of this digest or id; None when it has none."""
    try:
        with engine_errors(digest):
            for image in engine.client().api.images():
                digests = [text for text in image.get("RepoDigests") or () if text.endswith(digest)]
                names = digests or ((image.get("RepoTags") or []) if image["Id"] == digest else [])
                if names:
                    return parse_reference(names[0])
    except EngineError:
        return None
    return None
