"""The classics' scripts in small: what their tables say."""

import json

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
