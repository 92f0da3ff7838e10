"""Training works on this machine, with the parameters that trainpack.toml declares. Run: python -m pytest"""

import json
import sys
import tomllib
from pathlib import Path

import joblib
import pytest
from sklearn.datasets import load_iris

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

import train  # noqa: E402  (the script lies beside this folder, not in a package)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINPACK_LABELMAP", raising=False)


def test_training_on_the_bundled_data_beats_chance_and_leaves_a_usable_model():
    train.main(["--max-iter", "20"])
    assert json.loads(Path("metrics.json").read_text())["accuracy"] > 0.8
    saved = joblib.load("model.joblib")
    table = train.load_wine(as_frame=True).frame
    assert saved["model"].predict(table[saved["features"]].head(1))[0] in (0, 1, 2)


def test_csv_files_of_the_data_folder_are_trained_on(tmp_path):
    iris = load_iris(as_frame=True).frame.rename(columns={"target": "species"})
    (tmp_path / "mine").mkdir()
    iris.to_csv(tmp_path / "mine" / "iris.csv", index=False)
    train.main(["--data-dir", "mine", "--target", "species", "--max-iter", "5", "--balanced"])
    assert "petal length (cm)" in joblib.load("model.joblib")["features"]


def test_a_data_folder_without_csv_files_is_an_error_not_the_bundled_data(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(SystemExit, match="no CSV file"):
        train.main(["--data-dir", "mine"])


def test_class_names_come_from_the_labelmap(tmp_path, monkeypatch, capsys):
    labelmap = {"0": "red", "1": "white", "2": "orange"}
    (tmp_path / "labels.json").write_text(json.dumps(labelmap))
    monkeypatch.setenv("TRAINPACK_LABELMAP", str(tmp_path / "labels.json"))
    train.main(["--max-iter", "2"])
    assert "orange" in capsys.readouterr().out
    assert json.loads(Path("metrics.json").read_text())["class_names"] == labelmap


def test_trainpack_toml_declares_the_defaults_of_the_script():
    declared = tomllib.loads((PROJECT / "trainpack.toml").read_text())["parameters"]
    defaults = vars(train.parse_arguments([]))
    assert {name: entry["default"] for name, entry in declared.items()} == {
        name: value for name, value in defaults.items() if name != "data_dir"
    }
