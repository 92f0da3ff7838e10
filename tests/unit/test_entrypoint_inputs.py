"""The entrypoint as a process: what the script receives, and what is refused before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from container_root import ContainerRoot
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from trainpack_entrypoint.manifest import Run
from trainpack_entrypoint.schema import Parameter
from trainpack_entrypoint.script.command import override

SHOW = """
    import json, os, sys
    from pathlib import Path
    given = json.loads(Path(os.environ["TRAINPACK_PARAMETERS"]).read_text())
    labelmap = Path(os.environ["TRAINPACK_LABELMAP"])
    print(json.dumps({
        "argv": sys.argv[1:], "parameters": given, "cwd": os.getcwd(), "env": dict(os.environ),
        "labelmap": json.loads(labelmap.read_text()) if labelmap.exists() else None,
    }))
"""
EPOCHS = Parameter("epochs", type="int", default=10, ge=1)
RATE = Parameter("learning_rate", type="float", default=0.001, gt=0)


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    container = ContainerRoot(tmp_path)
    container.script(SHOW)
    return container


def shown(container: ContainerRoot, *arguments: str, **env: str) -> dict[str, Any]:
    ended = container.run(*arguments, env=env)
    assert ended.code == 0, ended.told
    document = json.loads(ended.stdout)
    assert isinstance(document, dict)
    return document


def test_an_argparse_script_receives_every_value_from_the_strongest_source(container: ContainerRoot) -> None:
    container.script("""
        import argparse
        parser = argparse.ArgumentParser()
        for name in ("set", "mounted", "version", "baked"):
            parser.add_argument("--" + name, type=int, required=True)
        print(vars(parser.parse_args()))
    """)
    names = ("set", "mounted", "version", "baked")
    container.bake(parameters=[Parameter(name, type="int", default=1) for name in names])
    path = container.mount("parameters.json", {"set": 2, "mounted": 2})
    version = {"name": "detector/v3", "parameters": {"set": 3, "mounted": 3, "version": 3}}
    container.mount("model-version.json", version)

    ended = container.run(env={"TRAINPACK_SET_set": "4"})

    assert ended.stdout == b"{'set': 4, 'mounted': 2, 'version': 3, 'baked': 1}\n"
    assert ended.result["parameters"] == {
        "set": {"value": 4, "source": "TRAINPACK_SET_set"},
        "mounted": {"value": 2, "source": path},
        "version": {"value": 3, "source": "ModelVersion detector/v3"},
        "baked": {"value": 1, "source": "image default"},
    }
    assert ended.result["command"][1:] == ["train.py", *"--set 4 --mounted 2 --version 3 --baked 1".split()]


@pytest.mark.parametrize(
    ("parameter", "text", "argv"),
    [
        (Parameter("flag", type="bool", default=False), "true", ["--flag"]),
        (Parameter("flag", type="bool", default=True), "false", []),
        (Parameter("aug", type="bool", default=True, argument_false="--no-aug"), "false", ["--no-aug"]),
        (Parameter("aug", type="bool", default=True, argument_false="--no-aug"), "true", []),
        (
            Parameter("aug", type="bool", default=False, argument="--aug", argument_false="--no-aug"),
            "true",
            ["--aug"],
        ),
        (Parameter("seed", type="int", optional=True), "null", []),
        (Parameter("size", type="list[int]", default=[1]), "[2, 3]", ["--size", "2", "3"]),
        (Parameter("size", type="list[int]", default=[1]), "[]", ["--size"]),
        (Parameter("size", type="list[int]", default=[]), "[]", []),
        (Parameter("names", type="list[str]", default=[]), "a, b", ["--names", "a", "b"]),
        (Parameter("batch", type="int", default=8, argument="-b"), "4", ["-b", "4"]),
        (Parameter("model", type="dict", default={}), '{"depth": 3}', []),
        (Parameter("name", type="str", default=""), "123", ["--name", "123"]),
        (Parameter("name", type="str", default=""), "--x y", ["--name=--x y"]),
        (Parameter("rate", type="float", default=1.0), "1e-5", ["--rate", "1e-05"]),
        (Parameter("shift", type="int", default=0), "-3", ["--shift=-3"]),
        (Parameter("free", default=None), '{"a": 1}', []),
        (Parameter("free", default=None), "plain text", ["--free", "plain text"]),
    ],
)
def test_a_value_becomes_the_arguments_of_the_contract(
    container: ContainerRoot, parameter: Parameter, text: str, argv: list[str]
) -> None:
    container.bake(parameters=[parameter])
    assert shown(container, **{f"TRAINPACK_SET_{parameter.name}": text})["argv"] == argv


@pytest.mark.parametrize(
    ("parameter", "text", "words"),
    [
        (Parameter("epochs", type="int", default=1), "3", ["epochs=3"]),
        (
            Parameter("lr", type="float", default=1.0, argument="++optimizer.lr"),
            "1e-5",
            ["++optimizer.lr=1e-05"],
        ),
        (Parameter("flag", type="bool", default=True), "false", ["flag=false"]),
        (Parameter("seed", type="int", optional=True), "null", []),
        (Parameter("sizes", type="list[int]", default=[]), "[2, 3]", ["sizes=[2,3]"]),
        (Parameter("model", type="dict", default={}), '{"depth": 3}', []),
        (Parameter("name", type="str", default=""), "resnet-18", ["name=resnet-18"]),
        (Parameter("name", type="str", default=""), "null", ['name="null"']),
        (Parameter("name", type="str", default=""), 'a "b", c\\', ['name="a \\"b\\", c\\\\"']),
    ],
)
def test_a_value_becomes_an_override(
    container: ContainerRoot, parameter: Parameter, text: str, words: list[str]
) -> None:
    container.bake(parameters=[parameter], run=Run(script="train.py", arguments="overrides"))
    assert shown(container, **{f"TRAINPACK_SET_{parameter.name}": text})["argv"] == words


_PLAIN = st.text() | st.text('"\\\\a ${},[]') | st.booleans() | st.integers() | st.floats(allow_nan=False)


@given(_PLAIN | st.lists(st.text()) | st.lists(st.integers()))
def test_hydra_reads_the_value_that_was_given(value: Any) -> None:
    [word] = override(Parameter("p"), value)
    assert _plain(OverridesParser.create().parse_override(word).value()) == value


def _plain(read: Any) -> Any:
    if isinstance(read, list):
        return [_plain(item) for item in read]
    return getattr(read, "text", read)


def test_fixed_arguments_come_first_and_the_containers_own_last_and_verbatim(
    container: ContainerRoot,
) -> None:
    container.bake(parameters=[EPOCHS], run=Run(script="train.py", args=("--data-dir", "data")))
    received = shown(container, "--epochs", "2", "a b;$HOME")["argv"]
    assert received == ["--data-dir", "data", "--epochs", "10", "--epochs", "2", "a b;$HOME"]


def test_env_mode_passes_one_variable_per_parameter(container: ContainerRoot) -> None:
    parameters = [
        EPOCHS,
        Parameter("size", type="list[int]", default=[1, 2]),
        Parameter("model", type="dict", default={"depth": 3}, argument="MODEL"),
        Parameter("flag", type="bool", default=True),
        Parameter("seed", type="int", optional=True),
        Parameter("name", type="str", default="a b"),
    ]
    container.bake(parameters=parameters, run=Run(script="train.py", arguments="env"))
    received = shown(container)
    assert received["argv"] == []
    wanted = {"epochs": "10", "size": "[1, 2]", "MODEL": '{"depth": 3}', "flag": "true", "name": "a b"}
    assert received["env"].items() >= wanted.items()
    assert "seed" not in received["env"]


def test_file_mode_passes_nothing_but_the_file(container: ContainerRoot) -> None:
    container.bake(parameters=[EPOCHS], run=Run(script="train.py", arguments="file"))
    received = shown(container, "--extra")
    assert received["argv"] == ["--extra"]
    assert received["parameters"] == {"epochs": 10}
    assert "epochs" not in received["env"]


def test_a_module_runs_with_its_folder_importable(container: ContainerRoot) -> None:
    container.script("", "pkg/__init__.py")
    container.script("import pkg.other", "pkg/train.py")
    container.script("print('imported')", "pkg/other.py")
    container.bake(run=Run(script=None, module="pkg.train"))
    assert container.run().stdout == b"imported\n"


def test_a_launcher_takes_the_script_itself_and_is_found_in_the_scripts_environment(
    container: ContainerRoot,
) -> None:
    launcher = container.write("opt/venv/bin/launch", '#!/bin/sh\necho "$@"\n')
    launcher.chmod(0o755)
    container.bake(parameters=[EPOCHS], run=Run(script="train.py", launcher=("launch", "--procs=2")))
    assert container.run().stdout == b"--procs=2 train.py --epochs 10\n"


def test_a_launcher_that_is_not_there_is_bad_configuration(container: ContainerRoot) -> None:
    container.bake(run=Run(script="train.py", launcher=("torchrum",)))
    ended = container.run()
    assert ended.code == 78
    assert "cannot start torchrum" in ended.told


def test_the_script_gets_a_home_a_temporary_folder_and_its_own_environment_first(
    container: ContainerRoot,
) -> None:
    env = shown(container, PATH="/usr/bin:/bin", mine="kept")["env"]
    workspace = container.root / "workspace"
    assert env["HOME"] == str(workspace / "home")
    assert env["TMPDIR"] == str(workspace / "tmp")
    assert env["PATH"] == f"{container.root}/opt/venv/bin:/usr/bin:/bin"
    assert env["mine"] == "kept"
    assert Path(env["HOME"]).is_dir()
    assert Path(env["TMPDIR"]).is_dir()
    assert env["TRAINPACK_OUTPUTS"] == str(workspace / "outputs")


def test_the_labelmap_is_the_first_that_exists_whole(container: ContainerRoot) -> None:
    container.bake(labelmap={"0": "baked"})
    assert shown(container)["labelmap"] == {"0": "baked"}
    container.mount("model-version.json", {"name": "m/1", "parameters": {}, "labelmap": {"1": "version"}})
    assert shown(container)["labelmap"] == {"1": "version"}
    path = container.mount("labelmap.json", {"0": "car", "5": "person"})
    ended = container.run()
    assert json.loads(ended.stdout)["labelmap"] == {"0": "car", "5": "person"}
    assert ended.result["labelmap_source"] == path
    assert "warning: labelmap: no name for 1, 2, 3, 4" in ended.told


def test_an_undeclared_key_of_a_store_is_a_warning_and_not_in_argv(container: ContainerRoot) -> None:
    container.bake(parameters=[EPOCHS])
    container.mount("model-version.json", {"name": "m/1", "parameters": {"zoo": [1]}})
    ended = container.run()
    received = json.loads(ended.stdout)
    assert received["parameters"] == {"epochs": 10, "zoo": [1]}
    assert received["argv"] == ["--epochs", "10"]
    assert "warning: zoo (from ModelVersion m/1) is not declared" in ended.told


REFUSED = [
    (
        {"TRAINPACK_SET_epoch": "3"},
        {},
        'epoch: no such parameter (from TRAINPACK_SET_epoch); did you mean "epochs"?',
    ),
    ({"TRAINPACK_SET_zoo": "3"}, {}, "zoo: no such parameter (from TRAINPACK_SET_zoo)"),
    ({}, {"parameters.json": {"epoch": 3}}, 'did you mean "epochs"?'),
    ({"TRAINPACK_SET_epochs": "abc"}, {}, 'epochs: "abc" is not an int (from TRAINPACK_SET_epochs)'),
    ({"TRAINPACK_SET_epochs": "0"}, {}, "epochs: 0 is out of bounds: it must be >= 1"),
    ({}, {"parameters.json": "{"}, "parameters.json: "),
    ({}, {"parameters.json": [1]}, "parameters.json: expected a JSON object"),
    ({}, {"labelmap.json": {"a": "car"}}, 'labelmap: the index "a" is not a whole number'),
    ({}, {"labelmap.json": {"0": 1}}, "labelmap: the name of 0, 1, is not a non-empty string"),
    ({}, {"labelmap.json": {"0": "x", "1": "x"}}, 'the name "x" stands at both 0 and 1'),
    ({}, {"labelmap.json": '{"0": "x", "0": "y"}'}, 'the key "0" stands twice'),
    ({"TRAINPACK_GRACE": "soon"}, {}, "TRAINPACK_GRACE: 'soon' is not a number of seconds"),
    ({"experiment_id": "x"}, {}, "experiment_id: 'x' is not a UUID"),
    ({"experiment_name": "x", "api_token": "t"}, {}, "project_token or project_name is required"),
    ({"experiment_name": "x", "project_name": "y"}, {}, "api_token: required"),
]


@pytest.mark.parametrize(("env", "mounts", "problem"), REFUSED)
def test_bad_configuration_ends_with_78_before_the_script_starts(
    container: ContainerRoot, env: dict[str, str], mounts: dict[str, Any], problem: str
) -> None:
    container.bake(parameters=[EPOCHS, RATE])
    for name, data in mounts.items():
        container.mount(name, data)
    ended = container.run(env=env)
    assert ended.code == 78
    assert problem in ended.told
    assert ended.stdout == b""
    assert not (container.root / "workspace/code").exists()
    assert ended.result["status"] == "failed"
    assert ended.result["script_exit_code"] is None
    assert ended.failure["cause"] == "configuration"
    assert any(problem in line for line in ended.failure["problems"])


def test_all_problems_are_told_at_once(container: ContainerRoot) -> None:
    container.bake(parameters=[EPOCHS, RATE, Parameter("data", type="str", required=True)])
    container.mount("labelmap.json", {"0": ""})
    ended = container.run(env={"TRAINPACK_SET_epochs": "x", "TRAINPACK_SET_learning_rate": "-1"})
    assert ended.code == 78
    assert len(ended.failure["problems"]) == 4
    for word in ("epochs", "learning_rate", "data: required", "labelmap"):
        assert any(word in problem for problem in ended.failure["problems"])
        assert word in ended.told


def test_a_value_that_is_overridden_is_not_judged(container: ContainerRoot) -> None:
    container.bake(parameters=[EPOCHS])
    container.mount("parameters.json", {"epochs": "abc"})
    assert shown(container, TRAINPACK_SET_epochs="2")["parameters"] == {"epochs": 2}


def test_secrets_are_nowhere_in_what_the_entrypoint_writes(container: ContainerRoot) -> None:
    container.script("import sys; sys.exit('api' not in sys.argv[1])")
    container.bake(parameters=[Parameter("api_key", type="str", default=""), EPOCHS])
    ended = container.run(env={"TRAINPACK_SET_api_key": "s3cr3t-value", "api_token": "pl4tform-token"})
    assert ended.code == 0
    assert ended.result["parameters"]["api_key"]["value"] == "***"
    assert "--api_key" in ended.result["command"]
    assert "***" in ended.told
    written = ended.stdout + ended.stderr + json.dumps(ended.result).encode()
    assert b"s3cr3t-value" not in written
    assert b"pl4tform-token" not in written


def test_a_secret_from_a_mounted_file_is_masked_too(container: ContainerRoot) -> None:
    container.bake(parameters=[Parameter("api_key", type="str", default=""), EPOCHS])
    container.mount("parameters.json", {"api_key": "m0unted-secret"})
    ended = container.run()
    assert b"m0unted-secret" in ended.stdout
    assert ended.result["parameters"]["api_key"]["value"] == "***"
    assert ended.result["parameters"]["epochs"]["value"] == 10
    assert "m0unted-secret" not in ended.told + json.dumps(ended.result)


def test_a_secret_that_is_refused_is_not_printed(container: ContainerRoot) -> None:
    container.bake(parameters=[Parameter("api_token_id", type="int", default=1)])
    ended = container.run(env={"TRAINPACK_SET_api_token_id": "s3cr3t"})
    assert ended.code == 78
    assert "api_token_id: the value is not a legal int" in ended.told
    assert "s3cr3t" not in ended.told + json.dumps(ended.failure)


@pytest.mark.parametrize(("pass_token", "expected"), [(True, "t0ken-value"), (False, None)])
def test_pass_token_decides_whether_the_script_sees_the_token(
    container: ContainerRoot, pass_token: bool, expected: str | None
) -> None:
    container.bake(run=Run(script="train.py", pass_token=pass_token))
    env = shown(container, api_token="t0ken-value", PICSELLIA_TOKEN="other", host="http://h")["env"]
    assert env.get("api_token") == expected
    assert ("PICSELLIA_TOKEN" in env) is pass_token
    assert env["host"] == "http://h"


def test_a_mounted_dataset_is_at_its_declared_path_and_beats_the_images_own(container: ContainerRoot) -> None:
    container.script("from pathlib import Path; print(sorted(p.name for p in Path('data/train').iterdir()))")
    container.bake(data={"train": "data/train"})
    container.write("opt/app/data/train/baked.csv", "1")
    assert container.run().stdout == b"['baked.csv']\n"
    container.write("mnt/trainpack/datasets/train/mounted.csv", "1")
    ended = container.run()
    assert ended.stdout == b"['mounted.csv']\n"
    assert (container.root / "workspace/inputs/datasets/train/mounted.csv").is_file()
    assert ended.saved == []


def test_every_missing_dataset_is_named_with_66(container: ContainerRoot) -> None:
    container.bake(data={"train": "data/train", "test": "data/test"})
    ended = container.run()
    assert ended.code == 66
    assert ended.failure["cause"] == "missing-input"
    assert [problem.split(":")[0] for problem in ended.failure["problems"]] == [
        "dataset 'train'",
        "dataset 'test'",
    ]
    assert ended.stdout == b""


def test_a_manifest_of_a_newer_contract_is_a_fault_of_the_image(container: ContainerRoot) -> None:
    container.write("opt/trainpack/image.json", json.dumps({"schema": 99}))
    ended = container.run()
    assert ended.code == 70
    assert "schema 99 is newer" in ended.told
    assert ended.failure["cause"] == "internal"
