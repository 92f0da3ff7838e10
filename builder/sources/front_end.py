"""Makes a wheel of a source distribution, as PEP 517 says: what runs in the container.

In its folder are `job.json`, the source distribution, and the environment of the build requirements, whose
Python runs this. It answers with a line of JSON, `{"missing": [...]}`, and the wheel where none is.
"""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path("/workspace")


def main() -> None:
    """Answer with what the backend requires beyond what is there, else with the wheel that it makes."""
    # What the backend and its children print is the log.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = json.loads((HERE / "job.json").read_text(encoding="utf-8"))
    source = unpack(HERE / job["source"])
    os.chdir(source)
    sys.path[:0] = [str(source / part) for part in job["path"]]
    backend = load(job["backend"])
    wanted: list[str] = getattr(backend, "get_requires_for_build_wheel", list)()
    missing = [each for each in wanted if each not in job["requires"]]
    answer.write(json.dumps({"missing": missing}).encode() + b"\n")
    if not missing:
        folder = HERE / "made"
        folder.mkdir()
        with (folder / backend.build_wheel(str(folder))).open("rb") as wheel:
            shutil.copyfileobj(wheel, answer)
    answer.close()


def unpack(archive: Path) -> Path:
    """Unpack the source distribution; the one folder in it."""
    folder = HERE / "source"
    shutil.unpack_archive(archive, folder)
    (source,) = folder.iterdir()
    return source


def load(name: str) -> Any:
    """The backend, `module:object`."""
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found


if __name__ == "__main__":
    main()
