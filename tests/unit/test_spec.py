"""`trainpack.toml`: what is accepted, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import SPEC

from builder.errors import SpecError
from builder.places import Place, parse_place
from builder.spec import load_spec, own_base, parse_spec

MINIMAL = '[image]\nname = "registry.example.com/a/b"\n[run]\nscript = "train.py"\n'


def error_of(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert caught.value.exit_code == 2
    return caught.value


def told(text: str) -> str:
    error = error_of(text)
    return "\n".join([str(error), *error.details, error.remedy or ""])


def test_the_smallest_spec_has_the_documented_defaults() -> None:
    spec = parse_spec(MINIMAL)
    assert (spec.image.python, spec.image.platform, spec.image.base) == ("3.11", "linux/amd64", "auto")
    assert (spec.run.arguments, spec.run.pass_token, spec.labelmap) == ("argv", True, None)


@pytest.mark.parametrize(
    ("base", "place"),
    [
        ("auto", None),
        ("cpu", None),
        ("registry.example.com/team/base:1.2", Place("registry", "registry.example.com/team/base:1.2")),
        (f"team/base@sha256:{'0' * 64}", Place("registry", f"team/base@sha256:{'0' * 64}")),
        ("oci:bases", Place("oci", "bases")),
        ("oci:../bases/cpu:1.2", Place("oci", "../bases/cpu", "1.2")),
        ("oci:a:b/c", Place("oci", "a:b/c")),
        ("archive:base:1.tar", Place("archive", "base:1.tar")),
        ("engine:team/base:1", Place("engine", "team/base:1")),
    ],
)
def test_a_base_is_of_the_catalogue_or_in_a_place_whose_text_is_read_back(
    base: str, place: Place | None
) -> None:
    image = parse_spec(MINIMAL.replace("[run]", f'base = "{base}"\n[run]')).image
    assert own_base(image.base) == place
    assert place is None or parse_place(str(place)) == place


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("registry.example.com/team/base", "neither tag nor digest"),
        ("engine:team/base", "neither tag nor digest"),
        ("Registry/Team:1", "'Registry/Team' is not a valid image name"),
        ("https://user:secret@registry.example.com/base:1", "***@registry.example.com"),
        ("oci:", "'oci:', expected"),
        ("archive:", "'archive:', expected"),
        ("a\\nb", "control character"),
    ],
)
def test_a_base_that_can_be_nowhere_is_told_with_the_forms_that_there_are(base: str, said: str) -> None:
    message = told(MINIMAL.replace("[run]", f'base = "{base}"\n[run]'))
    assert "trainpack.toml:3: image.base: " in message
    assert said in message
    assert "secret" not in message
    assert "control" in said or "oci:DIR[:TAG]" in message


def test_system_packages_are_not_added_to_a_base_of_the_users_own() -> None:
    message = told(MINIMAL.replace("[run]", 'base = "oci:bases"\nsystem-packages = ["libgl1"]\n[run]'))
    assert "trainpack base build --package libgl1" in message


def test_flags_of_any_spelling_become_canonical() -> None:
    assert parse_spec(SPEC).run.flags == ("--gpus=all", "--ipc=host")


def test_a_parameter_has_a_short_and_a_long_form() -> None:
    parameters = parse_spec(SPEC).parameters
    assert parameters["epochs"].parameter("epochs").type == "int"
    assert parameters["learning_rate"].parameter("learning_rate").gt == 0


def test_a_float_parameter_takes_an_int_default() -> None:
    text = MINIMAL + '[parameters]\nrate = { default = 1, type = "float" }\n'
    assert parse_spec(text).parameters["rate"].parameter("rate").default == 1.0


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no trainpack\.toml") as caught:
        load_spec(tmp_path)
    assert "trainpack wrap" in (caught.value.remedy or "")


def test_a_syntax_error_has_line_and_column() -> None:
    assert "at line 2, column" in told("[image]\nname = \n")


def test_an_unknown_key_is_told_with_its_line_and_the_nearest_known_one() -> None:
    message = told(MINIMAL.replace("script", "scirpt"))
    assert 'trainpack.toml:4: unknown key run.scirpt; did you mean "script"?' in message


def test_an_unknown_table_and_an_unknown_key_of_a_parameter_too() -> None:
    assert 'unknown key imgae; did you mean "image"?' in told(MINIMAL.replace("[image]", "[imgae]"))
    long = MINIMAL + "[parameters]\nepochs = { default = 1, maximum = 3 }\n"
    assert "unknown key parameters.epochs.maximum" in told(long)


def test_all_problems_are_told_at_once() -> None:
    error = error_of(MINIMAL.replace("registry.example.com/a/b", "Not Valid") + 'flags = ["--privileged"]\n')
    assert len(error.details) == 2


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("epochs = { default = 0, gt = 0 }", "0 is out of bounds: it must be > 0"),
        ('epochs = { default = "ten", type = "int" }', '"ten" is not an int'),
        ("epochs = { default = 10, le = 5 }", "it must be <= 5"),
        ('net = { default = "a", choices = ["b", "c"] }', '"a" is not one of "b", "c"'),
        ('epochs = { default = 1, type = "integer" }', "'integer' is not a type"),
        ("epochs = { default = 1, required = true }", "a required parameter has no default"),
        ('"bad name" = 1', "'bad name' is not a parameter's name"),
    ],
)
def test_a_bad_parameter_is_named_with_its_value(entry: str, expected: str) -> None:
    assert expected in told(f"{MINIMAL}[parameters]\n{entry}\n")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("0 = 3", "the name of 0, 3, is not a non-empty string"),
        ('0 = "car"\n1 = "car"', 'the name "car" stands at both 0 and 1'),
        ('car = "0"', 'the index "car" is not a whole number'),
    ],
)
def test_a_bad_labelmap_is_refused(entries: str, expected: str) -> None:
    assert expected in told(f"{MINIMAL}[labelmap]\n{entries}\n")


@pytest.mark.parametrize(
    "name", ["Registry/a", "a:1.0", "a b", "/a", "a//b", "", "a@sha256:00", "-a", "a" * 300]
)
def test_an_image_name_that_is_no_reference_is_refused(name: str) -> None:
    assert "is not a valid image name" in told(MINIMAL.replace("registry.example.com/a/b", name))


@pytest.mark.parametrize("version", ["latest", "1.0+cpu", "", "a b", ".1"])
def test_a_version_that_no_tag_can_hold_is_refused(version: str) -> None:
    text = MINIMAL.replace('a/b"', f'a/b"\nversion = "{version}"')
    assert "image.version" in told(text)


@pytest.mark.parametrize("path", ["/etc/passwd", "../train.py", "a/../../b.py"])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    assert "is not a path inside the folder" in told(MINIMAL.replace("train.py", path))


def test_datasets_must_lie_apart_and_have_plain_aliases() -> None:
    assert "must lie apart" in told(MINIMAL + '[data]\nall = "data"\ntrain = "data/train"\n')
    assert "is not a dataset's alias" in told(MINIMAL + '[data]\n"a/b" = "data"\n')


def test_script_and_module_exclude_each_other() -> None:
    assert "either script or module" in told(MINIMAL + 'module = "pkg.train"\n')


def test_a_missing_script_and_a_folder_are_different_errors(tmp_path: Path) -> None:
    (tmp_path / "trainpack.toml").write_text(MINIMAL, encoding="utf-8")
    with pytest.raises(SpecError, match="does not exist"):
        load_spec(tmp_path)
    (tmp_path / "train.py").mkdir()
    with pytest.raises(SpecError, match="is not a file"):
        load_spec(tmp_path)


def test_a_module_may_be_a_package_with_a_main(tmp_path: Path) -> None:
    text = MINIMAL.replace('script = "train.py"', 'module = "pkg.train"')
    (tmp_path / "trainpack.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"pkg\.train"):
        load_spec(tmp_path)
    (tmp_path / "pkg/train").mkdir(parents=True)
    (tmp_path / "pkg/train/__main__.py").touch()
    assert load_spec(tmp_path).run.module == "pkg.train"
