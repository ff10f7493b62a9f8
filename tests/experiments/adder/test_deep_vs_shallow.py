"""Networks of equal size: the script's formula against the networks themselves, and a small run."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.models import PlainNet

SCRIPT = Path(__file__).parents[3] / "experiments" / "adder" / "deep_vs_shallow.py"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 4, 8])
def test_every_depth_has_as_many_parameters(script, layers, channels):
    widths = script.widths_of(40_000, layers, channels, 10)
    for arithmetic in (FLOAT, ADDER):
        network = PlainNet(layers, widths, 10, arithmetic)
        image = jnp.ones((1, 8, 8, channels))
        params = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert parameters == script.size(layers, widths, channels, 10)
        assert abs(parameters - 40_000) < 400


@pytest.mark.slow
def test_a_small_run(tmp_path):
    small = ["--datasets", "digits", "--networks", "CNN", "--layers", "1", "2", "--epochs", "1"]
    command = [sys.executable, SCRIPT, *small, "--out", tmp_path / "run"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    table = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    assert [(row["layers"], row["shortcuts"]) for row in table] == [
        (5, "no"),
        (8, "no"),
        (8, "yes"),
    ]
    assert (tmp_path / "run" / "curves.png").is_file()
