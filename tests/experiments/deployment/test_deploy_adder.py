"""From a trained network to integers in few bits, as the script does it."""

import json

import numpy as np
import pytest

from nnlab.runs.script import run

SCRIPT = "deployment/deploy_adder"


@pytest.mark.slow
def test_few_bits_cost_little_accuracy_and_save_bytes(script, write_mnist, tmp_path):
    write_mnist(tmp_path, images=640)
    small = ["--networks", "lenet5", "--lenet5-epochs", "4", "--batch-size", "32"]
    small += ["--bits", "8", "4", "--repeats", "1", "--mnist-dir", str(tmp_path)]
    run(script.main, script.Config, [*small, "--out", str(tmp_path / "run")])
    table = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    rows = {row["variant"]: row for row in table}
    theirs = [variant for variant in rows if "PyTorch" in variant]
    adder = [f"AdderNet {kind}" for kind in ("float32", "int8", "int4")]
    assert [*rows] == ["CNN float32", *theirs, *adder, "BNN float32", "BNN packed"]
    sizes = [rows[variant]["file bytes"] for variant in adder]
    assert sizes[0] > 3 * sizes[1] > 3 * sizes[2]
    accuracies = [rows[variant]["test accuracy / %"] for variant in adder]
    assert accuracies[0] > 80 and np.ptp(accuracies) < 5
    for variant in theirs[:1]:  # the same weights in float32
        assert rows[variant]["test accuracy / %"] == rows["CNN float32"]["test accuracy / %"]
