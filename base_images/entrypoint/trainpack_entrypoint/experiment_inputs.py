"""What an experiment gives a training: files of its ModelVersion, and the dataset versions attached to it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from trainpack_entrypoint.downloads import Say, fetch
from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.links import Item, raise_if_final, why
from trainpack_entrypoint.parallel import in_parallel
from trainpack_entrypoint.paths import Paths
from trainpack_entrypoint.transport import Backoff, on_its_own
from trainpack_entrypoint.workspace import writing

ANNOTATIONS = "annotations.json"
IMAGES = "images"
_RETRIES = 3
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,15}")

Result = TypeVar("Result")


class _Dataset(NamedTuple):
    """A dataset as it is downloaded: images by their path below the folder of images, and a COCO document."""

    images: dict[str, Any]
    coco: dict[str, Any] | None


class ExperimentInputs:
    """The inputs that an experiment offers.

    Args:
        experiment: Of the SDK.
        patience: Seconds without an answer after which the platform is given up.
    """

    def __init__(self, experiment: Any, patience: float, say: Say) -> None:
        self._experiment = on_its_own(experiment)
        self._patience = patience
        self._say = say
        _retry_reads(self._experiment.connection.session)
        self._attached: dict[str, Any] = self._ask(
            "attached datasets", self._experiment.get_attached_dataset_versions
        )

    @property
    def aliases(self) -> Collection[str]:
        """The aliases of the attached dataset versions."""
        return self._attached.keys()

    def fetch(self, paths: Paths, aliases: Iterable[str], labelmap: Mapping[str, str] | None) -> None:
        """Download the files, and the datasets of these aliases.

        Raises:
            RunError: See `downloads.fetch`.
        """
        files = self._files(_names_in(paths.mount("files")))
        groups = [_items(os.path.join(paths.inputs, "files"), files, "file")]
        for alias in aliases:
            folder = os.path.join(paths.inputs, "datasets", alias)
            dataset = self._ask(f"dataset {alias!r}", functools.partial(self._dataset, alias, labelmap))
            groups.append(_items(os.path.join(folder, IMAGES), dataset.images, f"dataset {alias!r}: image"))
            with writing(paths):
                _prepare(folder, [item.path for item in groups[-1]])
                _write(os.path.join(folder, ANNOTATIONS), dataset.coco)
        with writing(paths):
            os.makedirs(paths.inputs, exist_ok=True)
            _prepare(os.path.join(paths.inputs, "files"), [item.path for item in groups[0]])
        fetch(groups, paths.inputs, self._patience, self._say)

    def _files(self, mounted: Collection[str]) -> dict[str, Any]:
        files = self._ask("files of the ModelVersion", self._version_files)
        if not files:
            return {}
        own = self._ask("artifacts", self._experiment.list_artifacts)
        chosen = {file.name: file for file in files}
        for artifact in own:
            if artifact.name in chosen and artifact.object_name != chosen[artifact.name].object_name:
                self._say(f"file {artifact.name}: the experiment's own, in place of its ModelVersion's")
                chosen[artifact.name] = artifact
        counts = Counter(file.filename for file in chosen.values())
        wanted = {
            str(file.id): file.filename if counts[file.filename] == 1 else _full_name(file)
            for file in chosen.values()
        }
        names = self._local_names(wanted, "files")
        placed = {names[str(file.id)]: file for file in chosen.values()}
        return {name: file for name, file in placed.items() if name.partition("/")[0] not in mounted}

    def _version_files(self) -> Sequence[Any]:
        from picsellia.exceptions import NoBaseModelVersionError

        try:
            return self._experiment.get_base_model_version().list_files()  # type: ignore[no-any-return]
        except NoBaseModelVersionError:
            return ()

    def _dataset(self, alias: str, labelmap: Mapping[str, str] | None) -> _Dataset:
        version = self._attached[alias]
        coco = _coco(version)
        assets = {str(asset.id): asset for asset in version.list_assets()}
        names = self._local_names({id: asset.filename for id, asset in assets.items()}, f"dataset {alias!r}")
        if coco is not None:
            for image in coco["images"]:
                image["file_name"] = names[image["file_name"].partition(".")[0]]
            if problem := _renumber(coco, labelmap or {}):
                self._say(f"warning: dataset {alias!r}: {problem}")
        return _Dataset({names[id]: asset for id, asset in assets.items()}, coco)

    def _local_names(self, wanted: Mapping[str, str], what: str) -> dict[str, str]:
        names = local_names(wanted)
        if renamed := [id for id, name in names.items() if name != wanted[id]]:
            example = f"{wanted[renamed[0]]!r} is {names[renamed[0]]}"
            self._say(f"{what}: {len(renamed)} names stand twice or cannot be a file's: {example}")
        return names

    def _ask(self, what: str, call: Callable[[], Result]) -> Result:
        """Call in a thread, so that a signal ends the wait at once, until there is an answer.

        Raises:
            RunError: The platform refuses, does not have it, or does not answer in time.
        """
        return in_parallel(lambda _: self._patiently(what, call), [None])[0]

    def _patiently(self, what: str, call: Callable[[], Result]) -> Result:
        deadline, backoff, told = time.monotonic() + self._patience, Backoff(), False
        while True:
            try:
                return call()
            except _IncompleteError as error:
                failure: Exception = error.cause
            except Exception as error:
                raise_if_final(error, what)
                failure = error
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"{what}: the platform did not answer within {self._patience:g} s: {why(failure)}"
                raise RunError("platform", message)
            if not told:
                self._say(f"{what}: no answer, trying for {self._patience:g} s: {why(failure)}")
            told = True
            time.sleep(min(backoff.after(failure), left))


class _IncompleteError(Exception):
    """Some annotations could not be loaded; the SDK says of any reason that it was a bad request."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _retry_reads(session: Any) -> None:
    """One read of many that fails must not undo the others, which is what it does in the SDK."""
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=None,
        connect=_RETRIES,
        read=_RETRIES,
        status=_RETRIES,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET", "XGET"),
        backoff_factor=0.5,
        respect_retry_after_header=False,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=32, max_retries=retry))


