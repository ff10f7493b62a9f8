"""The classics' scripts in small: what their tables say."""

import json

import jax
import jax.numpy as jnp
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
def test_kernels_by_hand(result):
    rows = {row["kernel"]: row for row in result("kernels_by_hand")["table"]}
    assert rows["two edges"]["adder, float"] == pytest.approx(1)
    assert rows["Sobel"]["adder, brightness"] < -0.9 < rows["Sobel"]["float, brightness"]
    assert rows["patch"]["adder's best, off by / pixels"] == 0


def test_networks_of_equal_units_and_shifts(load_script):
    script = load_script("classics/why_convolution")
    images = np.zeros((4, 28, 28, 1), np.uint8)
    images[:, 10, 20] = 255
    places = np.argwhere(script.shifted(images, 3)[..., 0])[:, 1:].tolist()
    assert places == [[10, 23], [13, 20], [10, 17], [7, 20]]
    for kind, hidden in {  # weights by hand, and BatchNorm's of what shares them
        "dense": 784 * 1152 + 1152 * 256 + 2 * (1152 + 256),
        "local": 144 * 25 * 8 + 16 * 200 * 16 + 2 * (1152 + 256),
        "shared": 25 * 8 + 200 * 16 + 2 * (8 + 16),
        "pooled": 25 * 8 + 200 * 16 + 2 * (8 + 16),
    }.items():
        model = script.Windows(kind)
        found = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        seen = 16 if kind == "pooled" else 256
        assert (
            sum(leaf.size for leaf in jax.tree.leaves(found["params"])) == hidden + 10 * seen + 10
        )
