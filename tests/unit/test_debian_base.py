"""A base from a mirror to a layer: signatures, hostile packages, what scripts would have done, same bytes."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import debian_mirror
import pytest
from commands import trainpack
from debian_mirror import Archive, SigningKey, ar, deb, member

from builder import bases
from builder.bases.debian import make_image
from builder.bases.debian.certificates import subject_hash
from builder.bases.debian.deb import read_deb
from builder.bases.debian.effects import read_alternatives
from builder.bases.debian.loader_cache import soname
from builder.bases.debian.release import KEYRING, check_release, verify
from builder.errors import BlobError, MirrorError, TrainpackError
from builder.host import apt, tools
from builder.oci.cache import Cache
from builder.oci.image import Image
from builder.plan import Base

AMD64 = "linux/amd64"
SYSTEM_CERTIFICATES = Path("/usr/share/ca-certificates/mozilla")
FOLDER = tarfile.DIRTYPE


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningKey]:
    if not (shutil.which("gpg") and shutil.which("gpgv")):
        if os.environ.get("CI"):
            pytest.fail("gpg and gpgv are missing: run scripts/test-services")
        pytest.skip("gpg and gpgv are missing")
    with debian_mirror.signing_key(tmp_path_factory.mktemp("key")) as made:
        yield made


@pytest.fixture
def mirror(key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """A mirror with the packages of the catalogue, all but empty, and this machine set up to use it."""
    with debian_mirror.archive(tmp_path / "mirror", key) as made:
        for name in bases.find_recipe("cpu", "3.11", AMD64).debian_packages:
            made.add(name, member(f"./usr/share/doc/{name}/copyright", b"free"))
        monkeypatch.setenv(apt.MIRROR, made.url)
        monkeypatch.setenv(KEYRING, str(key.keyring))
        monkeypatch.setenv(tools.CACHE, str(tmp_path / "cache"))
        monkeypatch.setattr(apt, "checks_valid_until", lambda: True)
        # These packages have no interpreter: as on a machine that cannot run Debian's.
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
        yield made


def built(*packages: str, say: Any = lambda line: None) -> Base:
    return bases.build_base("cpu", "3.11", AMD64, "debian", say, packages)


def files(base: Base) -> dict[str, tarfile.TarInfo]:
    with opened(bases.base_image(base)) as layer:
        return {each.name: each for each in layer}


def text(base: Base, path: str) -> str:
    with opened(bases.base_image(base)) as layer:
        content = layer.extractfile(path)
        assert content
        return content.read().decode()


def opened(image: Image) -> tarfile.TarFile:
    (layer,) = image.layers
    with layer.open() as file:
        return tarfile.open(fileobj=io.BytesIO(file.read()))


def test_a_base_is_built_and_found_again_without_any_engine(
    mirror: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    mirror.publish()
    said: list[str] = []
    base = built(say=said.append)
    assert base == bases.resolve_base("cpu", "3.11", AMD64)
    assert (base.source, bases.base_image(base).id) == ("debian", base.image_id)
    assert "no byte code" in said[-1]
    before = len(mirror.requests)
    assert bases.ensure_base("cpu", "3.11", AMD64) == base
    assert len(mirror.requests) == before
    config = bases.base_image(base).document["config"]
    assert (config["User"], config["WorkingDir"], config["Cmd"]) == ("1000:1000", "/workspace", ["python3"])
    assert "LANG=C.UTF-8" in config["Env"]


def test_a_base_whose_bytes_were_damaged_says_so_and_is_made_whole_by_the_next_build(mirror: Archive) -> None:
    mirror.publish()
    base = built()
    (layer,) = bases.base_image(base).layers
    blob = Path(os.environ[tools.CACHE]) / "bases/blobs/sha256" / layer.digest.removeprefix("sha256:")
    times, content = blob.stat(), blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(BlobError, match="corrupt"):
        files(base)
    assert built() == base
    assert "etc/passwd" in files(base)


def test_a_package_is_fetched_once_and_the_next_build_asks_for_releases_alone(mirror: Archive) -> None:
    mirror.publish()
    first = built()
    mirror.requests.clear()
    assert built() == first
    assert {path.rpartition("/")[2] for path in mirror.requests} == {"InRelease"}


def test_the_same_packages_give_the_same_image_in_another_folder_and_for_another_user(
    mirror: Archive, tmp_path: Path
) -> None:
    mirror.add("libgl1", member("./usr/lib/libGL.so.1", b"x" * 3_000_000), member("./opt", type=FOLDER))
    mirror.publish()
    here = built("libgl1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    recipe = bases.find_recipe("cpu", "3.11", AMD64, ["libgl1"])
    there = as_nobody(lambda: make_image(recipe, Cache(elsewhere), lambda line: None).id, elsewhere)
    assert there == here.image_id


def as_nobody(function: Callable[[], str], folder: Path) -> str:
    """What a function returns for another user, where root runs the tests; it writes to `folder` alone."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.umask(0o077)
            if os.getuid() == 0:
                open_to_all(folder)
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, function().encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def open_to_all(folder: Path) -> None:
    folder.chmod(0o777)
    for each in (*folder.parents, *Path(os.environ[KEYRING]).parents):
        if each.is_relative_to(tempfile.gettempdir()) and each != Path(tempfile.gettempdir()):
            each.chmod(0o755)


