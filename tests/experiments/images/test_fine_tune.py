"""The recipe on generated pictures, with weights as PyTorch saves them."""

import functools
import json

import jax
import numpy as np
import pytest

from nnlab.commands import predict
from nnlab.models import load_model
from nnlab.runs.script import run
from nnlab.vision.resnet import ResNet, torch_names

TINY = functools.partial(ResNet, stage_sizes=(1, 1), features=8, bottleneck=False)
THERE = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


@pytest.fixture
def weights(tmp_path):
    """The state dict of a tiny ResNet of 1,000 classes with torchvision's names."""
    import torch

    shapes = jax.eval_shape(TINY().init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    names, rng, tensors = torch_names(TINY()), np.random.default_rng(0), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        *layer, kind = [key.key for key in path[1:]]
        shape = (*leaf.shape[:-3:-1], *leaf.shape[:-2]) if leaf.ndim > 1 else leaf.shape
        values = rng.normal(0, 0.2, shape) + (kind in ("scale", "var"))
        name = f"{names['/'.join(layer)]}.{THERE.get(kind, kind)}"
        tensors[name] = torch.tensor(values, dtype=torch.float32)
    torch.save(tensors, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth", tensors


@pytest.mark.slow
def test_the_last_layer_learns_and_the_others_stay(
    load_script, weights, write_pictures, tmp_path, monkeypatch, capsys
):
    script, (path, tensors) = load_script("images/fine_tune"), weights
    monkeypatch.setitem(script.NETWORKS, "tiny", TINY)
    write_pictures(tmp_path / "colours", classes=3, each=12, size=40)
    args = ["--dataset", f"folder:{tmp_path / 'colours'}", "--weights", path, "--network", "tiny"]
    args += ["--image-size", "32", "--batch-size", "9", "--epochs", "12", "--learning-rate", "0.03"]
    out = tmp_path / "run"
    run(script.main, script.Config, [str(arg) for arg in [*args, "--out", out]])
    (row,) = json.loads((out / "result.json").read_text())["table"]
    assert row["classes"] == 3 and row["test accuracy / %"] > 60

    saved = load_model(out / "network.safetensors")
    params = saved.variables["params"]
    borrowed = np.transpose(tensors["conv1.weight"].numpy(), (2, 3, 1, 0))
    np.testing.assert_array_equal(params["conv1"]["kernel"], borrowed)
    np.testing.assert_array_equal(params["bn1"]["scale"], tensors["bn1.weight"].numpy())
    assert params["fc"]["kernel"].shape == (16, 3)

    capsys.readouterr()
    pictures = [tmp_path / "colours" / f"class{n}" / "0.png" for n in range(3)]
    run(predict.main, predict.Config, [str(out), "--json", *map(str, pictures)])
    seen = [json.loads(line)["class"] for line in capsys.readouterr().out.splitlines()]
    assert seen.count("class0") + seen.count("class1") + seen.count("class2") == 3


@pytest.mark.slow
def test_weights_of_another_network_are_named(load_script, weights, tmp_path, capsys):
    script, (path, _) = load_script("images/fine_tune"), weights
    with pytest.raises(SystemExit) as end:
        run(script.main, script.Config, ["--weights", str(path), "--network", "resnet34"])
    assert end.value.code == 2
    assert f"{path} does not fit resnet34: " in capsys.readouterr().err
