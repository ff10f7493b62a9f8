"""A network that was trained here, and the same from a checkpoint as PyTorch writes it."""

import functools
import json

import numpy as np
import pytest
import torch

from nnlab import models
from nnlab.files import read_state_dict
from nnlab.runs.script import run
from nnlab.vision.datasets import cifar

SCRIPT = "deployment/borrowed_weights"


@pytest.mark.slow
def test_borrowed_weights_decide_as_where_they_were_trained(script, tmp_path, monkeypatch):
    small = functools.partial(models.CifarResNet, 8, projection=False, normalize_logits=False)
    monkeypatch.setattr(models, "he_resnet20", small)
    monkeypatch.setattr(cifar, "IMAGES_PER_FILE", 8)
    rng = np.random.default_rng(0)
    for file in cifar.BINARY:
        labels = np.arange(8)[:, None]
        images = np.clip(rng.normal(24 * labels, 16, (8, 3072)), 0, 255)
        np.hstack([labels, images]).astype(np.uint8).tofile(tmp_path / file)

    def table(folder, *flags):
        args = ["--data-dir", str(tmp_path), "--out", str(tmp_path / folder), *flags]
        run(script.main, script.Config, args)
        return json.loads((tmp_path / folder / "result.json").read_text())["table"]

    here = table("here", "--epochs", "12", "--batch-size", "8")
    arrays = read_state_dict(tmp_path / "here" / "weights.safetensors")
    tensors = {f"module.{name}": torch.tensor(array) for name, array in arrays.items()}
    torch.save({"state_dict": tensors, "best_prec1": 90.0}, tmp_path / "resnet20.th")
    borrowed = table("borrowed", "--weights", str(tmp_path / "resnet20.th"))
    assert [row["numbers"] for row in here] == ["float32", "int8"]
    for ours, theirs in zip(here, borrowed, strict=True):
        assert ours.pop("weights") == "trained here" and theirs.pop("weights") == "idelbayev's"
        assert ours == theirs and ours["decided as in float32 / %"] > 80
    assert here[0]["test accuracy / %"] > 50 and here[0]["bytes"] > 2 * here[1]["bytes"]
