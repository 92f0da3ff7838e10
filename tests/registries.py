"""Debian's `docker-registry` on a loopback port, for tests, and images pushed there by plain HTTP."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import requests
from trainpack_entrypoint.manifest import Manifest, Run
from trainpack_entrypoint.schema import Parameter

COMMAND = "docker-registry"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
USER, PASSWORD = "reader", "s3cret-word"
HTPASSWD = f"{USER}:$2b$04$yiaxJC2H36Ih1U9M6QuikeSkz9xFQC14I/MiwqxWOB2M9q8K.WE/e\n"


@dataclass(frozen=True)
class Pushed:
    """An image in a registry: manifest digest, config digest."""

    reference: str
    digest: str
    image_id: str


@contextmanager
def registry(folder: Path, **settings: Any) -> Iterator[str]:
    """A running registry, empty, on a port of its own; gives `127.0.0.1:port`.

    Args:
        folder: Where it keeps its data and its configuration.
        settings: Further sections of its configuration.
    """
    program = shutil.which(COMMAND)
    if program is None:
        message = f"{COMMAND} is not installed (Debian's package docker-registry)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    configuration = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}},
        **settings,
        "http": {"addr": "127.0.0.1:0", **settings.get("http", {})},
    }
    (folder / "config.yml").write_text(json.dumps(configuration))
    process = subprocess.Popen(
        [program, "serve", str(folder / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        yield _address(process.stderr)
    finally:
        process.terminate()
        process.wait()


def _address(log: IO[str]) -> str:
    seen = []
    for line in log:
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
            # A full pipe would stop the registry: its log is read to its end.
            threading.Thread(target=log.read, daemon=True).start()
            return found[1]
        seen.append(line)
    raise AssertionError(f"the registry ended: {''.join(seen)}")


def log_in(folder: Path, host: str, user: str, password: str) -> None:
    """Write what `docker login` would, with `folder` as DOCKER_CONFIG."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": pair}}}))


def layer(files: Mapping[str, bytes]) -> bytes:
    """A compressed layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def push(
    reference: str,
    layers: Sequence[bytes] = (),
    labels: Mapping[str, str] | None = None,
    session: requests.Session | None = None,
) -> Pushed:
    """Push an image of these layers as `127.0.0.1:port/path:tag`."""
    session = session or requests.Session()
    base, tag = _base(reference)
    config = json.dumps({"os": "linux", "architecture": "amd64", "config": {"Labels": labels or None}})
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _upload(session, base, config.encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            _upload(session, base, content, "application/vnd.oci.image.layer.v1.tar+gzip")
            for content in layers
        ],
    }
    digest = put_manifest(base, tag, manifest, session)
    return Pushed(reference, digest, manifest["config"]["digest"])


def push_index(reference: str, platforms: Mapping[str, str]) -> str:
    """Put an index over manifests that are there already; returns its digest.

    Args:
        platforms: `linux/arm64` → manifest digest.
    """
    base, tag = _base(reference)
    manifests = []
    for platform, digest in platforms.items():
        system, _, architecture = platform.partition("/")
        size = len(requests.get(f"{base}/manifests/{digest}", headers={"Accept": MANIFEST_TYPE}).content)
        manifests.append(
            {
                "mediaType": MANIFEST_TYPE,
                "digest": digest,
                "size": size,
                "platform": {"os": system, "architecture": architecture},
            }
        )
    return put_manifest(
        base, tag, {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}, requests.Session()
    )


def put_manifest(base: str, name: str, document: Mapping[str, Any], session: requests.Session) -> str:
    """Put a manifest under a tag; returns its digest."""
    answer = session.put(
        f"{base}/manifests/{name}",
        data=json.dumps(document).encode(),
        headers={"Content-Type": document["mediaType"]},
    )
    answer.raise_for_status()
    return answer.headers["Docker-Content-Digest"]


def delete(reference: str, digest: str) -> None:
    """Remove a manifest and every tag of it."""
    base, _ = _base(reference)
    requests.delete(f"{base}/manifests/{digest}").raise_for_status()


def _base(reference: str) -> tuple[str, str]:
    repository, _, tag = reference.rpartition(":")
    host, _, path = repository.partition("/")
    return f"http://{host}/v2/{path}", tag


def _upload(session: requests.Session, base: str, content: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    started = session.post(f"{base}/blobs/uploads/")
    started.raise_for_status()
    location = started.headers["Location"]
    joint = "&" if "?" in location else "?"
    session.put(f"{location}{joint}digest={digest}", data=content).raise_for_status()
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def baked(**changes: Any) -> Manifest:
    """A baked manifest with parameters of each kind."""
    values: dict[str, Any] = {
        "name": "vision/pedestrian",
        "version": "1.0",
        "run": Run("train.py"),
        "trainpack": "0",
        "python": "3.11",
        "lock": "1" * 64,
        "revision": "2" * 40,
        "parameters": {
            "epochs": Parameter("epochs", "int", 10),
            "data_seed": Parameter("data_seed", "int", required=True),
            "resume": Parameter("resume", "str", None, optional=True),
            "hub_token": Parameter("hub_token", "str", "hf_private"),
        },
        "labelmap": {"0": "car", "1": "person"},
    }
    return Manifest(**values | changes)


LABELS = {
    "io.trainpack.contract": "1",
    "io.trainpack.lock": "1" * 64,
    "org.opencontainers.image.revision": f"{'2' * 40}-dirty",
    "org.opencontainers.image.base.name": "trainpack/cpu:3.11",
}


def push_trained(reference: str, manifest: Manifest | None = None) -> Pushed:
    """Push an image as trainpack builds it: labels, and the baked manifest in its last layer."""
    content = json.dumps((manifest or baked()).to_json()).encode()
    layers = [layer({"usr/bin/tini": b"tini"}), layer({"opt/trainpack/image.json": content})]
    return push(reference, layers, LABELS)
