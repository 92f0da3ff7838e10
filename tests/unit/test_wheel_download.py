"""Wheels on their way into the cache: verified, resumed, tried again, with whose credentials."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.errors import TrainpackError, WheelError
from builder.oci.cache import Cache
from builder.plan import Distribution
from builder.wheels import download
from builder.wheels.download import Downloads

CONTENT = bytes(range(256)) * 2000
Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Index:
    """A server of one wheel; `answers` are what it does the first times, then it behaves."""

    def __init__(self, *answers: Answer) -> None:
        index = self
        self.requests: list[dict[str, str]] = []
        self._answers = list(answers)
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with index._lock:
                    index.requests.append(dict(self.headers))
                    answer = index._answers.pop(0) if index._answers else give
                answer(self, len(index.requests))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/files/demo-1.0-py3-none-any.whl"

    def __enter__(self) -> Index:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def give(handler: BaseHTTPRequestHandler, _: int) -> None:
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(CONTENT) - start))
    handler.end_headers()
    handler.wfile.write(CONTENT[start:])


def give_whole(handler: BaseHTTPRequestHandler, _: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT)


def cut(handler: BaseHTTPRequestHandler, _: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:300_000])
    handler.close_connection = True
    handler.connection.close()


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def locked(url: str, content: bytes = CONTENT) -> Distribution:
    return Distribution(
        name="demo",
        version="1.0",
        filename="demo-1.0-py3-none-any.whl",
        url=url,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_a_wheel_is_brought_once_and_found_after_that(cache: Cache) -> None:
    told: list[str] = []
    with Index() as index:
        downloads = Downloads(cache, {}, told.append)
        assert downloads.fetch(locked(index.url)).read_bytes() == CONTENT
        downloads.fetch(locked("http://127.0.0.1:1/gone.whl"))
    assert len(index.requests) == 1
    assert told == ["downloaded demo 1.0 (0.5 MB)"]


def test_a_cut_download_goes_on_where_it_was_cut(cache: Cache) -> None:
    with Index(cut) as index:
        assert Downloads(cache, {}).fetch(locked(index.url)).read_bytes() == CONTENT
    assert index.requests[1]["Range"] == "bytes=262144-"


def test_a_server_that_knows_no_ranges_gives_all_of_it_again(cache: Cache) -> None:
    with Index(cut, give_whole) as index:
        assert Downloads(cache, {}).fetch(locked(index.url)).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [429, 500, 503])
def test_what_may_pass_is_tried_again(cache: Cache, code: int) -> None:
    with Index(status(code, Retry_After="0"), status(code)) as index:
        assert Downloads(cache, {}).fetch(locked(index.url)).read_bytes() == CONTENT
    assert len(index.requests) == 3


def test_a_server_that_stays_broken_ends_it_after_some_tries(cache: Cache) -> None:
    with Index(*[status(503)] * 20) as index, pytest.raises(TrainpackError, match="broken or busy") as caught:
        Downloads(cache, {}).fetch(locked(index.url))
    assert len(index.requests) == download.FRUITLESS_TRIES
    assert str(caught.value).startswith("http://127.0.0.1")


def test_a_server_that_asks_for_hours_is_told_of_at_once(cache: Cache) -> None:
    with Index(status(429, Retry_After="7200")) as index, pytest.raises(TrainpackError):
        Downloads(cache, {}).fetch(locked(index.url))
    assert len(index.requests) == 1


def test_another_file_than_the_locked_one_is_refused_and_not_kept(cache: Cache) -> None:
    wanted = locked("", b"y" * len(CONTENT))
    with Index() as index, pytest.raises(WheelError, match=r"the lock says [0-9a-f]{64}"):
        Downloads(cache, {}).fetch(wanted.model_copy(update={"url": index.url}))
    assert cache.blobs.paths() == []


def test_more_bytes_than_locked_are_not_waited_for(cache: Cache) -> None:
    with Index() as index, pytest.raises(WheelError, match="more than the 10 bytes"):
        Downloads(cache, {}).fetch(locked(index.url).model_copy(update={"size": 10}))


def test_a_wheel_that_the_index_lost_names_the_lock_as_the_remedy(cache: Cache) -> None:
    with Index(status(404)) as index, pytest.raises(WheelError, match="404") as caught:
        Downloads(cache, {}).fetch(locked(index.url))
    assert "trainpack lock" in str(caught.value.remedy)


def test_credentials_go_to_the_host_that_they_are_configured_for_and_to_no_other(
    cache: Cache, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login other password hidden\n", encoding="utf-8")
    environ = {
        "NETRC": str(netrc),
        "HOME": str(tmp_path),
        "UV_DEFAULT_INDEX": "http://me:s3cret@localhost:1/simple",
    }
    with Index() as index:
        Downloads(cache, environ).fetch(locked(index.url))
        assert "Authorization" not in index.requests[0]
        cache.clear()
        Downloads(cache, environ).fetch(locked(index.url.replace("127.0.0.1", "localhost")))
    word = base64.b64encode(b"me:s3cret").decode()
    assert index.requests[1]["Authorization"] == f"Basic {word}"


def test_no_password_is_in_an_error(cache: Cache) -> None:
    with Index(status(401)) as index, pytest.raises(TrainpackError) as caught:
        Downloads(cache, {}).fetch(locked(index.url.replace("127", "me:s3cret@127")))
    assert "s3cret" not in f"{caught.value} {caught.value.remedy} {caught.value.details}"
    assert "denies access" in str(caught.value)


def test_a_damaged_wheel_of_the_cache_is_brought_again(cache: Cache) -> None:
    with Index() as index:
        path = Downloads(cache, {}).fetch(locked(index.url))
        path.chmod(0o644)
        path.write_bytes(b"x" * len(CONTENT))
        assert Downloads(cache, {}).fetch(locked(index.url)).read_bytes() == CONTENT
    assert len(index.requests) == 2


def test_many_who_want_one_wheel_at_once_share_one_download(cache: Cache) -> None:
    with Index() as index, ThreadPoolExecutor(8) as pool:
        downloads = Downloads(cache, {})
        list(pool.map(lambda _: downloads.fetch(locked(index.url)), range(8)))
    assert len(index.requests) == 1


def test_a_wheel_of_a_folder_is_taken_from_there(cache: Cache, tmp_path: Path) -> None:
    file = tmp_path / "a folder" / "demo-1.0-py3-none-any.whl"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    assert Downloads(cache, {}).fetch(locked(file.as_uri())).read_bytes() == CONTENT


def test_no_server_at_all_is_told_with_its_address(cache: Cache) -> None:
    with pytest.raises(TrainpackError, match=r"127\.0\.0\.1:1/demo\.whl: cannot be downloaded"):
        Downloads(cache, {}).fetch(locked("http://127.0.0.1:1/demo.whl"))
