"""A package index that wants a password: it is used to lock and to build, and is nowhere afterwards."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest
from commands import succeed, trainpack

pytestmark = pytest.mark.engine

USER, PASSWORD = "reader", "hidden-word-of-the-index"
NAME = "trainpack_private_example"
WHEEL = f"{NAME}-1.0-py3-none-any.whl"
SPEC = """[image]
name = "registry.example.com/tests/private-index"
[run]
script = "train.py"
"""


def wheel_bytes(path: Path) -> bytes:
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{NAME}.py", "SECRET_OF_SUCCESS = 42\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


@contextmanager
def index(wheel: bytes) -> Iterator[int]:
    """A simple index on loopback that answers nobody without the password."""
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    page = f'<a href="/files/{WHEEL}#sha256={hashlib.sha256(wheel).hexdigest()}">{WHEEL}</a>'
    contents = {f"/simple/{NAME.replace('_', '-')}/": page.encode(), f"/files/{WHEEL}": wheel}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == expected
            content = contents.get(self.path)
            self.send_response(401 if not allowed else 404 if content is None else 200)
            self.send_header(
                "Content-Type", "text/html" if self.path.startswith("/simple") else "application/zip"
            )
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Length", str(len(content or b"") if allowed else 0))
            self.end_headers()
            if allowed and content:
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: what matters is asserted."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_the_password_of_an_index_reaches_lock_and_build_and_no_image_lock_or_log(
    tmp_path: Path, base_image: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(f"import {NAME}\nprint({NAME}.SECRET_OF_SUCCESS)\n", encoding="utf-8")
    (project / "trainpack.toml").write_text(SPEC, encoding="utf-8")
    (project / "requirements.txt").write_text(NAME, encoding="utf-8")
    with index(wheel_bytes(tmp_path / WHEEL)) as port:
        address = f"127.0.0.1:{port}/simple"
        refused = trainpack(
            project, "lock", env={"PIP_EXTRA_INDEX_URL": f"http://{USER}:wrong-word@{address}"}
        )
        assert refused.code != 0
        assert "wrong-word" not in refused.output
        env = {
            "PIP_EXTRA_INDEX_URL": f"http://{USER}:{PASSWORD}@{address}",
            "TRAINPACK_BUILD_NETWORK": "host",
        }
        built = succeed(project, "build", "--json", env=env)
    assert "42" in succeed(project, "run").stdout
    assert PASSWORD not in built.output
    image = docker.from_env().images.get(built.json["image_id"])
    with (tmp_path / "image.tar").open("wb") as file:
        file.writelines(image.save())
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "image.tar", "-C", unpacked], check=True)
    found = subprocess.run(
        ["grep", "-rlaE", f"{PASSWORD}|127\\.0\\.0\\.1:{port}", unpacked, project],
        capture_output=True,
        text=True,
        check=False,
    )
    leaks = {Path(line).relative_to(tmp_path).as_posix() for line in found.stdout.splitlines()}
    # The lock and what is made from it hold the index's address, and none its password.
    assert leaks <= {"project/pylock.toml", "project/.trainpack/context/locks/light/pylock.toml"} | {
        path.relative_to(tmp_path).as_posix() for path in (project / ".trainpack").glob("*.json")
    }
    for leak in leaks:
        assert PASSWORD not in (tmp_path / leak).read_text(encoding="utf-8")
