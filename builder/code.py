"""The code layer: which files of a project go into the image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from builder.errors import SpecError
from builder.plan import CodeFile
from builder.records import Record
from builder.spec import FILE, TrainingSpec, own_base

# Never in an image, whatever the ignore files say: credentials, version control, environments, caches, and
# locks, which hold the addresses of the package index.
NEVER = (
    ".git .hg .svn .env .env.* !.env.example *.pem *.key *.p12 *.pfx id_rsa* id_dsa* id_ecdsa* id_ed25519* "
    ".netrc .pypirc .npmrc .ssh/ .aws/ .azure/ .kube/ .docker/ .gnupg/ .trainpack/ .trainpack-* pylock.toml "
    "pylock.*.toml __pycache__/ *.py[co] .venv/ .mypy_cache/ .pytest_cache/ .ruff_cache/ .ipynb_checkpoints/ "
    "*.egg-info/ .tox/ .nox/ .idea/ .vscode/ .DS_Store node_modules/"
).split()
IGNORE_FILES = (".gitignore", ".dockerignore")


class CodeTree(Record):
    """A project's files, sorted by path, and what cannot be carried, with the reason."""

    files: tuple[CodeFile, ...]
    skipped: dict[str, str]


def not_code(spec: TrainingSpec, folder: Path) -> tuple[str, ...]:
    """Paths of the folder that the spec names and that are no code: datasets, and a base that lies there."""
    base = own_base(spec.image.base)
    if base is None or base.path is None:
        return tuple(spec.data.values())
    place, project = (folder / base.path).resolve(), folder.resolve()
    inside = [place.relative_to(project).as_posix()] if place.is_relative_to(project) else []
    return (*spec.data.values(), *inside)


def read_code(folder: Path, exclude: Sequence[str] = (), data: Sequence[str] = ()) -> CodeTree:
    """Read which files of `folder` go into the image.

    Args:
        folder: The project.
        exclude: Patterns on top of the ignore files, in their syntax.
        data: Further paths that are no part of it; from `not_code`.

    Raises:
        SpecError: A file cannot be read, or its name is not UTF-8.
    """
    walk = _walk(folder, exclude, data)
    found = (_code_file(folder, path) for path in walk.files(folder, ()))
    files = sorted((file for file in found if file), key=lambda file: file.path)
    return CodeTree(files=tuple(files), skipped=walk.skipped)


def code_paths(folder: Path, exclude: Sequence[str] = (), data: Sequence[str] = ()) -> list[Path]:
    """The files of the code, the folders that were searched for them, and the files that left others out."""
    walk = _walk(folder, exclude, data)
    files = list(walk.files(folder, ()))
    ignores = [place / name for place in walk.folders for name in IGNORE_FILES]
    environments = [place / "pyvenv.cfg" for place in walk.environments]
    return [*files, *walk.folders, *ignores, *environments]


def _walk(folder: Path, exclude: Sequence[str], data: Sequence[str]) -> _Walk:
    return _Walk(folder, GitIgnoreSpec.from_lines([*exclude, *(f"/{path}" for path in data)]))


