"""Trained networks by name: the files of the table, as accurate as the committed results."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tyro

from nnlab import vision
from nnlab.commands import predict
from nnlab.errors import InputError
from nnlab.models import PRETRAINED, pretrained, pretrained_file, pretrained_models, save_model
from nnlab.runs.script import run

ROOT = Path(__file__).parents[2]
SHIPPED = [name for name, row in PRETRAINED.items() if row.ships]
DIGITS = [name for name in SHIPPED if name.startswith("digits")]
NUMBERS = {
    *("epochs", "lenet5_epochs", "resnet20_epochs", "batch_size", "learning_rate"),
    *("calibration_images", "seed", "seeds"),
}


def accuracy(network, dataset):
    """Percent of all test images, as its user would find it: from the bytes of the data set."""
    test, wrong = dataset.test, 0
    for part in np.array_split(np.arange(len(test.labels)), -(-len(test.labels) // 500)):
        logits = network.logits(network.preparation(test.images[part]))
        wrong += int((np.asarray(logits).argmax(1) != test.labels[part]).sum())
    return round(100 * (1 - wrong / len(test.labels)), 2)


def test_files_are_those_of_the_table():
    there = {path.stem: path.read_bytes() for path in pretrained_models.WEIGHTS.glob("*")}
    assert sorted(there) == sorted(SHIPPED)
    for name, data in there.items():
        row = PRETRAINED[name]
        assert hashlib.sha256(data).hexdigest() == row.sha256
        assert len(data) == row.size and len(data) < 300_000
    assert sum(map(len, there.values())) < 1_500_000


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_command_is_that_of_the_committed_result(name, load_script):
    row = PRETRAINED[name]
    found = json.loads((ROOT / row.training.result).read_text())
    rows = found.get("table") or found["rows"]
    (of_result,) = (each for each in rows if row.row.items() <= each.items())
    (key,) = of_result.keys() & {"test accuracy / %", "test_accuracy"}
    assert round(of_result[key], 2) == row.accuracy
    script = load_script(Path(row.training.script).relative_to("experiments").with_suffix(""))
    config = dataclasses.asdict(tyro.cli(script.Config, args=row.training.options.split()))
    assert config["out"] == row.training.out
    for key in found.get("config", {}).keys() & NUMBERS:
        assert json.dumps(config[key]) == json.dumps(found["config"][key]), key


@pytest.fixture(scope="module")
def digits():
    return vision.load("digits")


@pytest.mark.parametrize("name", DIGITS)
def test_digits_as_committed(name, digits):
    network = pretrained(name)
    assert len(digits.test.labels) == 360 and network.class_names == digits.class_names
    assert accuracy(network, digits) == PRETRAINED[name].accuracy


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in DIGITS])
def test_as_committed(name, original_data):
    """Integers to the digit; where sums are of floats, another processor may decide one other."""
    row, network = PRETRAINED[name], pretrained(name)
    dataset = vision.load(row.training.dataset, original_data)
    assert len(dataset.test.labels) == 10_000
    assert network.class_names == (dataset.class_names or tuple("0123456789"))
    found = accuracy(network, dataset)
    assert found == pytest.approx(row.accuracy, abs=1e-9 if network.integers else 0.011)


def test_what_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'lenet'; expected one of digits_cnn, digits_adder"):
        pretrained("lenet")
    shutil.copy(PRETRAINED["digits_bnn"].path, tmp_path)
    (tmp_path / "digits_bnn.safetensors").open("ab").write(b"\0")
    monkeypatch.setattr(pretrained_models, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="is not as it was published"):
        pretrained("digits_bnn")
    assert not PRETRAINED["digits_cnn"].ships
    with pytest.raises(InputError, match=r"runs/adder_vs_cnn.*`python experiments/adder_vs_"):
        pretrained("digits_cnn")


def test_a_run_of_ones_own(tmp_path):
    row = PRETRAINED["digits_bnn"]
    file = tmp_path / row.file
    with pytest.raises(InputError, match="there is no file"):
        pretrained_file("digits_bnn", tmp_path)
    file.parent.mkdir()
    shutil.copy(row.path, file)
    assert pretrained_file("digits_bnn", tmp_path) == file
    saved = pretrained("digits_bnn", file).saved
    assert saved is not None
    model, variables, notes = saved
    image = np.zeros((1, 8, 8, 1), np.float32)

    def rewritten(**changes):
        save_model(file, model, variables, image, notes=notes | changes, overwrite=True)
        return pretrained_file("digits_bnn", tmp_path)

    assert rewritten(machine="another") == file  # other bytes, as accurate
    assert rewritten(score=0.9805) == file
    for change in ({"score": 0.97}, {"network": "CNN"}, {"network": None}, {"score": None}):
        with pytest.raises(InputError, match=r"another SHA-256 .* expected BNN with about 98\.33"):
            rewritten(**change)


def test_predict_knows_the_names(tmp_path, digits, capsys):
    from PIL import Image

    number = int(np.flatnonzero(digits.test.labels == 7)[0])
    picture = tmp_path / "seven.png"
    Image.fromarray(np.kron(digits.test.images[number, ..., 0], np.ones((9, 9), np.uint8))).save(
        picture
    )
    run(predict.main, predict.Config, ["digits_cnn", str(picture), "--top", "1"])
    assert capsys.readouterr().out.startswith(f"{picture}: 7 ")
