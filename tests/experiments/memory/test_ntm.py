"""The tasks' script and that of addition: small runs, and that they go on where they stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[3] / "experiments" / "memory"


def run(script, *args):
    command = [sys.executable, EXPERIMENTS / f"{script}.py", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_every_network_learns_and_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "run"
    small = ("--epochs", 2, "--steps", 2, "--batch-size", 2, "--width", 4, "--heads", 1)
    small = ("--task", "priority_sort", *small, "--networks", "NTM", "NTM-LSTM", "LSTM")
    process = run("ntm", *small, "--out", out)
    assert process.returncode == 0, process.stderr
    result = json.loads((out / "result.json").read_text())
    networks = ["NTM", "NTM-LSTM", "LSTM"]
    for rows in (result["trainings"], result["tests"]):
        assert [row["network"] for row in rows] == networks
    assert all(100 < row["bits"] < 200 for row in result["tests"])  # 128 to be guessed
    assert {name: len(curve["test_loss"]) for name, curve in result["curves"].items()} == {
        name: 2 for name in networks
    }
    for name in ("curves", "NTM", "NTM-LSTM"):
        assert (out / f"{name}.png").is_file()
    process = run("ntm", *small, "--out", out, "--resume")
    assert process.returncode == 0, process.stderr
    assert json.loads((out / "result.json").read_text())["tests"] == result["tests"]


@pytest.mark.slow
def test_lengths_beyond_those_of_training(tmp_path):
    small = ("--epochs", 1, "--steps", 1, "--batch-size", 1, "--networks", "LSTM")
    small = (*small, "--width", 2)
    process = run("ntm", "--task", "copy", *small, "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    tests = json.loads((tmp_path / "run" / "result.json").read_text())["tests"]
    lengths = [10, 20, 30, 50, 120]
    assert [row["test"] for row in tests] == ["training", *(f"length {n}" for n in lengths)]
    # A network that knows nothing pays 8 bits a word, and this one not much more.
    for row, length in zip(tests[1:], lengths, strict=True):
        assert 7.9 * length < row["bits"] < 9 * length


@pytest.mark.slow
def test_ngrams_have_an_optimum(tmp_path):
    small = ("--epochs", 1, "--steps", 1, "--batch-size", 1, "--networks", "LSTM")
    small = (*small, "--width", 2)
    process = run("ntm", "--task", "ngrams", *small, "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    best, ours = result["tests"]
    assert (best["network"], ours["network"]) == ("optimal", "LSTM")
    # 195 bits of which nothing is known cost 195; an untrained network knows nothing.
    assert 110 < best["bits"] < 145 < 190 < ours["bits"]


@pytest.mark.slow
def test_addition(tmp_path):
    out = tmp_path / "run"
    small = ("--recurrent-epochs", 1, "--lengths", 4, "--batch-size", 8)
    process = run("learn_addition", *small, "--out", out)
    assert process.returncode == 0, process.stderr
    result = json.loads((out / "result.json").read_text())
    rows = {row["network"]: row for row in result["numbers"]}
    # Two roundings of sums up to 200 in float32 are below 1e-4.
    assert rows["linear unit"]["error to ±100"] < 1e-4
    assert rows["16 tanh units"]["error to ±1"] < 0.5
    # The sum is up to 200, and all that tanh units can say is bounded.
    assert rows["16 tanh units"]["error to ±100"] > 100
    assert [row["network"] for row in result["right / %"]] == ["LSTM", "NTM"]
    assert (out / "curves.png").is_file()


@pytest.mark.parametrize(
    ("script", "args", "names"),
    [
        ("ntm", ("--task", "sort"), ("--task", "priority_sort", "not sort")),
        ("ntm", ("--networks", "GRU"), ("--networks", "NTM-LSTM", "not GRU")),
        ("ntm", ("--width", "0"), ("--width", "from 1", "not 0")),
        ("ntm", ("--learning-rate", "0"), ("--learning-rate", "positive", "not 0")),
        ("learn_addition", ("--epochs", "0"), ("--epochs", "from 1", "not 0")),
    ],
)
def test_bad_input_is_named_in_one_sentence(script, args, names):
    process = run(script, *args)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert all(name in process.stderr for name in names)
