"""Containers through the docker SDK: files in and out, volumes, `docker run` flags, errors told as ours."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Ulimit

from builder.engine import client
from builder.errors import EngineError
from builder.plan import LABEL, BuiltImage
from builder.reference import Reference

WORKSPACE = "/workspace"
INPUTS = "/mnt/trainpack"
CDI = "nvidia.com/gpu="  # a GPU by the name of the container device interface
_CHUNK = 1 << 20

Content = Path | bytes | None
Entry = tuple[tarfile.TarInfo, Content]


@contextmanager
def engine_errors(place: str) -> Iterator[None]:
    """Tell what the engine refuses or fails as an EngineError at `place`, an image or a volume."""
    try:
        yield
    except ImageNotFound:
        remedy = "`trainpack build` builds it, `docker pull` fetches it"
        raise EngineError("the engine has no such image", place=place, remedy=remedy) from None
    except APIError as error:
        raise EngineError(str(error.explanation or error), place=place) from None
    except (DockerException, requests.RequestException) as error:
        raise EngineError(f"the engine failed: {error}", place=place) from None


def find_image(reference: str) -> BuiltImage:
    """The image that the engine has under a reference or an image id.

    Raises:
        EngineError: It has none.
    """
    with engine_errors(reference):
        image = client().images.get(reference)
    name = reference if reference in image.tags or not image.tags else image.tags[0]
    head, _, tag = name.rpartition(":")
    return BuiltImage(
        reference=name,
        image_id=str(image.id),
        digest=repo_digest(image.attrs.get("RepoDigests") or (), head),
        tag=tag,
        size=image.attrs["Size"],
        layers=tuple(image.attrs["RootFS"].get("Layers") or ()),
    )


def has_image(reference: str) -> bool:
    """Whether the engine has an image under a reference or an image id."""
    with engine_errors(reference), suppress(ImageNotFound):
        client().images.get(reference)
        return True
    return False


def tag_image(image_id: str, reference: Reference) -> None:
    """Give an image of the engine another name.

    Raises:
        EngineError: The engine has no such image, or failed.
    """
    with engine_errors(str(reference)):
        client().images.get(image_id).tag(reference.repository, tag=reference.tag)


def repo_digest(digests: Iterable[str], repository: str) -> str | None:
    """The manifest digest that an image got in a repository, from the engine's `RepoDigests`."""
    return next((text.partition("@")[2] for text in digests if text.startswith(f"{repository}@")), None)


@contextmanager
def temporary_volume(purpose: str) -> Iterator[str]:
    """The name of a fresh volume, removed at the end; `docker volume ls` shows what it was for."""
    name = create_volume(purpose)
    try:
        yield name
    finally:
        remove_volume(name)


def create_volume(purpose: str) -> str:
    """Make a volume `trainpack-<random>-<purpose>`."""
    name = f"trainpack-{secrets.token_hex(4)}-{purpose}"
    with engine_errors(name):
        client().volumes.create(name=name, labels={f"{LABEL}.volume": purpose})
    return name


def remove_volume(name: str) -> None:
    """Remove a volume; one that is gone already is fine."""
    with engine_errors(name), suppress(NotFound):
        client().volumes.get(name).remove(force=True)


@contextmanager
def created(image: str, **options: Any) -> Iterator[Container]:
    """A container that is created and not started; removed at the end, whatever it does then."""
    container = client().containers.create(image, **options)
    try:
        yield container
    finally:
        with suppress(NotFound):
            container.remove(force=True, v=True)


def file_entry(name: str, content: bytes, mode: int = 0o444) -> Entry:
    """One file for `put`, owned by root."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def folder_entry(name: str) -> Entry:
    """One folder for `put`, owned by root."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info, None


def path_entries(name: str, path: Path) -> Iterator[Entry]:
    """A file or folder of this machine for `put`; a link that is named itself is followed."""
    if path.is_dir():
        yield from tree_entries(name, path)
    else:
        yield _copied(name, path)


def _copied(name: str, path: Path) -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.mode = path.stat().st_size, 0o444
    return info, path


def tree_entries(name: str, folder: Path) -> Iterator[Entry]:
    """A folder of this machine for `put`: files and folders readable by all, links as they are."""
    yield folder_entry(name)
    for path in sorted(folder.iterdir()):
        inner = f"{name}/{path.name}"
        if path.is_symlink():
            info = tarfile.TarInfo(inner)
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            yield info, None
        elif path.is_dir():
            yield from tree_entries(inner, path)
        elif path.is_file():
            yield _copied(inner, path)


def put(container: Container, entries: Iterable[Entry], into: str = INPUTS) -> None:
    """Put files below an existing folder of a container, streamed through the API."""
    container.put_archive(into, cast("bytes", pack(entries)))


