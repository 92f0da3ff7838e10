"""A folder of images with annotations, as the platform can take it. Pure but for reading the folder."""

from __future__ import annotations

import json
import mimetypes
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from builder.errors import UsageError
from builder.models.coco import read_annotations
from builder.models.folders import files_below

CONTENT_TYPES = ("image/jpeg", "image/bmp", "image/gif", "image/png", "image/tiff")
ANNOTATED_TYPES = ("OBJECT_DETECTION", "SEGMENTATION", "CLASSIFICATION", "KEYPOINT", "MASK")


class ImageFolder(NamedTuple):
    """What a dataset version is made of.

    Attributes:
        images: By the name that each has on the platform.
        coco: The annotations, where there are any; its images name those of `images`.
    """

    images: Mapping[str, Path]
    labels: tuple[str, ...]
    coco: dict[str, Any] | None


def read_folder(folder: Path, kind: str | None) -> ImageFolder:
    """Look at a folder before anything is sent.

    Args:
        kind: The type of the dataset version.

    Raises:
        UsageError: It is empty, or holds something that the platform does not take.
    """
    paths = files_below(folder)
    if not paths:
        raise UsageError("this folder is empty", place=str(folder))
    files = {name: path for name, path in paths.items() if not name.endswith(".json")}
    _require_images(folder, files)
    annotations = {
        path: found
        for name, path in paths.items()
        if name.endswith(".json") and (found := read_annotations(path)) is not None
    }
    names = _names(files)
    images = {names[name]: path for name, path in files.items()}
    if not annotations:
        return ImageFolder(images, (), None)
    (path, found), *others = annotations.items()
    if others:
        raise UsageError(
            f"there are two annotation files, {path.name} and {others[0][0].name}: Picsellia takes one",
            place=str(folder),
            remedy="merge them, or leave one out",
        )
    _require_type(kind, path)
    return ImageFolder(images, found.labels, _renamed(path, names, kind or ""))


def _require_images(folder: Path, files: Mapping[str, Path]) -> None:
    if not files:
        raise UsageError("this folder has no images", place=str(folder))
    for path in files.values():
        if mimetypes.guess_type(path, strict=False)[0] not in CONTENT_TYPES:
            raise UsageError(
                "this is no image that Picsellia takes: expected JPEG, PNG, TIFF, BMP or GIF",
                place=str(path),
                remedy="take it out of the folder",
            )


def _require_type(kind: str | None, path: Path) -> None:
    if kind not in ANNOTATED_TYPES:
        raise UsageError(
            f"Picsellia takes no annotations for a dataset of the type {kind}",
            place=str(path),
            remedy=f"give the dataset one of the types {', '.join(ANNOTATED_TYPES)}",
        )


def _names(files: Iterable[str]) -> dict[str, str]:
    """The name of each file on the platform, which has no folders: with the folders only where it must be."""
    counts = Counter(name.rpartition("/")[2] for name in files)
    return {
        name: last if counts[last := name.rpartition("/")[2]] == 1 else name.replace("/", "-")
        for name in files
    }


def _renamed(path: Path, names: Mapping[str, str], kind: str) -> dict[str, Any]:
    """The annotations, with the images named as they will be on the platform.

    Raises:
        UsageError: An image is not in the folder, or an annotation is one that the SDK would drop in silence.
    """
    coco: dict[str, Any] = json.loads(path.read_bytes())
    ends = _ends(names)
    for image in coco["images"]:
        image["file_name"] = names[_find(str(image.get("file_name")), ends, path)]
    for number, annotation in enumerate(coco["annotations"]):
        if not _FITS[kind](annotation):
            raise UsageError(
                f"annotations[{number}] has nothing that a dataset of the type {kind} can hold",
                place=str(path),
                remedy="change the dataset's type, or take the annotation out",
            )
    return coco


def _ends(names: Iterable[str]) -> dict[str, list[str]]:
    """Every file by each end of its path, since annotations name images below folders of their own."""
    ends: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        for start in range(len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(name)
    return ends


def _find(file_name: str, ends: Mapping[str, list[str]], path: Path) -> str:
    parts = file_name.split("/")
    for start in range(len(parts)):
        found = ends.get("/".join(parts[start:]), [])
        if len(found) == 1:
            return found[0]
    raise UsageError(
        f"these annotations name the image {file_name!r}, and no one file of the folder is called so",
        place=str(path),
        remedy="name it by its path below the folder, or take it out of the annotations",
    )


def _has_box(annotation: Mapping[str, Any]) -> bool:
    box = annotation.get("bbox")
    return isinstance(box, list) and len(box) == 4


def _has_polygon(annotation: Mapping[str, Any]) -> bool:
    return isinstance(annotation.get("segmentation"), list) and bool(annotation["segmentation"])


def _has_mask(annotation: Mapping[str, Any]) -> bool:
    mask = annotation.get("segmentation")
    return isinstance(mask, dict) and isinstance(mask.get("counts"), str)


def _has_keypoints(annotation: Mapping[str, Any]) -> bool:
    points = annotation.get("keypoints")
    return isinstance(points, list) and bool(points) and len(points) % 3 == 0


_FITS = {
    "OBJECT_DETECTION": _has_box,
    "SEGMENTATION": _has_polygon,
    "CLASSIFICATION": lambda _: True,
    "KEYPOINT": _has_keypoints,
    "MASK": _has_mask,
}
