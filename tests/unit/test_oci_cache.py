"""The cache of layers: shared, bounded, never trusted unread, whole after any kill."""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import oci_images
import pytest

from builder.cli.dispatch import run
from builder.errors import BlobError, UsageError
from builder.oci import tar
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache, cache_key, open_cache, parse_size
from builder.oci.image import Image, Layer
from builder.oci.layer import write_layer
from builder.oci.layout import held_images, read_layout, write_layout
from builder.oci.manifest import digest_of

ROOT = Path(__file__).parents[2]
KEY = cache_key("test", 1)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def made(cache: Cache, content: bytes = b"content") -> Layer:
    return write_layer([tar.file("a", content)], cache.blobs)


def flip(path: Path, *, keep_times: bool) -> None:
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def use_at(cache: Cache, layer: Layer, moment: float) -> None:
    path = cache.blobs.path(layer.digest)
    os.utime(path, ns=(int(moment * 10**9), path.stat().st_mtime_ns))


def test_a_layer_is_made_once_and_then_known_by_its_key(cache: Cache) -> None:
    calls: list[int] = []

    def make() -> Layer:
        calls.append(1)
        return made(cache)

    first = cache.layer(KEY, make)
    again = Cache(cache.folder).layer(KEY, make)
    assert first == again
    assert (again.size, again.unpacked, calls) == (first.size, first.unpacked, [1])


def test_a_key_depends_on_what_decides_the_layer_and_on_how_layers_are_written() -> None:
    assert cache_key("a", 1) == cache_key("a", 1)
    assert len({cache_key("a", 1), cache_key("a", 2), cache_key("a"), cache_key(["a", 1])}) == 4


def test_a_flipped_bit_is_found_at_the_next_build_and_the_layer_made_anew(cache: Cache) -> None:
    layer = cache.layer(KEY, lambda: made(cache))
    flip(cache.blobs.path(layer.digest), keep_times=False)
    assert cache.recall(KEY) is None
    with cache.layer(KEY, lambda: made(cache)).open() as file:
        assert digest_of(file.read()) == layer.digest


def test_a_bit_that_flips_behind_the_file_system_s_back_is_found_when_the_blob_is_read(cache: Cache) -> None:
    layer = cache.layer(KEY, lambda: made(cache))
    flip(cache.blobs.path(layer.digest), keep_times=True)
    with layer.open() as file, pytest.raises(BlobError, match="corrupt"):
        file.read()
    assert cache.recall(KEY) is None


def test_a_blob_cut_short_is_not_there(cache: Cache) -> None:
    layer = cache.layer(KEY, lambda: made(cache))
    path = cache.blobs.path(layer.digest)
    path.chmod(0o644)
    os.truncate(path, layer.size - 1)
    assert cache.recall(KEY) is None


def test_a_blob_that_was_touched_but_is_whole_is_hashed_and_kept(cache: Cache) -> None:
    layer = cache.layer(KEY, lambda: made(cache))
    path = cache.blobs.path(layer.digest)
    os.utime(path)
    assert cache.recall(KEY) == layer
    assert path.stat().st_mtime_ns == tar.EPOCH * 10**9


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"digest": "../../x"}', b'{"digest": 1, "size": 1}'])
def test_a_damaged_index_entry_is_a_layer_to_be_made(cache: Cache, content: bytes) -> None:
    cache.layer(KEY, lambda: made(cache))
    (cache.folder / "keys" / KEY).write_bytes(content)
    assert cache.layer(KEY, lambda: made(cache)).size > 0
    assert cache.recall(KEY) is not None


def test_whichever_byte_of_an_index_entry_has_a_flipped_bit_the_layer_is_made_anew(cache: Cache) -> None:
    layer = cache.layer(KEY, lambda: made(cache))
    record = cache.folder / "keys" / KEY
    whole = record.read_bytes()
    for at in range(len(whole)):
        content = bytearray(whole)
        content[at] ^= 1 << at % 8
        record.write_bytes(content)
        assert cache.recall(KEY) is None
    assert cache.layer(KEY, lambda: made(cache)) == layer


