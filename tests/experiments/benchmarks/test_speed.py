"""The benchmark as a user runs it: what it saves, and what it says to bad input."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnlab import kernels

SPEED = Path(__file__).parents[3] / "experiments" / "benchmarks" / "speed.py"


def run(*args):
    command = [sys.executable, str(SPEED), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_every_body_is_measured_and_saved(tmp_path):
    small = ("--layers", "lenet5-16", "--networks", "lenet5", "--batch", 4, "--repeats", 1)
    process = run(*small, "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    medians = {(row["what"], row["pass"], row["body"]): row["median"] for row in result["rows"]}
    assert min(medians.values()) > 0
    for body in ("nnlab adder", "nnlab adder, XLA body", "nnlab conv", "JAX conv"):
        assert ("lenet5-16", "forward + backward", body) in medians
        assert body in process.stdout
    for body in ("nnlab 8-bit adder", "nnlab binary, packed"):
        assert ("lenet5-16", "forward", body) in medians
    for which in ("inference", "training step", "training step in an epoch"):
        assert ("lenet5", which, "nnlab AdderNet") in medians
    lines = dict(
        line.rsplit(" | ", 1) for line in process.stdout.splitlines() if "conv, fo" in line
    )
    both = [medians["lenet5-16", "forward + backward", f"{who} conv"] for who in ("nnlab", "JAX")]
    assert lines["| nnlab conv / JAX conv, forward + backward"] == f"{both[0] / both[1]:.2f} |"
    assert all(rate > 0 for rate in result["limits"].values())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.skipif("xla" in kernels.status()["adder_conv"]["cpu"], reason="needs native kernels")
@pytest.mark.parametrize("batch", [16, 256])
def test_a_few_megabytes_serve_any_batch(monkeypatch, batch):
    monkeypatch.syspath_prepend(SPEED.parent)
    layers, measure = map(importlib.import_module, ("layers", "measure"))
    peak = measure.peak_memory(layers.call, "resnet20-16", "nnlab adder", layers.BOTH, batch)
    assert peak < 4e6  # an output of the larger batch alone has 16.8e6 bytes


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--layers", "lenet5-7"], ["lenet5-7", "lenet5-16"]),
        (["--networks", "lenet"], ["lenet", "resnet20"]),
        (["--batch", "0"], ["--batch", "0"]),
        (["--repeats", "0"], ["--repeats", "0"]),
        (["--patience", "nan"], ["--patience", "nan"]),
    ],
)
def test_bad_input_is_named_in_one_sentence(args, names):
    process = run(*args)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert all(name in process.stderr for name in names)
