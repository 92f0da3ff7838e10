"""An environment's layers: which wheels share one, what is made again, and their byte code."""

from __future__ import annotations

import gzip
import importlib.util
import io
import marshal
import sys
import tarfile
from pathlib import Path

import pytest
from plans import distribution
from tiny_wheels import locked, parts, write

from builder.errors import TrainpackError, WheelError
from builder.oci import tar
from builder.oci.cache import Cache
from builder.oci.image import Layer
from builder.plan import Distribution
from builder.wheels import bytecode
from builder.wheels.bytecode import Interpreter, compile_files, find_interpreter
from builder.wheels.download import Downloads
from builder.wheels.environment import Environment
from builder.wheels.layers import MOST_HEAVY_LAYERS, Group, Settings, group_wheels, wheel_layers

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
VENV = Environment("/opt/venv", PYTHON)
HOST = find_interpreter(PYTHON, "no-such-base")
SOURCES = {
    "opt/a/x.py": b"def f():\n    return {'a', 'b', 'c'} | {1.5}\n",
    "opt/a/y.py": b"Y = 'x' in {'x', 'y'}\n",
}


def layers_of(cache: Cache, groups: list[Group], interpreter: Interpreter | None = HOST) -> list[Layer]:
    return wheel_layers(groups, cache, Settings(interpreter, tar.EPOCH, {}, lambda _: None))


