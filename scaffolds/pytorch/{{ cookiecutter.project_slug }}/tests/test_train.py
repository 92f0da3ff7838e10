"""Training works on this machine, with the parameters that trainpack.toml declares. Run: python -m pytest"""

import json
import os
import signal
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

import train  # noqa: E402  (the script lies beside this folder, not in a package)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """Train in an empty folder, without trainpack's helper, and leave the process's SIGTERM as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "trainpack", None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_training_on_drawn_shapes_beats_chance_and_leaves_a_usable_model():
    train.main(["--epochs", "1"])
    assert json.loads(Path("metrics.json").read_text())["accuracy"] > 0.8
    saved = torch.load("model.pt", weights_only=True)
    model = train.build_model(len(saved["class_names"]), saved["width"])
    model.load_state_dict(saved["model"])
    assert model.eval()(torch.zeros(1, 1, saved["size"], saved["size"])).shape == (1, 3)


def test_images_of_the_class_folders_are_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    for kind, name in enumerate(train.SHAPES):
        folder = tmp_path / "mine" / name
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = (train.draw(kind, rng).clip(0, 1) * 255).astype("uint8")
            Image.fromarray(pixels).save(folder / f"{number}.png")
    train.main(["--data-dir", "mine", "--epochs", "1"])
    assert Path("model.pt").is_file()


def test_a_data_folder_without_images_is_an_error_not_drawn_shapes(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(SystemExit, match=r"there is no \.png"):
        train.main(["--data-dir", "mine"])


def test_sigterm_saves_a_checkpoint_that_training_goes_on_from(monkeypatch):
    report = train.report

    def stop_after_the_first_epoch(epoch, **metrics):
        report(epoch, **metrics)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train, "report", stop_after_the_first_epoch)
    with pytest.raises(SystemExit) as ending:
        train.main(["--epochs", "3", "--samples", "60"])
    assert ending.value.code == 143
    assert torch.load("checkpoint.pt", weights_only=True)["epochs"] == 1

    epochs = []
    monkeypatch.setattr(train, "report", lambda epoch, **metrics: epochs.append(epoch))
    train.main(["--epochs", "3", "--samples", "60", "--resume", "checkpoint.pt"])
    assert epochs == [2, 3]


def test_trainpack_toml_declares_the_defaults_of_the_script():
    declared = tomllib.loads((PROJECT / "trainpack.toml").read_text())["parameters"]
    defaults = vars(train.parse_arguments([]))
    assert {name: entry["default"] for name, entry in declared.items()} == {
        name: value for name, value in defaults.items() if name not in ("data_dir", "resume")
    }
