"""What the tests of the Picsellia store share: names, fields, folders, a connected store."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from picsellia_standin import Standin
from PIL import Image

from builder.host.credentials import make_credentials
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import DatasetFields, DockerImage, VersionFields
from builder.models.transport import Patience

VERSION = VersionName(store="picsellia", model="pedestrian", version="v3")
EXPERIMENT = ExperimentName(store="picsellia", project="vision", experiment="first")
DATASET = DatasetName(store="picsellia", dataset="street", version="2024")
DIGEST = f"sha256:{'ab' * 32}"
IMAGE = DockerImage(name="registry.example.com/pedestrian", tag="1.2.0", digest=DIGEST, flags=("--gpus=all",))
FIELDS = VersionFields(
    description="finds people",
    framework="PYTORCH",
    type="OBJECT_DETECTION",
    notebook_link="https://notebooks.example.com/1",
    labelmap={"0": "car", "1": "person"},
    parameters={"epochs": 10},
    image=IMAGE,
)
V2 = VersionName(store="picsellia", model="pedestrian", version="v2")
BOXES = DatasetFields(description="from a car", type="OBJECT_DETECTION")


def connect(platform: Standin) -> PicselliaStore:
    credentials = make_credentials({"token": platform.token, "host": platform.url}, "the test")
    return PicselliaStore.connect(credentials, Patience(tries=3, pause=0.001))


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder, and every empty folder as None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def write(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def secrets_in(platform: Standin, text: str) -> list[str]:
    return [secret for secret in (platform.token, *platform.grants) if secret in text]


def base(platform: Standin, **fields: Any) -> str:
    given: dict[str, Any] = {
        "framework": "PYTORCH",
        "type": "OBJECT_DETECTION",
        "parameters": {"epochs": 10},
        "labels": {"0": "car"},
        "docker_image": IMAGE.name,
        "docker_tag": IMAGE.tag,
        "docker_flags": list(IMAGE.flags),
        "docker_env_variables": {"TRAINPACK_IMAGE_DIGEST": DIGEST},
    }
    return platform.add_model_version("pedestrian", "v2", files={"weights": b"w"}, **given | fields)


def picture(path: Path, width: int = 8, height: int = 6) -> Path:
    content = io.BytesIO()
    Image.new("RGB", (width, height)).save(content, "PNG")
    return write(path, content.getvalue())


def checkpoints(below: Path) -> Path:
    """A folder with files on every level, and an empty one."""
    folder = below / "checkpoints"
    for name in ("top.txt", "a/one", "a/b/two", "a/b/c/three", "a/b/c/d/four"):
        write(folder / name, name.encode())
    (folder / "empty").mkdir()
    return folder


def street(below: Path) -> Path:
    """Two images, one of them twice by its file name, and boxes."""
    folder = below / "street"
    for name in ("images/a.png", "images/left/b.png", "images/right/b.png"):
        picture(folder / name)
    coco = {
        "images": [
            {"id": 1, "width": 8, "height": 6, "file_name": "a.png"},
            {"id": 2, "width": 8, "height": 6, "file_name": "/elsewhere/left/b.png"},
        ],
        "categories": [{"id": 7, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2], "segmentation": [], "area": 4},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [2, 2, 3, 3], "segmentation": [], "area": 9},
            {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0, 0, 4, 4], "segmentation": [], "area": 16},
        ],
    }
    write(folder / "annotations/instances.json", json.dumps(coco).encode())
    return folder