def make(cache: Cache, groups: list[Group], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """The digests of the groups' layers, and the wheels that were asked for."""
    asked: list[str] = []
    fetch = Downloads.fetch

    def counted(downloads: Downloads, wheel: Distribution) -> Path:
        asked.append(wheel.name)
        return fetch(downloads, wheel)

    with monkeypatch.context() as patch:
        patch.setattr(Downloads, "fetch", counted)
        return [layer.digest for layer in layers_of(cache, groups)], sorted(asked)


@pytest.fixture
def wheels(tmp_path: Path) -> dict[str, Distribution]:
    return {
        name: locked(
            write(tmp_path, parts({f"{name}/__init__.py": b"VALUE = 1\n" * 99}, name=name), name), name
        )
        for name in ("one", "two", "three")
    }


def test_cuda_comes_first_then_what_is_largest_and_light_wheels_share_the_last_layer() -> None:
    heavy = [
        distribution("scipy", "1", 35_000_000),
        distribution("torch", "2", 700_000_000),
        distribution("nvidia-cublas", "13", 400_000_000),
    ]
    light = [distribution("six", "1", 11_000), distribution("joblib", "1", 300_000)]
    titles = [group.title for group in group_wheels(heavy, light, VENV)]
    assert titles == ["nvidia-cublas 13", "torch 2", "scipy 1", "light wheels"]


def test_the_smallest_of_too_many_heavy_wheels_share_a_layer() -> None:
    heavy = [distribution(f"heavy-{number}", "1", 10_000_000 + number) for number in range(200)]
    groups = group_wheels(heavy, [], VENV)
    assert len(groups) == MOST_HEAVY_LAYERS
    assert sum(len(group.wheels) for group in groups) == 200
    assert max(wheel.size or 0 for wheel in groups[-1].wheels) < min(
        groups[-2].wheels[0].size or 0, 10_000_199
    )


def test_an_environment_without_wheels_has_no_layer_of_them() -> None:
    assert group_wheels([], [], VENV) == []


def test_a_layer_of_no_wheels_is_an_empty_one(tmp_path: Path) -> None:
    (layer,) = layers_of(Cache(tmp_path / "cache"), [Group("nothing", (), VENV)])
    with layer.open() as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
        assert archive.getnames() == []


def test_the_address_of_a_wheel_is_not_part_of_its_layers_key(wheels: dict[str, Distribution]) -> None:
    elsewhere = wheels["one"].model_copy(update={"url": "https://mirror.example.com/one.whl"})
    settings = Settings(HOST, 0, {}, print)
    keys = {settings.key(Group("light", (wheel,), VENV)) for wheel in (wheels["one"], elsewhere)}
    assert len(keys) == 1


def test_layers_are_the_same_with_a_cold_and_a_warm_cache_and_a_kept_one_asks_for_no_wheel(
    tmp_path: Path, wheels: dict[str, Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [Group("one", (wheels["one"],), VENV), Group("light", (wheels["two"], wheels["three"]), VENV)]
    cold = make(Cache(tmp_path / "a"), groups, monkeypatch)
    assert cold[1] == ["one", "three", "two"]
    assert make(Cache(tmp_path / "a"), groups, monkeypatch) == (cold[0], [])
    turned = [groups[0], Group("light", (wheels["three"], wheels["two"]), VENV)]
    assert make(Cache(tmp_path / "b"), turned, monkeypatch)[0] == cold[0]


def test_a_changed_light_wheel_makes_only_the_light_layer_anew(
    tmp_path: Path, wheels: dict[str, Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    before, _ = make(
        cache, [Group("one", (wheels["one"],), VENV), Group("light", (wheels["two"],), VENV)], monkeypatch
    )
    light = Group("light", (wheels["two"], wheels["three"]), VENV)
    after, asked = make(cache, [Group("one", (wheels["one"],), VENV), light], monkeypatch)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert asked == ["three"]  # the other one is packed


def test_byte_code_lies_beside_its_source_and_is_never_checked_against_it(
    tmp_path: Path, wheels: dict[str, Distribution]
) -> None:
    cache = Cache(tmp_path / "cache")
    group = [Group("light", (wheels["one"], wheels["two"]), VENV)]
    (layer,) = layers_of(cache, group)
    with layer.open() as file:
        content = gzip.decompress(file.read())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        folder = f"opt/venv/lib/python{PYTHON}/site-packages/one/__pycache__"
        name = f"{folder}/__init__.{sys.implementation.cache_tag}.pyc"
        names = archive.getnames()
        assert names[names.index(name) - 1] == f"opt/venv/lib/python{PYTHON}/site-packages/one/__init__.py"
        compiled = archive.extractfile(name)
        assert compiled is not None
        made = compiled.read()
    assert made[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(made[4:8], "little") == 0b01
    code = marshal.loads(made[16:])
    assert code.co_filename == f"/opt/venv/lib/python{PYTHON}/site-packages/one/__init__.py"


def test_a_wheel_is_compiled_once_whatever_layers_it_goes_into(
    tmp_path: Path, wheels: dict[str, Distribution]
) -> None:
    assert HOST is not None
    cache = Cache(tmp_path / "cache")
    layers_of(cache, [Group("one", (wheels["one"],), VENV), Group("two", (wheels["two"],), VENV)])
    broken = Interpreter(HOST.identity, ("false",))
    layers_of(cache, [Group("light", (wheels["one"], wheels["two"]), VENV)], interpreter=broken)
    with pytest.raises(TrainpackError, match="while it compiled"):
        layers_of(cache, [Group("light", (wheels["one"], wheels["three"]), VENV)], interpreter=broken)


def test_without_an_interpreter_there_is_no_byte_code(
    tmp_path: Path, wheels: dict[str, Distribution]
) -> None:
    cache = Cache(tmp_path / "cache")
    group = [Group("one", (wheels["one"],), VENV)]
    (layer,) = layers_of(cache, group, interpreter=None)
    with layer.open() as file:
        assert b".pyc" not in gzip.decompress(file.read())


def compiled(sources: dict[str, bytes]) -> dict[str, bytes]:
    assert HOST is not None
    return {made.path: made.content for made in compile_files(sources, sources.__getitem__, PYTHON, HOST)}


def test_byte_code_depends_on_its_sources_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = compiled(SOURCES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled(dict(reversed(SOURCES.items()))) == first
    assert len(first) == 2


@pytest.mark.parametrize("share", ["_FILES_PER_PROCESS", "_BYTES_PER_PROCESS"])
def test_many_files_are_compiled_in_several_processes_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    many = {f"opt/m{number}.py": b"def f(x):\n    return x\n" for number in range(25)}
    whole = compiled(many)
    assert len(whole) == 25
    monkeypatch.setattr(bytecode, share, 10)
    assert set(compiled(many)) == set(whole)


def test_what_is_no_python_of_this_version_has_no_byte_code() -> None:
    broken = {
        "opt/template.py": b"{{ name }} = 1 1\n",
        "opt/bytes.py": b"\xff\xfe",
        "opt/good.py": b"x = 1\n",
    }
    assert [path.rpartition("/")[2].partition(".")[0] for path in compiled(broken)] == ["good"]


def test_an_interpreter_that_fails_is_named() -> None:
    with pytest.raises(TrainpackError, match="cpython-0 ended with 1"):
        compile_files(SOURCES, SOURCES.__getitem__, PYTHON, Interpreter("cpython-0", ("false",)))


def test_no_interpreter_of_another_minor_version_is_taken() -> None:
    assert find_interpreter("3.99", "no-such-base:1") is None


def test_a_wheel_that_is_not_there_ends_the_build_and_names_it(
    tmp_path: Path, wheels: dict[str, Distribution]
) -> None:
    gone = wheels["one"].model_copy(update={"url": "file:///nowhere/one.whl"})
    with pytest.raises(WheelError, match=r"/nowhere/one\.whl"):
        layers_of(Cache(tmp_path / "cache"), [Group("one", (gone,), VENV)])
