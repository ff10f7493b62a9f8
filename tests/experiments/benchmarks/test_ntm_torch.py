"""The Neural Turing Machine in PyTorch: the same outputs and gradients, and the benchmark run."""

import json
from typing import Any

import jax
import numpy as np
import pytest
import torch

from nnlab.models import NTM
from nnlab.runs.script import run
from nnlab.sequences.algorithmic_tasks import copy
from nnlab.sequences.episode_scores import bits_per_sequence

SCRIPT = "benchmarks/ntm_torch"


@pytest.mark.slow
def test_outputs_and_gradients_are_pytorchs(load_script):
    peer = load_script("benchmarks/torch_ntm")
    model: Any = NTM(3, width=5, locations=6, size=4)
    inputs, labels = copy(jax.random.key(0), 2, (3, 3), bits=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)

    @jax.jit
    def ours(params):
        def loss(params):
            logits = model.apply({"params": params}, inputs)
            return bits_per_sequence(logits, labels), logits

        return jax.value_and_grad(loss, has_aux=True)(params)

    (value, logits), grads = ours(params)
    theirs = peer.TorchNTM(params, 5)
    x, targets, mask = (torch.tensor(np.asarray(a)) for a in (inputs, *labels))
    expected = theirs(x)
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=0, atol=1e-4)
    loss = peer.torch_loss(expected, targets, mask)
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    pairs = [(grads[name], getattr(theirs, name)) for name in ("first_reads", "first_weightings")]
    for name, layer in (("controller1", "controller"), ("heads", "heads"), ("output", "output")):
        there = getattr(theirs, layer)
        pairs += [(grads["cell"][name]["kernel"].T, there.weight)]
        pairs += [(grads["cell"][name]["bias"], there.bias)]
    for found, parameter in pairs:
        wanted = parameter.grad.numpy().reshape(found.shape)
        # Relative to the largest: seven steps of float32 on either side.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_a_small_run(script, tmp_path):
    small = ["--batch-sizes", "2", "--length", "2", "--repeats", "3"]
    run(script.main, script.Config, [*small, "--out", str(tmp_path / "run")])
    (row,) = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    rates = row["nnlab, episodes / s"], row["PyTorch, episodes / s"]
    assert min(rates) > 0 and row["times as fast"] == pytest.approx(rates[0] / rates[1], rel=1e-3)
