"""The write side of the registry client: what it sends, what it saves, and what it does when things fail."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import oci_images
import pytest
from hostile_registry import Fault, HostileRegistry, error, hostile_registry

from builder.errors import BlobError, RegistryDeniedError, RegistryError, RegistryUnavailableError, UsageError
from builder.oci.artifact import Artifact
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.image import Image, Index
from builder.oci.remote import push as pushing
from builder.oci.remote import transport
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import Push, push
from builder.oci.remote.referrers import attach, referrers
from builder.reference import Reference, parse_reference

PIECE = 64_000


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with hostile_registry() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(transport, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(pushing, "PIECE_BYTES", PIECE)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A small layer, and one that goes in several pieces."""
    return oci_images.image(Blobs(tmp_path / "blobs"), b"small", oci_images.noise(5 * PIECE))


def target(registry: HostileRegistry, name: str = "team/app:1") -> Reference:
    return parse_reference(f"{registry.address}/{name}")


def fail_once(method: str, pattern: str, fault: Fault) -> Callable[[str, str, int], Fault | None]:
    left = [fault]

    def judge(met: str, path: str, number: int) -> Fault | None:
        return left.pop() if left and met == method and pattern in path else None

    return judge


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def has(registry: HostileRegistry, image: Image, tag: str = "1") -> bool:
    """Whether the tag leads to the image, with every blob whole."""
    blobs = registry.blobs["team/app"]
    whole = all(len(blobs.get(layer.digest, b"")) == layer.size for layer in image.layers)
    found = registry.manifests["team/app"].get(tag, ("", b""))[1]
    return whole and found == image.manifest and blobs.get(image.id) == image.config


def test_a_first_push_sends_every_blob_once_and_counts_the_bytes(
    registry: HostileRegistry, image: Image
) -> None:
    done = push(image, target(registry))
    total = sum(layer.size for layer in image.layers) + len(image.config) + len(image.manifest)
    assert has(registry, image)
    assert (done.digest, done.sent, done.uploaded, done.existing) == (image.digest, total, 3, 0)
    assert registry.received == total
    assert done.requests == len(registry.asked)


def test_a_push_of_what_is_there_is_one_request(registry: HostileRegistry, image: Image) -> None:
    push(image, target(registry))
    registry.asked.clear()
    done = push(image, target(registry))
    assert (done.sent, done.requests, len(registry.asked)) == (0, 1, 1)


def test_the_tag_is_written_when_everything_else_is_there(registry: HostileRegistry, image: Image) -> None:
    push(image, target(registry))
    assert registry.asked[-1] == ("PUT", "/v2/team/app/manifests/1")


def test_layers_go_ahead_of_their_image_and_are_sent_once(registry: HostileRegistry, image: Image) -> None:
    with Push(target(registry)) as started:
        started.start(image.layers[:1])
        wait_for(lambda: image.layers[0].digest in registry.blobs.get("team/app", {}))
        assert registry.manifests.get("team/app", {}) == {}
        done = started.finish(image)
    assert has(registry, image)
    assert (done.uploaded, done.existing, registry.received) == (3, 0, done.sent)


