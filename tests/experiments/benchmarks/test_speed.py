"""The benchmark of speed as a user runs it: what it saves and prints."""

import importlib
import json
from pathlib import Path

import pytest

from nnlab import kernels
from nnlab.runs.script import run

SCRIPT = "benchmarks/speed"


@pytest.mark.slow
def test_every_body_is_measured_and_saved(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script.networks, "bodies", lambda which, peers: ["nnlab CNN"])
    small = ["--layers", "lenet5-16", "--networks", "lenet5", "--batch", "4", "--repeats", "1"]
    run(script.main, script.Config, [*small, "--out", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    medians = {(row["what"], row["pass"], row["body"]): row["median"] for row in result["rows"]}
    assert min(medians.values()) > 0
    for body in ("nnlab adder", "nnlab adder, XLA body", "nnlab conv", "JAX conv"):
        assert ("lenet5-16", "forward + backward", body) in medians
        assert body in printed
    for body in ("nnlab 8-bit adder", "nnlab binary, packed"):
        assert ("lenet5-16", "forward", body) in medians
    for which in ("inference", "training step", "training step in an epoch"):
        assert ("lenet5", which, "nnlab CNN") in medians
    lines = dict(line.rsplit(" | ", 1) for line in printed.splitlines() if "conv, fo" in line)
    both = [medians["lenet5-16", "forward + backward", f"{who} conv"] for who in ("nnlab", "JAX")]
    assert lines["| nnlab conv / JAX conv, forward + backward"] == f"{both[0] / both[1]:.2f} |"
    assert all(rate > 0 for rate in result["limits"].values())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.skipif("xla" in kernels.status()["adder_conv"]["cpu"], reason="needs native kernels")
@pytest.mark.parametrize("batch", [16, 256])
def test_a_few_megabytes_serve_any_batch(script, batch):
    layers, measure = map(importlib.import_module, ("layers", "measure"))
    peak = measure.peak_memory(layers.call, "resnet20-16", "nnlab adder", layers.BOTH, batch)
    assert peak < 4e6  # an output of the larger batch alone has 16.8e6 bytes