def pack(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The entries as a tar stream that never holds a whole file in memory.

    Raises:
        EngineError: A file changed its size while it was read.
    """
    for info, content in entries:
        yield info.tobuf(tarfile.PAX_FORMAT)
        if content is not None:
            yield from _content(info, content)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _content(info: tarfile.TarInfo, content: Path | bytes) -> Iterator[bytes]:
    left = info.size
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        while left and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk
    if left:
        raise EngineError("the file shrank while it was copied into the container", place=str(content))
    yield bytes(-info.size % tarfile.BLOCKSIZE)


@contextmanager
def _archive(container: Container, path: str) -> Iterator[tarfile.TarFile]:
    chunks, _ = container.get_archive(path)
    with tarfile.open(fileobj=as_file(chunks), mode="r|") as archive:
        yield archive


def as_file(chunks: Iterable[bytes]) -> io.BufferedReader:
    """A stream of the engine's, to be read as a file."""
    return io.BufferedReader(cast("io.RawIOBase", _Chunks(chunks)), _CHUNK)


class _Chunks(io.RawIOBase):
    """A file that reads from an iterator of chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def read_files(container: Container, path: str) -> dict[str, bytes]:
    """The files at a path of a container, by name relative to it (a file's own name is `""`).

    What is not there is an empty result. For small files: they are held in memory.
    """
    try:
        with _archive(container, path) as archive:
            return {
                member.name.partition("/")[2]: cast("Any", archive.extractfile(member)).read()
                for member in archive
                if member.isfile()
            }
    except NotFound:
        return {}


def copy_out(container: Container, path: str, into: Path) -> tuple[str, ...]:
    """Copy a file or folder of a container below `into`, owned by the caller.

    Returns:
        The names of what was left out: devices, pipes, and links that lead outside.

    Raises:
        OSError: It cannot be written.
    """
    try:
        with _archive(container, path) as archive:
            return extract(archive, into)
    except NotFound:
        return ()


def extract(archive: tarfile.TarFile, into: Path) -> tuple[str, ...]:
    """Extract an archive that may be hostile; nothing is written outside `into`.

    Links are made after all files, so that nothing is ever written through one. (`tarfile`'s own filters
    came with Python 3.11.4; Debian 12 has 3.11.2.)

    Returns:
        The names of what was left out.
    """
    root = into.resolve()
    links: list[tuple[Path, tarfile.TarInfo]] = []
    skipped: list[str] = []
    for member in archive:
        target = _inside(root, member.name)
        if target and member.issym():
            links.append((target, member))
        elif not target or not _extract_one(archive, member, target, root):
            skipped.append(member.name)
    skipped += [member.name for target, member in links if not _link(target, member.linkname, root)]
    return tuple(skipped)


def _inside(root: Path, name: str) -> Path | None:
    path = Path(os.path.normpath(root / name))
    return path if path.is_relative_to(root) else None


def _extract_one(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, root: Path) -> bool:
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.islnk():
        source = _inside(root, member.linkname)
        if source and source.is_file():
            target.hardlink_to(source)
            return True
    content = archive.extractfile(member) if member.isreg() else None
    if content is None:
        return False
    with target.open("xb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
    target.chmod(0o755 if member.mode & 0o111 else 0o644)
    return True


def _link(target: Path, to: str, root: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(to)
    if Path(os.path.realpath(target)).is_relative_to(root):
        return True
    target.unlink()
    return False


def host_options(flags: Sequence[str]) -> dict[str, Any]:
    """Canonical `docker run` flags (builder.flags) as arguments of the SDK's `containers.create`.

    `--gpus` needs a look at the host first, `--rm`, `--stop-timeout` and the log's flags belong to whoever
    runs the container: these are left out.
    """
    options: dict[str, Any] = {}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name in _OPTIONS:
            key, convert = _OPTIONS[name]
            converted = convert(value)
            options[key] = _joined(options.get(key), converted)
    return options


def _joined(before: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [*(before or []), *value]
    return {**(before or {}), **value} if isinstance(value, dict) else value


def _switch(value: str) -> bool:
    return value != "false"


def _ulimit(value: str) -> list[Ulimit]:
    name, _, limits = value.partition("=")
    soft, _, hard = limits.partition(":")
    return [Ulimit(name=name, soft=int(soft), hard=int(hard or soft))]


def _device(value: str) -> list[str]:
    return [] if value.startswith(CDI) else [value]


def _tmpfs(value: str) -> dict[str, str]:
    path, _, options = value.partition(":")
    return {path: options}


_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "cap-add": ("cap_add", lambda value: [value]),
    "cap-drop": ("cap_drop", lambda value: [value]),
    "cpu-shares": ("cpu_shares", int),
    "cpus": ("nano_cpus", lambda value: int(float(value) * 1e9)),
    "cpuset-cpus": ("cpuset_cpus", str),
    "cpuset-mems": ("cpuset_mems", str),
    "device": ("devices", _device),
    "init": ("init", _switch),
    "ipc": ("ipc_mode", str),
    "memory": ("mem_limit", str),
    "memory-reservation": ("mem_reservation", str),
    "memory-swap": ("memswap_limit", str),
    "memory-swappiness": ("mem_swappiness", int),
    "network": ("network_mode", str),
    "oom-kill-disable": ("oom_kill_disable", _switch),
    "oom-score-adj": ("oom_score_adj", int),
    "pid": ("pid_mode", str),
    "pids-limit": ("pids_limit", int),
    "privileged": ("privileged", _switch),
    "read-only": ("read_only", _switch),
    "runtime": ("runtime", str),
    "security-opt": ("security_opt", lambda value: [value]),
    "shm-size": ("shm_size", str),
    "tmpfs": ("tmpfs", _tmpfs),
    "ulimit": ("ulimits", _ulimit),
    "user": ("user", str),
}
