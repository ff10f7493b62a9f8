"""The README is true: its code runs, and its figures are those of the committed results."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab import deployment, training
from nnlab.arithmetics import ADDER
from nnlab.figures import markdown_table
from nnlab.models import CifarResNet, SmallCNN, resnet18
from nnlab.ops.binary import sign_ste
from nnlab.optim import adder_recipe
from nnlab.testing import check_gradient_rule
from nnlab.vision.resnet import torch_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = {path.stem: path for path in (ROOT / "experiments").rglob("results/*.json")}
THERE = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
TRAINING, TRANSFER, SEQUENCES, DEPLOYMENT, RULE, PARALLEL = EXAMPLES


@pytest.mark.slow
def test_training_example_runs():
    names: dict = {}
    exec(TRAINING, names)
    assert names["metrics"]["loss"].shape == (4,)  # 512 images in batches of 128
    assert np.isfinite(names["metrics"]["loss"]).all()


def test_transfer_example_is_traced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shapes: Any = jax.eval_shape(resnet18().init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    there = torch_names(resnet18())
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        *layer, kind = [key.key for key in path[1:]]
        array = np.full(leaf.shape, 0.5, np.float32)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        tensors[f"{there['/'.join(layer)]}.{THERE[kind]}"] = torch.tensor(array)
    torch.save(tensors, "resnet18.pth")
    names: dict = {"jax": jax, "jnp": jnp, "images": jnp.zeros((2, 32, 32, 3))}
    exec(TRANSFER, names)
    state, step = names["state"], names["step"]
    assert (state.params["conv1"]["kernel"] == 0.5).all()
    assert state.params["fc"]["kernel"].shape == (512, 10)
    assert (state.params["fc"]["kernel"] != 0.5).any()
    after, _ = jax.eval_shape(step, state, (names["images"], jnp.zeros(2, int)))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@pytest.mark.slow
def test_sequences_example_runs():
    names: dict = {"jax": jax, "jnp": jnp, "training": training, "ADDER": ADDER}
    names["optimizer"] = adder_recipe(20)
    exec(SEQUENCES.replace("features=256", "features=8"), names)
    assert np.isfinite(names["metrics"]["loss"]).all() and names["state"].step == 20


@pytest.mark.slow
def test_deployment_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    model = CifarResNet(8, arithmetic=ADDER)
    optimizer = adder_recipe(30)
    state = training.init(jax.random.key(0), model, optimizer, images)
    step = jax.jit(training.train_step(model, optimizer))
    for _ in range(30):  # until running statistics are those of the network
        state, _ = step(state, (images, jnp.arange(4)))
    names: dict = {"jax": jax, "model": model, "state": state, "images": images}
    exec(DEPLOYMENT, names)
    assert names["logits"].shape == (4, 10)
    again = deployment.load_network("resnet20.safetensors")
    np.testing.assert_array_equal(deployment.run(again)(images), names["logits"])


def test_parallel_example_compiles():
    model, optimizer = SmallCNN(arithmetic=ADDER, widths=(4, 4, 4)), adder_recipe(10)
    batch = jnp.ones((8, 4, 4, 1)), jnp.zeros(8, int)
    names: dict = {"jax": jax, "training": training, "model": model, "optimizer": optimizer}
    exec(PARALLEL, names)
    state = training.init(jax.random.key(0), model, optimizer, batch[0])
    for way in ("one_device", "main_road", "shard_map"):
        assert names[way](state, batch)[0].step == 1
    assert names["pmap"](state, names["parallel"].split(batch, 1))[0].step == 1


def test_rule_example_runs():
    names = {"sign_ste": sign_ste, "check_gradient_rule": check_gradient_rule}
    exec(RULE, {"jnp": jnp, "np": np} | names)


def test_demo_table_is_the_committed_one():
    for row in json.loads(RESULTS["adder_vs_cnn"].read_text())["table"]:
        figures = [f"{v:,}" if isinstance(v, int) else f"{v:.4g}" for v in list(row.values())[1:]]
        (line,) = re.findall(rf"^ ?{row['network']} +\d.*$", README, flags=re.MULTILINE)
        assert line.split()[1:] == figures


@pytest.mark.parametrize(
    ("result", "key"), [("adder_mnist_ablation", "cell"), ("adder_cifar10", "network")]
)
def test_reproduction_table_is_the_committed_one(result, key):
    rows = json.loads(RESULTS[result].read_text())["rows"]
    accuracies: dict[str, list[str]] = {}
    for row in rows:
        assert row["test_accuracy"] == round(100 * row["history"]["test_accuracy"][-1], 2)
        accuracies.setdefault(row[key], []).append(f"{row['test_accuracy']:.2f}")
    for name, ours in accuracies.items():
        assert re.search(rf"^\|.*{name}.*\| {', '.join(ours)} \|", README, flags=re.MULTILINE), name


def test_accuracies_of_other_seeds_are_the_committed_ones():
    rows = json.loads(RESULTS["adder_mnist_seeds"].read_text())["rows"]
    for cell in ("CNN", "full-adaptive"):
        ours = [f"{row['test_accuracy']:.2f}" for row in rows if row["cell"] == cell]
        assert f"{cell} {' and '.join(ours)}" in " ".join(README.split())


@pytest.mark.parametrize(
    ("module", "name"), [("tables", "speed"), ("memory", "memory"), ("pipeline", "pipeline")]
)
def test_benchmark_tables_are_the_committed_ones(monkeypatch, module, name):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    result = json.loads(RESULTS[name].read_text())
    assert importlib.import_module(module).markdown(result) in README


def test_losses_of_characters_are_the_committed_ones():
    names = {
        "tinyshakespeare": "of tiny-shakespeare",
        "java": "Java sources",
        "ptb": "Penn Treebank",
    }
    for result in json.loads(RESULTS["char_lm"].read_text())["runs"]:
        (row,) = result["table"]
        (line,) = re.findall(rf"^\| \[.*{names[row['corpus']]}\].*$", README, flags=re.MULTILINE)
        for part in ("validation", "test"):
            loss = row.get(f"{part} loss / nats")
            assert loss is None or f"{loss:.3f}" in line, row


def test_bits_of_algorithmic_tasks_are_the_committed_ones():
    for result in json.loads(RESULTS["ntm"].read_text())["runs"]:
        task = result["config"]["task"].replace("_", " ")
        (line,) = re.findall(rf"^\| {task}[;| ].*$", README, flags=re.MULTILINE)
        for row in result["tests"]:
            if row["test"] == "training":
                assert f" {row['bits']:.3g}" in line, (task, row)


def test_anomaly_figures_are_the_committed_ones():
    nab = json.loads(RESULTS["anomaly_nab"].read_text())
    rows = {row["detector"]: row for row in nab["table"]}
    best = rows[nab["detector of the series"]]
    figures = (best[k] for k in ("standard", "all at their threshold", "others at it"))
    ours = "{:.1f}; with the threshold of the tuning folders {:.1f}, and on the other two"
    ours += " folders {:.1f}"
    assert ours.format(*figures) in README
    assert f"by the range of values alone, {rows['value']['standard']:.1f}" in README


def test_speed_of_sequences_is_the_committed_one():
    rows = [
        {
            "body": row["body"],
            "ms / step": row["milliseconds a step"],
            "times nnlab's": row["of nnlab LSTM"],
            "characters / s": round(row["characters a second"]),
            "of the product / %": 100 * row["of the matrix product"],
        }
        for row in json.loads(RESULTS["recurrent"].read_text())["rows"]
    ]
    assert markdown_table(rows) in README
    rows = json.loads(RESULTS["ntm_torch"].read_text())["table"]
    assert markdown_table(rows) in README


def test_table_of_models_is_the_committed_one():
    result = json.loads(RESULTS["zoo"].read_text())
    assert markdown_table(result["table"]) in README


def test_deployment_table_is_the_committed_one():
    result = json.loads(RESULTS["deploy_adder"].read_text())
    assert markdown_table(result["table"]) in README


def test_arithmetics_table_is_the_committed_one():
    mnist, cifar = (
        json.loads(RESULTS[f"arithmetics_{name}"].read_text())["table"]
        for name in ("mnist", "cifar10")
    )
    on_mnist = {row["arithmetic"]: row["test accuracy / %"] for row in mnist}
    rows = [
        {
            "arithmetic": row["arithmetic"],
            "MNIST / %": on_mnist.pop(row["arithmetic"]),
            "CIFAR-10 / %": row["test accuracy / %"],
            **dict(list(row.items())[2:]),
        }
        for row in cifar
    ]
    assert markdown_table(rows) in README
    assert on_mnist.keys() == {"lp_adder"} and f"{on_mnist['lp_adder']:.2f} %" in README