def test_layers_that_went_ahead_are_not_counted_among_those_of_the_image_before(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    push(image, target(registry))
    edited = oci_images.image(Blobs(tmp_path / "blobs"), b"edit", base=image)
    with Push(target(registry, "team/app:2")) as started:
        started.start(edited.layers[-1:])
        done = started.finish(edited, like=image.digest)
    assert (done.uploaded, done.existing) == (2, 2)


def test_what_went_wrong_with_a_layer_sent_ahead_is_told_at_the_end_and_leaves_no_tag(
    registry: HostileRegistry, image: Image
) -> None:
    registry.judge = lambda method, path, number: Fault(status=403) if method == "POST" else None
    with Push(target(registry)) as started:
        started.start(image.layers)
        with pytest.raises(RegistryDeniedError):
            started.finish(image)
    assert registry.manifests.get("team/app", {}) == {}


def test_a_build_that_fails_stops_the_layers_that_went_ahead_and_leaves_no_tag(
    registry: HostileRegistry, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "PIECE_BYTES", 1000)

    def fail() -> None:
        with Push(target(registry)) as started:
            started.start(image.layers)
            wait_for(lambda: registry.count("PATCH") > 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert registry.manifests.get("team/app", {}) == {}
    # Only what was on its way by then still comes.
    wait_for(lambda: not any(thread.name.startswith("push") for thread in threading.enumerate()))
    assert registry.count("PATCH") < 300


def test_a_build_that_fails_does_not_wait_for_a_registry_that_wants_patience(
    registry: HostileRegistry, image: Image
) -> None:
    registry.judge = lambda *_: Fault(status=429, headers={"Retry-After": "100"})

    def fail() -> None:
        with Push(target(registry)) as started:
            started.start(image.layers)
            wait_for(lambda: len(registry.asked) == len(image.layers))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    wait_for(lambda: not any(thread.name.startswith("push") for thread in threading.enumerate()))


def test_a_changed_layer_is_all_that_the_next_push_sends(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    push(image, target(registry))
    edited = oci_images.image(Blobs(tmp_path / "blobs"), b"edit", base=image)
    done = push(edited, target(registry, "team/app:2"))
    assert (done.uploaded, done.existing) == (2, 2)
    assert done.sent == edited.layers[-1].size + len(edited.config) + len(edited.manifest)


def test_layers_of_a_base_in_the_same_registry_are_mounted_and_never_opened(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    base = target(registry, "team/base:1")
    push(image, base)
    pulled = RegistryClient(base).image(Cache(tmp_path / "cache"))
    ours = oci_images.image(Blobs(tmp_path / "blobs"), b"code", base=pulled)
    done = push(ours, target(registry))
    assert (done.mounted, done.uploaded) == (2, 2)
    assert has(registry, ours)
    assert registry.count("GET", "blobs/sha256") == 1  # the base's config
    assert Cache(tmp_path / "cache").info().blobs == 2  # the same, and the manifest


def test_the_layers_of_a_base_in_another_registry_pass_through_and_nothing_is_mounted(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    with hostile_registry() as elsewhere:
        base = target(elsewhere, "team/base:1")
        push(image, base)
        pulled = RegistryClient(base).image(Cache(tmp_path / "cache"))
        done = push(pulled, target(registry))
        assert elsewhere.count("GET", "blobs/sha256") == 3
    assert (done.mounted, done.uploaded) == (0, 3)
    assert has(registry, image)
    assert registry.count("POST", "mount=") == 0


def from_repository(path: str, registry: HostileRegistry, image: Image) -> Image:
    layers = (replace(layer, repository=(registry.address, path)) for layer in image.layers)
    return replace(image, layers=tuple(layers))


def test_a_registry_that_cannot_mount_gets_the_bytes(registry: HostileRegistry, image: Image) -> None:
    done = push(from_repository("no/such", registry, image), target(registry))
    assert registry.count("POST", "mount=") == 2
    assert (done.mounted, done.uploaded) == (0, 3)
    assert has(registry, image)


def test_a_denied_mount_is_no_reason_to_fail(registry: HostileRegistry, image: Image) -> None:
    registry.judge = lambda method, path, number: Fault(status=403) if "mount=" in path else None
    done = push(from_repository("secret/base", registry, image), target(registry))
    assert done.uploaded == 3


def test_an_index_is_pushed_with_the_images_of_all_platforms(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    other = oci_images.image(Blobs(tmp_path / "blobs"), b"other")
    index = Index((image, other))
    assert push(index, target(registry)).digest == index.digest
    assert set(registry.manifests["team/app"]) == {"1", index.digest, image.digest, other.digest}


def test_a_push_without_a_tag_is_refused(image: Image) -> None:
    with pytest.raises(UsageError, match="needs a tag"):
        push(image, Reference("127.0.0.1:1/a/b"))


PASSING = [
    ("500 when an upload is started", "POST", "uploads", Fault(status=500)),
    ("500 in the middle of an upload", "PATCH", "uploads", Fault(status=500)),
    ("500 when a blob is finished", "PUT", "uploads", Fault(status=500)),
    ("429 when a blob is asked for", "HEAD", "blobs", Fault(status=429, headers={"Retry-After": "0"})),
    ("429 in the middle of an upload", "PATCH", "uploads", Fault(status=429, headers={"Retry-After": "0"})),
    ("503 for the manifest", "PUT", "manifests", Fault(status=503)),
    ("a cut before the first byte", "PATCH", "uploads", Fault(cut_after=0)),
    ("a cut in the middle", "PATCH", "uploads", Fault(cut_after=PIECE // 2)),
    ("a cut in a small blob", "PUT", "uploads", Fault(cut_after=10)),
    ("a lost answer to a piece", "PATCH", "uploads", Fault(lost=True)),
    ("a lost answer to the end of a blob", "PUT", "uploads", Fault(lost=True)),
    ("a lost answer to the manifest", "PUT", "manifests", Fault(lost=True)),
    ("an upload that is forgotten", "PATCH", "uploads", Fault(status=404)),
]


@pytest.mark.parametrize(
    ("method", "path", "fault"), [each[1:] for each in PASSING], ids=[e[0] for e in PASSING]
)
def test_a_push_goes_on_after_what_passes(
    registry: HostileRegistry, image: Image, method: str, path: str, fault: Fault
) -> None:
    registry.judge = fail_once(method, path, fault)
    push(image, target(registry))
    assert has(registry, image)


def test_after_a_cut_only_the_rest_is_sent(registry: HostileRegistry, image: Image) -> None:
    registry.judge = fail_once("PATCH", "uploads", Fault(cut_after=PIECE - 1000))
    push(image, target(registry))
    total = sum(layer.size for layer in image.layers) + len(image.config) + len(image.manifest)
    assert registry.received <= total + 1000


def test_a_blob_whose_last_answer_was_lost_is_not_sent_again(registry: HostileRegistry, image: Image) -> None:
    registry.judge = fail_once("PUT", "uploads", Fault(lost=True))
    push(image, target(registry))
    total = sum(layer.size for layer in image.layers) + len(image.config) + len(image.manifest)
    assert registry.received == total


@pytest.mark.parametrize("with_api", [True, False])
def test_documents_that_belong_to_an_image_are_found_by_its_digest(
    registry: HostileRegistry, image: Image, with_api: bool
) -> None:
    registry.referrers = with_api
    push(image, target(registry))
    assert referrers(target(registry), image.digest) == ()
    for contents in ([b"{}"], [b"{}", b"[]"], [b"[]"]):
        attach(target(registry), image.digest, [Artifact("text/plain", content) for content in contents])
    assert len(referrers(target(registry), image.digest)) == 2
    assert has(registry, image)


@pytest.mark.parametrize("seed", range(10))
def test_connections_cut_at_random_bytes_end_in_the_same_image(
    registry: HostileRegistry, image: Image, seed: int
) -> None:
    chance = random.Random(seed)

    def judge(method: str, path: str, number: int) -> Fault | None:
        hit = method in ("PUT", "PATCH") and chance.random() < 0.3
        return Fault(cut_after=chance.randrange(PIECE)) if hit else None

    registry.judge = judge
    push(image, target(registry))
    assert has(registry, image)


def test_retry_after_decides_how_long_we_wait(
    registry: HostileRegistry, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(transport.Transport, "sleep", lambda _, seconds: waited.append(seconds))
    registry.judge = fail_once("HEAD", "manifests", Fault(status=429, headers={"Retry-After": "7"}))
    push(image, target(registry))
    assert waited == [7.0]


def test_a_registry_that_wants_an_hour_is_told_of_at_once(registry: HostileRegistry, image: Image) -> None:
    registry.judge = lambda *_: Fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(RegistryUnavailableError, match="429"):
        push(image, target(registry))
    assert len(registry.asked) == 1


LASTING = [
    ("500 for ever", "PATCH", "uploads", Fault(status=500), "500"),
    ("no space left", "PATCH", "uploads", Fault(status=507), "no space left"),
    (
        "no space left, told as 500",
        "PUT",
        "uploads",
        Fault(status=500, body=error("UNKNOWN", detail="write /x: no space left on device")),
        "no space left on device",
    ),
    ("no rights", "POST", "uploads", Fault(status=403, body=error("DENIED")), "denies access: 403"),
    (
        "a manifest that is refused",
        "PUT",
        "manifests",
        Fault(status=400, body=error("MANIFEST_INVALID", detail="too many layers")),
        "refuses the manifest: 400 .*MANIFEST_INVALID.*too many layers",
    ),
    ("a manifest that is too large", "PUT", "manifests", Fault(status=413), "refuses the manifest: 413"),
    (
        "a digest of its own",
        "PUT",
        "uploads",
        Fault(changes={"Docker-Content-Digest": "sha256:1"}),
        "sha256:1",
    ),
    (
        "an upload address without TLS",
        "POST",
        "",
        Fault(changes={"Location": "http://x.example.com/u"}),
        "https",
    ),
    ("every connection cut", "PATCH", "uploads", Fault(cut_after=0), "does not answer"),
]


@pytest.mark.parametrize(
    ("method", "path", "fault", "message"), [each[1:] for each in LASTING], ids=[each[0] for each in LASTING]
)
def test_what_lasts_is_a_clear_error_and_leaves_no_tag(
    registry: HostileRegistry, image: Image, method: str, path: str, fault: Fault, message: str
) -> None:
    registry.judge = lambda met, where, number: fault if met == method and path in where else None
    with pytest.raises(RegistryError, match=message) as caught:
        push(image, target(registry))
    assert registry.manifests.get("team/app", {}) == {}
    assert str(target(registry)) in str(caught.value)
    registry.judge = lambda *_: None
    push(image, target(registry))
    assert has(registry, image)


def test_an_error_is_told_without_waiting_for_what_else_is_being_sent(
    registry: HostileRegistry, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "PIECE_BYTES", 1000)
    refused = threading.Event()

    def judge(method: str, path: str, number: int) -> Fault | None:
        if method == "PATCH" and not refused.is_set():
            refused.set()
            return None
        return Fault(status=403) if method == "PUT" else None

    registry.judge = judge
    with pytest.raises(RegistryDeniedError):
        push(image, target(registry))
    assert registry.count("PATCH") < 300


def test_the_try_after_a_failed_push_sends_only_what_is_missing(
    registry: HostileRegistry, image: Image
) -> None:
    registry.judge = fail_once("PUT", "manifests", Fault(status=400))
    with pytest.raises(RegistryError):
        push(image, target(registry))
    registry.judge = lambda *_: None
    done = push(image, target(registry))
    assert (done.existing, done.uploaded, done.sent) == (3, 0, len(image.manifest))


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_token_that_expires_half_way_is_renewed(
    registry: HostileRegistry, image: Image, uses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Real tokens end with time, not with their use by another thread.
    monkeypatch.setattr(pushing, "UPLOADS_AT_ONCE", 1)
    registry.token_uses = uses
    push(image, target(registry))
    assert has(registry, image)
    assert len(registry.scopes) > 2


def test_a_layer_sent_ahead_is_mounted_too(registry: HostileRegistry, image: Image) -> None:
    push(image, target(registry, "team/base:1"))
    registry.token_uses = 1000
    based = from_repository("team/base", registry, image)
    with Push(target(registry)) as started:
        started.start(based.layers)
        done = started.finish(based)
    assert (done.mounted, done.uploaded) == (2, 1)
    assert has(registry, image)


def test_the_token_is_asked_for_with_the_scopes_of_push_and_mount(
    registry: HostileRegistry, image: Image
) -> None:
    registry.token_uses = 1000
    push(from_repository("team/base", registry, image), target(registry))
    assert len(registry.scopes) == 1
    assert {"repository:team/app:pull,push", "repository:team/base:pull"} <= set(registry.scopes[0])


def test_a_corrupt_blob_is_never_finished_and_is_made_anew_next_time(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    path = Blobs(tmp_path / "blobs").path(image.layers[1].digest)
    content = bytearray(path.read_bytes())
    content[PIECE * 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(BlobError, match="corrupt"):
        push(image, target(registry))
    assert registry.manifests.get("team/app", {}) == {}
    assert not path.exists()


def test_a_pulled_image_is_the_one_that_was_pushed(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    push(image, target(registry))
    pulled = RegistryClient(target(registry)).image(Cache(tmp_path / "cache"))
    assert (pulled.digest, pulled.id) == (image.digest, image.id)
    with pulled.layers[1].open() as ours, image.layers[1].open() as theirs:
        assert ours.read() == theirs.read()


@pytest.mark.parametrize("seed", range(5))
def test_a_download_goes_on_where_it_was_cut(
    registry: HostileRegistry, image: Image, tmp_path: Path, seed: int
) -> None:
    push(image, target(registry))
    pulled = RegistryClient(target(registry)).image(Cache(tmp_path / "cache"))
    registry.asked.clear()
    chance = random.Random(seed)
    registry.judge = lambda method, path, number: (
        Fault(cut_after=chance.randrange(1000, 2 * PIECE)) if number < 4 else None
    )
    with pulled.layers[1].open() as layer:
        assert len(layer.read()) == pulled.layers[1].size
    assert registry.count("GET", "blobs") > 1


def test_a_layer_of_other_bytes_is_refused_and_not_kept(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    push(image, target(registry))
    cache = Cache(tmp_path / "cache")
    pulled = RegistryClient(target(registry)).image(cache)
    digest = image.layers[0].digest
    blobs = registry.blobs["team/app"]
    blobs[digest] = blobs[digest][:-1] + b"x"
    with pytest.raises(RegistryError, match="digest"), pulled.layers[0].open():
        pass
    blobs[digest] += b"more"
    with pytest.raises(RegistryError, match="more than"), pulled.layers[0].open():
        pass
    assert not cache.blobs.has(digest, image.layers[0].size)


def test_a_base_without_a_layer_and_one_for_another_platform_are_clear_errors(
    registry: HostileRegistry, image: Image, tmp_path: Path
) -> None:
    push(image, target(registry))
    del registry.blobs["team/app"][image.layers[0].digest]
    pulled = RegistryClient(target(registry)).image(Cache(tmp_path / "cache"))
    with pytest.raises(RegistryError, match=image.layers[0].digest), pulled.layers[0].open():
        pass
    with pytest.raises(RegistryError, match="not for linux/arm64, only for linux/amd64"):
        RegistryClient(target(registry), "linux/arm64").image(Cache(tmp_path / "cache"))


def test_denied_access_names_the_login_command(registry: HostileRegistry, image: Image) -> None:
    registry.judge = lambda *_: Fault(status=403)
    with pytest.raises(RegistryDeniedError) as caught:
        push(image, target(registry))
    assert f"docker login {registry.address}" in str(caught.value.remedy)