def test_files_lie_in_one_usr_owned_by_root_with_no_more_rights_than_the_contract_gives(
    mirror: Archive,
) -> None:
    mirror.add(
        "sudo",
        member("./bin", type=FOLDER),
        member("./bin/sudo", b"#!", mode=0o6777, uid=7, gid=7, uname="me"),
        member("./bin/su", type=tarfile.SYMTYPE, linkname="sudo"),
        member("./bin/again", type=tarfile.LNKTYPE, linkname="./bin/sudo"),
        member("./var/tmp", type=FOLDER, mode=0o1777),
        member("./var/run/x", b""),
        member("./usr/share/man/man1/su.1", b"long"),
        member("./usr/share/doc/sudo/README", b"long"),
        member("./usr/share/doc/sudo/copyright", b"free"),
    )
    mirror.publish()
    found = files(built("sudo"))
    sudo = found["usr/bin/sudo"]
    assert (sudo.mode, sudo.uid, sudo.gid, sudo.uname) == (0o755, 0, 0, "")
    assert {each.mtime for each in found.values()} == {bases.load_catalogue().epoch}
    assert (found["bin"].linkname, found["usr/bin/su"].linkname) == ("usr/bin", "sudo")
    assert found["usr/bin/again"].linkname == "usr/bin/sudo"
    assert found["run/x"].isreg()
    assert "usr/share/doc/sudo/copyright" in found
    assert not {"usr/share/man/man1/su.1", "usr/share/doc/sudo/README"} & found.keys()
    writable = {name for name, each in found.items() if not each.issym() and each.mode & 0o7022}
    assert writable == {"workspace"}
    assert found["workspace"].mode == 0o1777


