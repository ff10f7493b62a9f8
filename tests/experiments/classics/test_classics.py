"""The classics' scripts in small: what their tables say."""

import json

import numpy as np
import pytest

from nnlab.runs.script import run


@pytest.fixture
def result(load_script, tmp_path):
    """`result(name, *args)` is what a script leaves in its result file."""

    def call(name, *args):
        script = load_script(f"classics/{name}")
        run(script.main, script.Config, [*map(str, args), "--out", str(tmp_path / name)])
        return json.loads((tmp_path / name / "result.json").read_text())

    return call


@pytest.mark.slow
def test_numbers_by_hand(result):
    found = result("by_hand", "--steps", 3)
    assert [row["error after 1"] for row in found["errors"][:2]] == ["0.291027774", "0.291027924"]
    for row in found["against jax.grad"]:
        assert row["largest difference of a gradient"] < 1e-14


@pytest.mark.slow
def test_one_neuron(result, tmp_path):
    found = result("one_neuron")
    assert [row["4 inputs, of 65,536"] for row in found["table"]] == [1882, 1882, 1498, 218, 66]
    assert {row["XOR"] for row in found["table"]} == {"no"}
    assert (tmp_path / "one_neuron" / "curves.png").is_file()


@pytest.mark.slow
def test_boltzmann_machines(result, write_mnist, tmp_path):
    write_mnist(tmp_path, images=200)
    args = ("--data-dir", tmp_path, "--updates", 2000, "--machines", 1, "--hidden", 8)
    found = result("rbm", *args, "--epochs", 1)
    likelihoods = {row["rule"]: row["log-likelihood"] for row in found["bars"]}
    assert [*likelihoods] == ["exact", "CD-1", "CD-3", "PCD-1", "PCD-1, falling rate"]
    assert all(-6.24 < value < -2.63906 for value in likelihoods.values())  # -9 log 2: no weights
    assert all(np.isfinite(row["test log-likelihood / nats"]) for row in found["digits"])
    errors = [row["relative error"] for row in found["bias"] if row["updates"] == 2000]
    assert sorted(errors, reverse=True) == errors  # more steps, less bias


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretraining", "deep_belief"])
def test_a_run_in_pieces_measures_nothing_twice(name, result, write_mnist, tmp_path):
    write_mnist(tmp_path, images=240)
    small = {
        "pretraining": [
            *("--width", 8, "--depths", 1, 2, "--labels", 20, 240, "--layer-epochs", 1),
            *("--steps", 20, "--epochs", 1, "--rates", 0.01, 0.1, "--seeds", 0),
        ],
        "deep_belief": ["--width", 8, "--top", 10, "--greedy-epochs", 1, "--batch-size", 20],
    }[name]
    pieces = {"pretraining": ([], []), "deep_belief": (["--epochs", 1], ["--epochs", 2])}[name]
    args = ("--data-dir", tmp_path, *small, "--resume")
    first, second = (result(name, *args, *piece) for piece in pieces)
    if name == "pretraining":
        assert first["rows"] == second["rows"] and len(first["rows"]) == 12
        assert first["seconds"] == second["seconds"]
    else:
        assert second["epochs"][:2] == first["epochs"] and len(second["epochs"]) == 3
        assert first["seconds"]["top"] == second["seconds"]["top"]
