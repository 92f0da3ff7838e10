"""The last build once more, over code whose content changed and nothing else: what an edit costs.

Everything but the last layer is what it was, so the plan is taken from the note of
`builder.rebuild.unchanged` and not made anew, and what plans are made with is not imported.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from builder.atomic import new_file
from builder.cli.printing import describe_build, note
from builder.code_layer import code_layer
from builder.errors import BlobError
from builder.host.tools import cache_folder
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache, open_cache
from builder.oci.image import Addendum, Changes, Image, Layer, append
from builder.oci.manifest import canonical_json, parse_manifest
from builder.oci.tar import source_epoch
from builder.plan_data import REVISION, plan_hash, with_code
from builder.rebuild import unchanged
from builder.reference import Reference
from builder.revision import revision


def build_again(known: Mapping[str, Any], changed: Sequence[str]) -> str | None:
    """Build, and push where the last build did; what to tell, or None where a plan has to be made after all.

    Args:
        known: The note of the last build.
        changed: Which of its code files are others now.

    Raises:
        TrainpackError: As a build.
    """
    began = time.time_ns()
    seen = unchanged.look(changed)
    folder, plan = Path(known["folder"]), known["plan"]
    if not _declares_the_same(known):
        return None
    code = _code(known, changed)
    now = revision(folder, [file["path"] for file in code])
    if (now is None) != (plan["manifest"]["revision"] is None):
        return None
    plan = with_code(plan, code, now)
    digest = plan_hash(plan)
    reference = Reference(plan["name"], f"{plan['version']}-{digest[:12]}")
    note(f"building {reference}")
    cache, epoch = open_cache(), source_epoch(os.environ)
    layer = code_layer(code, plan["manifest"], folder, cache, epoch)
    labels = {known["plan_label"]: digest} | ({REVISION: now} if now else {})
    image = _image(known, layer, labels, epoch, cache)
    built = _built(known, image, reference, layer)
    if not _load(known["engine"], image, reference, built):
        return None
    if known["push"] and not _push(known, image, reference, plan):
        return None
    told = json.dumps(built, indent=2) if known["as_json"] else describe_build(built)
    _remember(known, folder, plan, image, built)
    if unchanged.is_settled(seen, began):
        kept = {**known, "files": known["files"] | seen, "plan": plan, "built": built, "told": told}
        kept |= {"config": image.config.decode(), "manifest": image.manifest.decode(), "pushed": image.digest}
        kept["blobs"] = {
            **{path: size for path, size in known["blobs"].items() if path != known["code_blob"]},
            str(cache.blobs.path(layer.digest)): layer.size,
        }
        kept |= {"code_blob": str(cache.blobs.path(layer.digest)), "code_unpacked": layer.unpacked}
        _write(folder / unchanged.FILE, json.dumps(kept))
    return told


def _declares_the_same(known: Mapping[str, Any]) -> bool:
    """Whether parameters still reach the script by the options that the plan knows."""
    if known["options"] is None:
        return True
    from builder.scan import script_options  # noqa: PLC0415  (without parameters, nothing is read)

    now = script_options(Path(known["folder"]), known["script"])
    return bool({name: list(options) for name, options in now.items()} == known["options"])


def _code(known: Mapping[str, Any], changed: Sequence[str]) -> list[dict[str, Any]]:
    fresh = {}
    for path in changed:
        with open(path, "rb") as file:  # noqa: PTH123
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = os.fstat(file.fileno())
        mode = 0o755 if status.st_mode & 0o111 else 0o644
        fresh[known["code"][path]] = {"mode": mode, "size": status.st_size, "sha256": digest}
    return [{**file, **fresh.get(file["path"], {})} for file in known["plan"]["code"]]


def _image(
    known: Mapping[str, Any], layer: Layer, labels: Mapping[str, str], epoch: int, cache: Cache
) -> Image:
    """The last image with another last layer."""
    document = json.loads(known["config"])
    manifest = parse_manifest(known["manifest"].encode(), "the last build")
    ids = document["rootfs"]["diff_ids"]
    places = (cache.blobs, Blobs(cache_folder() / "bases"))
    below = tuple(
        Layer(
            each.digest,
            diff_id,
            each.size,
            None,
            each.media_type,
            functools.partial(_open, places, each.digest),
        )
        for each, diff_id in zip(manifest.layers[:-1], ids[:-1], strict=True)
    )
    title = document["history"].pop()["created_by"]
    document["rootfs"]["diff_ids"] = ids[:-1]
    base = Image(canonical_json(document), known["manifest"].encode(), manifest.media_type, below)
    return append(base, [Addendum(layer, title)], Changes(labels=labels), epoch)


@contextmanager
def _open(places: Sequence[Blobs], digest: str) -> Iterator[IO[bytes]]:
    place = next((blobs for blobs in places if blobs.path(digest).exists()), None)
    if place is None:
        raise BlobError(f"the blob {digest} is not there any more", remedy="build again")
    with place.open(digest) as file:
        yield file


def _built(known: Mapping[str, Any], image: Image, reference: Reference, layer: Layer) -> dict[str, Any]:
    return {
        "reference": str(reference),
        "image_id": image.id,
        "digest": image.digest,
        "tag": reference.tag,
        "size": known["built"]["size"] - known["code_unpacked"] + (layer.unpacked or layer.size),
        "layers": [each.diff_id for each in image.layers],
    }


def _load(engine: dict[str, Any] | None, image: Image, reference: Reference, built: dict[str, Any]) -> bool:
    """Whether the engine has the image now, given its last layer alone; True where there is no engine."""
    if engine and engine["loaded"]:
        from builder.oci.archive import archive  # noqa: PLC0415

        below = frozenset(layer.diff_id for layer in image.layers[:-1])
        body = b"".join(archive(image, reference, without=below))
        unchanged.ask_engine(engine["socket"], "/images/load?quiet=1", body)
    return unchanged.engine_has(engine, built)


def _push(known: Mapping[str, Any], image: Image, reference: Reference, plan: Mapping[str, Any]) -> bool:
    """Whether the registry has the image now; False where something else is under its tag."""
    from builder.oci.remote.push import TagTakenError, push  # noqa: PLC0415

    try:
        done = push(image, reference, tell=note, like=known["pushed"], keep_tag=True)
    except TagTakenError:
        return False
    new = bool(done.existing + done.mounted + done.uploaded)
    if known["attest"] or (new and known["attest"] is None):
        from builder.attestation.attest import attest  # noqa: PLC0415

        attest(plan, reference, image.digest, note, new=new, wanted=bool(known["attest"]))
    return True


def _remember(
    known: Mapping[str, Any], folder: Path, plan: Mapping[str, Any], image: Image, built: Mapping[str, Any]
) -> None:
    place = folder / ".trainpack"
    _write(place / "last-plan.json", json.dumps(plan))
    _write(place / "last-build.json", json.dumps(built, indent=2))
    if known["push"]:
        pushed = {"reference": built["reference"], "image_id": image.id, "digest": image.digest}
        for name in ("last-push.json", f"published/{image.id.removeprefix('sha256:')}.json"):
            _write(place / name, json.dumps(pushed, indent=2))


def _write(path: Path, text: str) -> None:
    """Whole or not at all; what a power cut takes is made again."""
    with new_file(path) as file:
        file.write(text.encode())