def _full_name(file: Any) -> str:
    """A name for a file that shares its file name with another: outputs are named by their path."""
    name = str(file.name)
    return name if os.path.basename(name) == file.filename else f"{name}/{file.filename}"


def local_names(wanted: Mapping[str, str]) -> dict[str, str]:
    """A relative path for each id: the one that is wanted, else the id with the name's extension.

    A path is not given when it stands twice, leads out of the folder, cannot be a file's name, is a folder of
    another one, or looks like another's id.
    """
    counts = Counter(wanted.values())
    folders = {folder for path in counts for folder in _folders(path)}

    def is_free(id: str, path: str) -> bool:
        stem = path.partition(".")[0]
        return (
            counts[path] == 1
            and _is_safe(path)
            and path not in folders
            and (stem == id or stem not in wanted)
        )

    return {id: path if is_free(id, path) else id + _extension(path) for id, path in wanted.items()}


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _is_safe(path: str) -> bool:
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    parts = encoded.split(b"/")
    return (
        len(encoded) <= 1000
        and min(encoded, default=0) >= 0x20
        and not any(part in (b"", b".", b"..") or len(part) > 255 for part in parts)
    )


def _extension(path: str) -> str:
    extension = os.path.splitext(os.path.basename(path))[1]
    return extension if _EXTENSION.fullmatch(extension) else ""


def _coco(version: Any) -> dict[str, Any] | None:
    """The annotations as the SDK builds them, images named by the assets' ids; None when there are none."""
    from picsellia.exceptions import BadRequestError, NoDataError

    try:
        version.list_annotations(limit=1)
    except NoDataError:
        return None
    try:
        file = version.build_coco_file_locally(export_key="ASSET_ID")
    except BadRequestError as error:
        raise _IncompleteError(error) from None
    return file.model_dump(mode="json", exclude_none=True)  # type: ignore[no-any-return]


def _renumber(coco: dict[str, Any], labelmap: Mapping[str, str]) -> str | None:
    """Give categories the labelmap's indices, the same in every dataset; the problem, when that cannot be.

    Annotations are counted from 1, since COCO's own evaluation takes 0 for none.
    """
    for annotation in coco["annotations"]:
        annotation["id"] += 1
    indices = {name: int(index) for index, name in labelmap.items()}
    if unknown := [category["name"] for category in coco["categories"] if category["name"] not in indices]:
        listed = ", ".join(map(repr, unknown))
        return (
            f"the labelmap has no {listed}: categories are numbered as on the platform" if indices else None
        )
    new = {category["id"]: indices[category["name"]] for category in coco["categories"]}
    for category in coco["categories"]:
        category["id"] = new[category["id"]]
    for annotation in coco["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]
    coco["categories"].sort(key=lambda category: category["id"])
    return None


def _names_in(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _items(folder: str, remotes: Mapping[str, Any], what: str) -> list[Item]:
    return [Item(f"{what} {name}", os.path.join(folder, name), remote) for name, remote in remotes.items()]


def _prepare(folder: str, paths: Iterable[str]) -> None:
    """Leave nothing in a folder but files that are wanted; what a former run left may be out of date."""
    if os.path.islink(folder):
        os.unlink(folder)
    wanted = set(paths)
    if wanted or os.path.isdir(folder):
        os.makedirs(folder, exist_ok=True)
        _prune(folder, wanted)


def _prune(folder: str, wanted: Collection[str]) -> None:
    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            _prune(entry.path, wanted)
            # A folder without files would be a class of its own to whoever reads classes from folders.
            with contextlib.suppress(OSError):
                os.rmdir(entry.path)
        elif entry.is_symlink() or entry.path not in wanted:
            os.unlink(entry.path)


def _write(path: str, document: Any) -> None:
    if document is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)
