"""The classics' scripts in small: what their tables say."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ttest_1samp

from nnlab.errors import InputError
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
def test_topologies(result, tmp_path):
    found = {(row["network"], row["arithmetic"]): row for row in result("topologies")["table"]}
    assert found["sparsely connected", "float"]["connections forward"] == 24
    assert found["sparsely connected", "adder"]["connections forward"] == 48
    assert found["feedback", "float"]["back"] == 16
    assert (tmp_path / "topologies" / "curves.png").is_file()


@pytest.mark.slow
def test_what_a_layer_sees(result):
    found = result("what_a_layer_sees", "--networks", "digits_adder", "--images", 20)
    (row,) = found["table"]
    assert (row["layer"], row["receptive field"], row["units"]) == ("AdderConv_0", "5x5", 32)
    assert row["response to the strongest patch"] < row["response to the maximiser"] < 0


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
def test_pretraining_in_pieces_measures_nothing_twice(result, write_mnist, tmp_path):
    write_mnist(tmp_path, images=240)
    args = [
        *("--data-dir", tmp_path, "--width", 8, "--depths", 1, 2, "--labels", 20, 240),
        *("--layer-epochs", 1, "--steps", 20, "--epochs", 1, "--rates", 0.01, 0.1, "--seeds", 0),
    ]
    first, second = (result("pretraining", *args, "--resume") for _ in range(2))
    assert first["rows"] == second["rows"] and len(first["rows"]) == 12
    assert first["seconds"] == second["seconds"]


@pytest.mark.slow
def test_up_down_in_pieces_is_that_of_one(result, load_script, write_mnist, tmp_path, monkeypatch):
    write_mnist(tmp_path, images=240)
    args = [
        *("--data-dir", tmp_path, "--width", 8, "--top", 10, "--greedy-epochs", 1),
        *("--batch-size", 20, "--epochs", 3),
    ]
    whole = result("deep_belief", *args)["epochs"]
    script, epochs = load_script("classics/deep_belief"), []

    def cut_off(*args, **options):
        epochs.append(real(*args, **options))
        if len(epochs) == 2:
            raise RuntimeError("cut off")
        return epochs[-1]

    real = script.up_down.epoch
    monkeypatch.setattr(script.up_down, "epoch", cut_off)
    with pytest.raises(RuntimeError, match="cut off"):
        result("deep_belief", *args, "--overwrite")
    resumed = result("deep_belief", *args, "--resume")
    assert resumed["epochs"] == whole and len(whole) == 4
    assert len(epochs) == 4  # the second epoch twice, nothing else


def test_as_many_labels_as_asked_for_though_a_class_has_fewer(load_script):
    script = load_script("classics/pretraining")
    labels = np.array([0] * 30 + [1] * 3 + [2] * 27)
    images = np.arange(60)[:, None]
    task = script.Task(images, labels, None, script.Config())
    chosen, found = task.some(20, 0)
    assert np.bincount(labels[task.rest]).tolist() == [25, 2, 23]
    assert np.bincount(found).tolist() == [9, 2, 9]
    assert len({*chosen[:, 0].tolist()}) == 20
    np.testing.assert_array_equal(labels[chosen[:, 0]], found)


def test_images_that_fill_no_batch_are_few_before_anything_is_trained(load_script):
    with pytest.raises(InputError, match="99 images were given, expected at least 100"):
        load_script("classics/rbm").check_fills(np.zeros(99))


def test_intervals_are_those_of_a_t_test(load_script):
    script = load_script("classics/genetic_start")
    differences = [-0.3, -0.1, -0.2, -0.25, -0.4]
    expected = ttest_1samp(differences, 0).confidence_interval(0.95)
    mean, half = script.interval(differences)
    assert (mean - half, mean + half) == pytest.approx(tuple(expected))
    assert script.verdict(differences) == "better"
    assert script.verdict([*differences, 0.9]) == script.verdict([0, 0]) == "no difference"


@pytest.mark.slow
def test_a_genetic_start(result, tmp_path):
    pytest.importorskip("evosax")
    found = result("genetic_start", "--problems", "XOR", "--seeds", 0, 1)
    assert [row["evaluations"] for row in found["table"]] == 2 * [0, 0, 2048, 2048, 128, 128]
    for searched in (2, 3):  # the loss at the start is what these search for
        for plain in (0, 6):
            rows = found["table"][plain], found["table"][plain + searched]
            assert rows[1]["loss at start"] < rows[0]["loss at start"]
    assert (tmp_path / "genetic_start" / "curves.png").is_file()


@pytest.mark.slow
def test_baselines(result, tmp_path):
    found = result("baselines", "--data", "digits", "--train-images", 300, "--epochs", 1)
    errors = {row["learner"]: float(row["test error / %"]) for row in found["table"]}
    assert errors["support vector machine"] < 2 < 20 < errors["decision tree"]
    assert all(row["images"] == 300 and row["training / s"] > 0 for row in found["table"])
    assert (tmp_path / "baselines" / "curves.png").is_file()


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