class _Walk:
    def __init__(self, folder: Path, exclude: GitIgnoreSpec) -> None:
        self._folder = folder
        self._exclude = exclude
        self._never = GitIgnoreSpec.from_lines(NEVER)
        self.skipped: dict[str, str] = {}
        self.folders: list[Path] = []
        self.environments: list[Path] = []

    def files(self, folder: Path, ignores: tuple[tuple[Path, GitIgnoreSpec], ...]) -> Iterator[Path]:
        self.folders.append(folder)
        ignores = (*ignores, *_ignore_specs(folder))
        for entry in sorted(_entries(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if self._is_ignored(path, is_folder, ignores):
                continue
            if is_folder:
                if _is_environment(path):
                    self.environments.append(path)
                else:
                    yield from self.files(path, ignores)
            elif self._can_be_carried(entry):
                yield path

    def _is_ignored(self, path: Path, is_folder: bool, ignores: Sequence[tuple[Path, GitIgnoreSpec]]) -> bool:
        slash = "/" if is_folder else ""
        relative = path.relative_to(self._folder).as_posix() + slash
        if self._never.match_file(relative) or self._exclude.match_file(relative):
            return True
        return any(spec.match_file(path.relative_to(base).as_posix() + slash) for base, spec in ignores)

    def _can_be_carried(self, entry: os.DirEntry[str]) -> bool:
        reason = self._why_not(entry)
        if reason:
            name = Path(entry.path).relative_to(self._folder).as_posix()
            # It goes into the plan, which is UTF-8 whatever names are.
            self.skipped[os.fsencode(name).decode("utf-8", "backslashreplace")] = reason
        return reason is None

    def _why_not(self, entry: os.DirEntry[str]) -> str | None:
        if not entry.is_symlink():
            return None if entry.is_file() else "neither a file nor a folder"
        target = self._target(Path(entry.path))
        if target is None:
            return "a link to something that is not a file of the project"
        return "a link to what never goes into an image" if self._never.match_file(target) else None

    def _target(self, link: Path) -> str | None:
        """Which file of the project a link leads to, None where it leads to nothing or elsewhere."""
        try:
            target = link.resolve(strict=True)
            inside = target.relative_to(self._folder.resolve()).as_posix()
            return inside if target.is_file() else None
        except (OSError, RuntimeError, ValueError):  # until Python 3.13 a loop is a RuntimeError
            return None


def _is_environment(folder: Path) -> bool:
    try:
        return (folder / "pyvenv.cfg").exists()
    except OSError as error:
        raise _unreadable(folder, error) from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _unreadable(folder, error) from None


def _ignore_specs(folder: Path) -> list[tuple[Path, GitIgnoreSpec]]:
    found = []
    for name in IGNORE_FILES:
        path = folder / name
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        except OSError as error:
            raise _unreadable(path, error) from None
        if lines:
            found.append((folder, GitIgnoreSpec.from_lines(map(_PATTERNS[name], lines))))
    return found


def _anchored(line: str) -> str:
    """A .dockerignore pattern as a .gitignore one: it is relative to the file, not to any folder below."""
    pattern = line.strip()
    bang = "!" if pattern.startswith("!") else ""
    pattern = pattern.removeprefix("!").removeprefix("./")
    if not pattern or pattern.startswith(("#", "/", "**")):
        return bang + pattern
    return f"{bang}/{pattern}"


_PATTERNS: dict[str, Callable[[str], str]] = {".gitignore": str, ".dockerignore": _anchored}


def _code_file(folder: Path, path: Path) -> CodeFile | None:
    """None for a file that is gone again, as an editor's are that it saves through."""
    relative = path.relative_to(folder).as_posix()
    try:
        relative.encode("utf-8")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = path.stat()
    except UnicodeEncodeError:
        raise SpecError(
            f"the file name {relative!r} is not UTF-8, which an image's paths must be",
            remedy=f"rename it, or leave it out with [image] exclude in {FILE}",
        ) from None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    return CodeFile(
        path=relative, mode=0o755 if status.st_mode & 0o111 else 0o644, size=status.st_size, sha256=digest
    )


def _unreadable(path: Path, error: OSError) -> SpecError:
    return SpecError(
        f"cannot be read: {error.strerror}",
        place=str(path),
        remedy=f"give yourself the right to read it, or leave it out with [image] exclude in {FILE}",
    )


def check_script_is_carried(files: Sequence[CodeFile], script: str | None, module: str | None) -> None:
    """Make sure that the script itself was not left out.

    Raises:
        SpecError: An ignore file or `[image] exclude` takes the script out of the image.
    """
    paths = {file.path for file in files}
    wanted = [script] if script else [f"{_slashes(module)}.py", f"{_slashes(module)}/__main__.py"]
    if not paths.intersection(filter(None, wanted)):
        raise SpecError(
            f"{script or module!r} is left out of the image by .gitignore, .dockerignore or [image] exclude",
            place=f"{FILE} [run]",
            remedy="take it out of the ignore file",
        )


def _slashes(module: str | None) -> str:
    return str(PurePosixPath(*(module or "").split(".")))