def test_an_error_while_a_layer_is_made_leaves_nothing(cache: Cache) -> None:
    def fail() -> Layer:
        with cache.blobs.writer() as writer:
            writer.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.layer(KEY, fail)
    assert (cache.info().blobs, cache.info().layers, list((cache.folder / "fresh").iterdir())) == (0, 0, [])


def test_bytes_of_another_digest_than_expected_are_not_kept(cache: Cache) -> None:
    with pytest.raises(BlobError, match="expected sha256:000"), cache.blobs.writer(f"sha256:{'0' * 64}") as w:
        w.write(b"x")
    assert cache.info().blobs == 0


def test_threads_that_want_one_key_share_the_work(cache: Cache) -> None:
    started = threading.Barrier(4)
    calls: list[int] = []

    def make() -> Layer:
        calls.append(1)
        return made(cache, oci_images.noise(100_000))

    def build() -> None:
        started.wait()
        cache.layer(KEY, make)

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


BUILD = """
import random
import sys
from pathlib import Path
from builder.oci import tar
from builder.oci.cache import Cache, cache_key
from builder.oci.layer import write_layer

cache = Cache(Path(sys.argv[1]))
def make(number):
    print("made", number, flush=True)
    content = random.Random(number).randbytes(2_000_000)
    return write_layer([tar.file("a", content)], cache.blobs)
def build():
    for number in range(4):
        print(cache.layer(cache_key("n", number), lambda: make(number)).digest, flush=True)
print("ready", flush=True)
"""
ONCE = f"{BUILD}sys.stdin.readline()\nbuild()\n"
# Each line starts a build and kills it after so many seconds, in a process that has imported everything.
AGAIN = f"""{BUILD}
import os, signal, time
for line in sys.stdin:
    if not (child := os.fork()):
        build()
        os._exit(0)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def build(folder: Path, program: str = ONCE) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_builds_at_once_share_work_and_agree(tmp_path: Path) -> None:
    both = [build(tmp_path / "cache") for _ in range(2)]
    printed = []
    for process in both:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        printed.append(process.communicate()[0].splitlines())
    digests = [[line for line in lines if line.startswith("sha256:")] for lines in printed]
    assert digests[0] == digests[1]
    assert sorted(line for lines in printed for line in lines if line.startswith("made")) == [
        f"made {number}" for number in range(4)
    ]


@pytest.mark.slow
def test_after_a_kill_at_any_moment_the_next_build_succeeds_with_the_same_digests(tmp_path: Path) -> None:
    expected = digests_of(tmp_path / "reference")
    cache = Cache(tmp_path / "cache")
    chance = random.Random(7)
    helper = build(tmp_path / "cache", AGAIN)
    assert helper.stdin
    assert helper.stdout
    unfinished = 0
    for _ in range(50):
        cache.clear()
        helper.stdin.write(f"{chance.random() * 0.3}\n")
        helper.stdin.flush()
        said = ""
        while not said.endswith("ended\n"):  # a killed process may leave half a line
            line = helper.stdout.readline()
            assert line, "the helper ended"
            said += line
        unfinished += said.count("sha256:") < len(expected)
        assert all(cache.blobs.verify(digest) for digest in cache.blobs.digests())
        if chance.random() < 0.2:
            assert digests_of(cache.folder) == expected
    helper.communicate()
    assert unfinished > 10
    assert digests_of(cache.folder) == expected


def digests_of(folder: Path) -> list[str]:
    process = build(folder)
    out, _ = process.communicate("go\n")
    assert process.returncode == 0
    return [line for line in out.splitlines() if line.startswith("sha256:")]


def test_pruning_removes_what_was_used_longest_ago_and_stops_at_the_limit(cache: Cache) -> None:
    contents = [oci_images.noise(1000, n) for n in range(4)]
    layers = [
        cache.layer(cache_key(n), functools.partial(made, cache, content))
        for n, content in enumerate(contents)
    ]
    now = time.time()
    for age, layer in zip((4000, 3000, 2000, 1000), layers, strict=True):
        use_at(cache, layer, now - age)
    assert cache.recall(cache_key(0)) is not None  # used again: now the youngest
    removed = cache.prune(sum(layer.size for layer in layers) - 1)
    assert (removed.files, removed.size) == (1, layers[1].size)
    assert [cache.recall(cache_key(n)) is not None for n in range(4)] == [True, False, True, True]
    assert cache.info().layers == 3


def test_what_was_used_just_now_is_never_pruned(cache: Cache) -> None:
    cache.layer(KEY, lambda: made(cache))
    assert cache.prune(0).files == 0
    assert cache.recall(KEY) is not None


def test_a_build_cuts_the_cache_down_to_its_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10)
    layer = cache.layer(KEY, lambda: made(cache))
    use_at(cache, layer, 0)
    assert cache.trim().size == layer.size


def test_what_a_killed_build_left_is_swept_and_what_a_living_one_writes_is_not(cache: Cache) -> None:
    with cache.blobs.writer() as writer:
        writer.write(b"half")
        living = next((cache.folder / "fresh").iterdir())
        stray = cache.folder / "fresh" / "stray"
        stray.write_bytes(b"12345")
        for path in (living, stray):
            os.utime(path, (0, 0))
        assert cache.info().stray == 5
        assert cache.prune(10**9).files == 1
        assert (stray.exists(), living.exists()) == (False, True)


def keep_base(cache: Cache, tag: str, *contents: bytes, unused_for: float) -> Image:
    """Have a base in the cache that was made, and used for the last time, so many seconds ago."""
    base = oci_images.image(Blobs(cache.folder / "elsewhere"), *contents)
    before = set(cache.bases.paths())
    write_layout(cache.bases.folder, base, tag)
    for path in set(cache.bases.paths()) - before:
        os.utime(path, (time.time() - unused_for,) * 2)
    return base


def bases(cache: Cache) -> list[str | None]:
    return [held.tag for held in held_images(cache.bases.folder)]


def test_bases_count_for_the_limit_and_the_one_used_longest_ago_goes_first(cache: Cache) -> None:
    old = keep_base(cache, "old", oci_images.noise(1000, 1), unused_for=4000)
    new = keep_base(cache, "new", oci_images.noise(1000, 2), unused_for=3000)
    layer = cache.layer(KEY, lambda: made(cache, oci_images.noise(1000)))
    use_at(cache, layer, time.time() - 2000)
    info = cache.info()
    assert (info.bases, info.bases_size) == (2, sum(path.stat().st_size for path in cache.bases.paths()))
    assert cache.prune(info.size + info.bases_size).files == 0
    removed = cache.prune(info.size + info.bases_size - 1)
    assert (removed.files, bases(cache)) == (3, ["new"])
    assert not cache.bases.path(old.layers[0].digest).exists()
    assert read_layout(cache.bases.folder, "linux/amd64", "new") == new
    assert cache.recall(KEY)


def test_a_base_in_use_stays_whatever_the_limit(cache: Cache) -> None:
    base = keep_base(cache, "base", b"content", unused_for=4000)
    assert cache.bases.has(base.layers[0].digest, base.layers[0].size)  # what each build asks first
    assert cache.prune(0).files == 0
    assert bases(cache) == ["base"]


def test_what_two_bases_share_stays_with_the_one_in_use(cache: Cache) -> None:
    keep_base(cache, "old", b"shared", b"old", unused_for=4000)
    base = keep_base(cache, "new", b"shared", b"new", unused_for=0)
    cache.prune(0)
    assert bases(cache) == ["new"]
    assert all(cache.bases.has(layer.digest, layer.size) for layer in base.layers)


def test_what_is_left_of_a_base_that_was_replaced_goes_once_nobody_uses_it(cache: Cache) -> None:
    keep_base(cache, "base", b"first", unused_for=4000)
    keep_base(cache, "base", b"second", unused_for=0)
    keep_base(cache, "base", b"third", unused_for=0)
    assert len(cache.bases.paths()) == 9
    assert cache.trim().files == 3
    assert len(cache.bases.paths()) == 6
    assert bases(cache) == ["base"]


def test_a_flipped_bit_in_a_base_is_found_and_the_base_forgotten(cache: Cache) -> None:
    base = keep_base(cache, "base", b"content", unused_for=0)
    keep_base(cache, "other", b"other", unused_for=0)
    flip(cache.bases.path(base.layers[0].digest), keep_times=True)
    assert cache.verify() == (base.layers[0].digest,)
    assert bases(cache) == ["other"]


def test_what_a_kill_left_in_the_bases_is_swept_and_no_blob(cache: Cache) -> None:
    keep_base(cache, "base", b"content", unused_for=0)
    half = cache.bases.path(digest_of(b"x")).with_name(".trainpack-half")
    half.write_bytes(b"12345")
    assert cache.verify() == ()
    assert (cache.info().stray, half.exists()) == (0, True)
    os.utime(half, (0, 0))
    assert cache.info().stray == 5
    assert (cache.prune(10**9).files, half.exists()) == (1, False)


def test_locks_that_nobody_holds_are_swept_without_letting_two_in(cache: Cache) -> None:
    with cache.lock(KEY):
        cache.clear()
        assert (cache.folder / "locks" / KEY).exists()
    cache.clear()
    assert not (cache.folder / "locks" / KEY).exists()
    with cache.lock(KEY):
        pass


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500 * 10**6), ("1.5 gb", 15 * 10**8), ("20G", 2 * 10**10), ("7", 7)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text, "here") == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1XB", "1e9"])
def test_what_is_no_size_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(UsageError, match="is no size") as caught:
        parse_size(text, "TRAINPACK_CACHE_LIMIT")
    assert caught.value.place == "TRAINPACK_CACHE_LIMIT"


def test_folder_and_limit_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINPACK_CACHE", str(tmp_path))
    monkeypatch.setenv("TRAINPACK_CACHE_LIMIT", "3MB")
    assert (open_cache().folder, open_cache().limit) == (tmp_path / "oci", 3_000_000)


def test_the_command_shows_checks_and_empties_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINPACK_CACHE", str(tmp_path))
    cache = open_cache()
    layer = cache.layer(KEY, lambda: made(cache))

    def answer(*arguments: str) -> tuple[int, dict[str, object]]:
        code = run(["cache", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    code, info = answer("info")
    assert (code, info["blobs"], info["layers"], info["size"]) == (0, 1, 1, layer.size)
    assert answer("verify") == (0, {"corrupt": []})
    flip(cache.blobs.path(layer.digest), keep_times=True)
    assert answer("verify") == (1, {"corrupt": [layer.digest]})
    layer = cache.layer(KEY, lambda: made(cache))
    assert answer("prune", "--limit", "0")[1]["files"] == 0
    assert answer("clear") == (0, {"files": 1, "size": layer.size})
    assert answer("info")[1]["layers"] == 0
    assert run(["cache", "info"]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    assert run(["cache", "prune", "--limit", "lots"]) == 2


MEMORY = """
import resource, sys
from pathlib import Path
from builder.oci import tar
from builder.oci.archive import write_archive
from builder.oci.blobs import Blobs
from builder.oci.image import Addendum, Changes, append, empty
from builder.oci.layer import write_layer
from builder.oci.layout import write_layout
here = Path(sys.argv[1])
with (here / "big").open("wb") as file:
    file.truncate(1_000_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layer = write_layer([tar.file("big", here / "big")], Blobs(here))
image = append(empty("linux/amd64"), [Addendum(layer, "x")], Changes(), tar.EPOCH)
write_layout(here / "layout", image)
write_archive(here / "archive.tar", image)
print(layer.unpacked, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_layer_of_a_gigabyte_is_written_in_memory_that_does_not_grow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    unpacked, kibibytes = map(int, done.stdout.split())
    assert unpacked > 10**9
    assert kibibytes < 20_000


def test_blobs_of_a_hundred_thousand_files_are_one_layer(tmp_path: Path) -> None:
    entries = [tar.file(f"opt/app/{n % 100}/{n}", b"x") for n in range(100_000)]
    layer = write_layer(entries, Blobs(tmp_path))
    assert layer.unpacked == (100_000 * 2 + 102) * 512 + 1024