def test_what_installation_would_have_done_is_done(mirror: Archive) -> None:
    script = b"""
        update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\
            --slave /usr/bin/nawk nawk /usr/bin/mawk
    """
    mirror.add("mawk", member("./usr/bin/mawk"), member("./usr/bin/python3"), info={"postinst": script})
    mirror.add("users", member("./usr/share/base-passwd/passwd.master", b"root:*:0:0:root:/root:/bin/bash\n"))
    mirror.add("zone", member("./usr/share/zoneinfo/Etc/UTC", b"TZif"))
    mirror.publish()
    base = built("mawk", "users", "zone")
    found = files(base)
    links = {
        name: found[name].linkname
        for name in ("usr/bin/awk", "usr/bin/nawk", "usr/bin/python", "etc/localtime")
    }
    assert links == {
        "usr/bin/awk": "/usr/bin/mawk",
        "usr/bin/nawk": "/usr/bin/mawk",
        "usr/bin/python": "/usr/bin/python3",
        "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    }
    assert text(base, "etc/passwd").splitlines() == [
        "root:*:0:0:root:/root:/bin/bash",
        "trainpack:x:1000:1000::/workspace:/usr/sbin/nologin",
    ]
    assert {"etc/hosts", "etc/resolv.conf", "tmp", "proc", "etc/ld.so.cache"} <= found.keys()


def test_packages_whose_scripts_may_do_more_are_named(mirror: Archive) -> None:
    mirror.add("daemon", info={"postinst": b"adduser daemon"})
    mirror.publish()
    said: list[str] = []
    built("daemon", say=said.append)
    assert "their installation scripts are not run: daemon" in said


def test_dpkg_finds_every_package_installed(mirror: Archive) -> None:
    info = {"conffiles": b"/etc/lib.conf\n", "md5sums": b"0 etc/lib.conf\n"}
    mirror.add("lib", member("./etc/lib.conf", b"on"), info=info, **{"Multi-Arch": "same", "Depends": "tini"})
    mirror.publish()
    base = built("lib")
    status = {part.splitlines()[0]: part for part in text(base, "var/lib/dpkg/status").split("\n\n")}
    names = {*bases.find_recipe("cpu", "3.11", AMD64).debian_packages, "lib"}
    assert status.keys() == {f"Package: {name}" for name in names}
    assert "Status: install ok installed\nVersion: 1.0\n" in status["Package: lib"]
    assert f"Conffiles:\n /etc/lib.conf {hashlib.md5(b'on').hexdigest()}" in status["Package: lib"]
    assert text(base, "var/lib/dpkg/info/lib:amd64.list") == "/etc/lib.conf\n"
    assert text(base, "var/lib/dpkg/info/lib:amd64.md5sums") == "0 etc/lib.conf\n"


def test_two_packages_with_one_file_are_refused_unless_one_replaces_the_other(mirror: Archive) -> None:
    mirror.add("one", member("./usr/bin/tool", b"1"))
    mirror.add("two", member("./usr/bin/tool", b"2"))
    mirror.add("three", member("./usr/bin/tool", b"3"), Replaces="one")
    mirror.publish()
    with pytest.raises(MirrorError, match="one and two both hold /usr/bin/tool"):
        built("one", "two")
    assert text(built("one", "three"), "usr/bin/tool") == "3"


def fails(match: str, *packages: str) -> TrainpackError:
    with pytest.raises(TrainpackError, match=match) as failed:
        built(*packages)
    assert bases.resolve_base("cpu", "3.11", AMD64, packages).image_id is None
    return failed.value


def test_a_package_with_other_bytes_than_the_index_says_is_refused_and_fetched_anew_once_it_is_right(
    mirror: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.bases.debian.mirror.time.sleep", lambda _: None)
    path = mirror.add("lib")
    mirror.publish()
    right = path.read_bytes()
    path.write_bytes(right[:-1] + b"?")
    assert "lib_1.0.deb" in str(fails("digest", "lib"))
    path.write_bytes(right)
    assert built("lib").image_id


def test_a_changed_index_is_refused(mirror: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.bases.debian.mirror.time.sleep", lambda _: None)
    mirror.publish()
    index = mirror.folder / "dists/bookworm/main/binary-amd64/Packages.xz"
    index.write_bytes(index.read_bytes()[:-4] + b"evil")
    fails("digest")


def test_a_release_that_was_changed_after_it_was_signed_is_refused(mirror: Archive) -> None:
    mirror.publish()
    release = mirror.folder / "dists/bookworm/InRelease"
    release.write_bytes(release.read_bytes().replace(b"Codename", b"CodeName"))
    fails("not signed by a key of Debian's archive")


def test_text_around_the_signed_part_counts_for_nothing(mirror: Archive) -> None:
    signed = mirror.key.sign("Codename: bookworm\n")
    assert verify(signed, "InRelease", os.environ) == b"Codename: bookworm\n"
    try:
        trusted = verify(b"Codename: evil\n\n" + signed + b"\nCodename: evil\n", "InRelease", os.environ)
    except MirrorError:
        return
    assert b"evil" not in trusted


def test_a_release_signed_by_another_key_is_refused(mirror: Archive, tmp_path: Path) -> None:
    with debian_mirror.signing_key(tmp_path / "other") as other:
        mirror.key = other
        mirror.publish()
    assert "debian-archive-keyring" in str(fails("not signed by").remedy)


def test_an_outdated_release_is_refused_unless_apt_is_told_to_take_it(
    mirror: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish(until="Sat, 01 Jan 2022 00:00:00 UTC")
    assert "Check-Valid-Until" in str(fails("valid until Sat, 01 Jan 2022").remedy)
    monkeypatch.setattr(apt, "checks_valid_until", lambda: False)
    assert built().image_id


def test_the_release_of_another_suite_is_refused(mirror: Archive) -> None:
    mirror.publish()
    other = mirror.folder / "dists/bookworm-updates/InRelease"
    shutil.copy(other, mirror.folder / "dists/bookworm/InRelease")
    fails("the release of bookworm-updates, not bookworm")


@pytest.mark.parametrize("moment", ["2022-01-01T00:00:00", "2021-12-31T23:59:59"])
def test_a_release_is_valid_until_its_last_second(moment: str) -> None:
    release = {"Codename": "bookworm", "Valid-Until": "Sat, 01 Jan 2022 00:00:00 UTC"}
    check_release(release, "bookworm", "p", datetime.fromisoformat(moment).replace(tzinfo=UTC))


def test_without_a_keyring_nothing_is_built_and_auto_goes_upstream(
    mirror: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish()
    monkeypatch.setenv(KEYRING, "/nowhere.gpg")
    assert KEYRING in str(fails("no keyring of Debian's archive").remedy)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    said: list[str] = []
    with pytest.raises(TrainpackError):
        bases.build_base("cpu", "3.11", AMD64, say=said.append)
    assert "no keyring" in said[0]


@pytest.mark.parametrize("status", [500, 429])
def test_a_mirror_that_is_busy_is_asked_again_and_one_without_the_file_is_not(
    mirror: Archive, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("builder.bases.debian.mirror.time.sleep", waits.append)
    mirror.publish()
    mirror.broken = {"bookworm/InRelease": status}
    fails(f"the mirror answers {status}")
    assert len(waits) == 3
    mirror.broken = {"bookworm/InRelease": 404}
    fails("the mirror answers 404")
    assert len(waits) == 3


def test_a_release_without_end_is_refused(mirror: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.bases.debian.mirror.time.sleep", lambda _: None)
    mirror.publish()
    (mirror.folder / "dists/bookworm/InRelease").write_bytes(bytes(17 << 20))
    fails("more than 16777216 bytes")


def test_a_mirrors_password_is_not_told(mirror: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.broken = {"InRelease": 404}
    monkeypatch.setenv(apt.MIRROR, mirror.url.replace("//", "//reader:s3cret@"))
    assert "s3cret" not in f"{fails('404')}"


FIELDS = {"Package": "evil", "Version": "1", "Architecture": "amd64"}
HOSTILE = {
    "climbs": [member("./../../etc/passwd", b"x")],
    "absolute": [member("/etc//passwd", b"x")],
    "device": [member("./dev/sda", type=tarfile.BLKTYPE)],
    "pipe": [member("./run/pipe", type=tarfile.FIFOTYPE)],
    "link above the root": [member("./usr/x", type=tarfile.SYMTYPE, linkname="../../../etc")],
    "hard link outside": [member("./usr/x", type=tarfile.LNKTYPE, linkname="../../etc/shadow")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_package_is_refused_and_named(case: str, tmp_path: Path) -> None:
    with pytest.raises(MirrorError) as refused:
        read_deb(io.BytesIO(deb(FIELDS, HOSTILE[case])), "evil", tmp_path)
    assert refused.value.place == "evil"


def test_a_file_below_a_link_is_refused(mirror: Archive) -> None:
    mirror.add("one", member("./usr/share/x", type=tarfile.SYMTYPE, linkname="/etc"))
    mirror.add("two", member("./usr/share/x/passwd", b"x"))
    mirror.publish()
    fails("below a link", "one", "two")


WHOLE = deb(FIELDS, [member("./usr/bin/x", b"x" * 5000)])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"!<arch>\n",
        b"not an archive",
        WHOLE[:100],
        WHOLE[:-60],
        WHOLE.replace(b"debian-binary", b"debian-binarx"),
        WHOLE.replace(b"2.0\n", b"3.0\n"),
        WHOLE.replace(b"data.tar.xz ", b"data.tar.zst"),
        WHOLE.replace(b"data.tar.xz", b"meta.tar.xz"),
        WHOLE[:-40] + bytes(40),
        ar({"debian-binary": b"2.0\n", "control.tar": b"", "data.tar": b""}),
    ],
    ids=range(11),
)
def test_what_is_no_package_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(MirrorError):
        read_deb(io.BytesIO(content), "x", tmp_path)


def test_alternatives_are_read_where_a_script_spells_them_out() -> None:
    script = """
    update-alternatives --install /usr/bin/a a /bin/one 10 # comment
    update-alternatives --install "$link" a /bin/two 20
    update-alternatives --install /usr/bin/b b /usr/bin/three ten
    update-alternatives --remove a /bin/one
    """
    assert list(read_alternatives(script)) == [(10, {"usr/bin/a": "usr/bin/one"})]


@pytest.mark.skipif(not (SYSTEM_CERTIFICATES.is_dir() and shutil.which("openssl")), reason="needs openssl")
def test_certificates_have_the_hashes_that_openssl_gives_them() -> None:
    for path in sorted(SYSTEM_CERTIFICATES.glob("*.crt")):
        command = ["openssl", "x509", "-hash", "-noout", "-in", str(path)]
        expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert (path.name, subject_hash(path.read_bytes())) == (path.name, expected)


@pytest.mark.parametrize("cut", [0, 5, 20, 63, 64, 200, 1000])
def test_a_library_that_is_cut_off_has_no_name_or_says_so(cut: int) -> None:
    library = next(Path("/lib").glob("*-linux-gnu/libz.so.1"), None)
    if library is None:
        pytest.skip("no library of the machine's to read")
    content = library.read_bytes()
    machine = int.from_bytes(content[18:20], "little")
    assert soname(content, machine) == "libz.so.1"
    assert soname(content, machine + 1) is None
    try:
        assert soname(content[:cut], machine) is None
    except (struct.error, StopIteration, ValueError, IndexError):
        # What ldconfig passes over, and the cache with it.
        return


def test_the_command_refuses_what_is_no_package_name(tmp_path: Path) -> None:
    ended = trainpack(tmp_path, "base", "build", "cpu", "--package=-o=evil")
    assert (ended.code, "'-o=evil' is not a Debian package's name" in ended.stderr) == (2, True)
