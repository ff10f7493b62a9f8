"""Distillation through a token against PyTorch's losses, and a step of it."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch

from nnlab import training
from nnlab.errors import InputError
from nnlab.models import SmallCNN, VisionTransformer
from nnlab.training.token_distillation import (
    Taught,
    taught_by,
    token_distillation_loss,
    two_heads_accuracy,
)
from nnlab.vision.vision_transformer import TwoHeads

RNG = np.random.default_rng(0)
Z: Any
D: Any
T: Any
Z, D, T = (RNG.normal(size=(6, 5)).astype(np.float32) for _ in range(3))
LABELS: Any = RNG.integers(0, 5, 6).astype(np.int32)


@pytest.mark.parametrize("hard", [True, False])
def test_losses_are_those_of_pytorch(hard):
    functional = torch.nn.functional
    z, d, t = map(torch.from_numpy, (Z, D, T))
    own = functional.cross_entropy(z, torch.from_numpy(LABELS).long())
    if hard:
        taught = functional.cross_entropy(d, t.argmax(1))
    else:
        log_d, log_t = (functional.log_softmax(logits / 2.5, dim=1) for logits in (d, t))
        nats = functional.kl_div(log_d, log_t, reduction="batchmean", log_target=True)
        taught = 2.5**2 * nats
    loss = token_distillation_loss(hard=hard, alpha=0.3, temperature=2.5)
    outputs: Any = TwoHeads(Z, D)
    found, slopes = jax.value_and_grad(loss)(outputs, Taught(LABELS, T))
    np.testing.assert_allclose(found, 0.7 * own + 0.3 * taught, rtol=1e-6)
    assert all(np.abs(slope).max() > 0 for slope in slopes)
    assert not jax.grad(lambda t: loss(outputs, Taught(LABELS, t)))(T).any()


@pytest.mark.slow
def test_a_step_with_a_teacher():
    """The second head learns the teacher's decisions where the labels say otherwise."""
    images: Any = RNG.normal(size=(8, 8, 8, 1)).astype(np.float32)
    labels: Any = np.zeros(8, np.int32)
    teacher = SmallCNN(classes=3)
    variables = teacher.init(jax.random.key(1), images)
    decisions = np.asarray(teacher.apply(variables, images)).argmax(-1)
    model = VisionTransformer(3, 4, 16, 1, 2, 16, distilled=True)
    optimizer = optax.adam(3e-3)
    state = training.init(jax.random.key(0), model, optimizer, images)
    step = jax.jit(
        training.train_step(
            model,
            optimizer,
            token_distillation_loss(),
            mix=taught_by(teacher, variables),
            metrics=two_heads_accuracy,
        )
    )
    for _ in range(60):
        state, metrics = step(state, (images, labels))
    outputs: Any = model.apply({"params": state.params}, images, train=True)
    assert (outputs.logits.argmax(-1) == 0).all()
    assert (outputs.distilled.argmax(-1) == decisions).all()
    assert set(metrics) == {"loss", "accuracy", "nonfinite"}
    mean: Any = model.apply({"params": state.params}, images)
    np.testing.assert_allclose(mean, (outputs.logits + outputs.distilled) / 2, atol=1e-6)


def test_what_it_does_not_take():
    wrong: Any = ({"alpha": 1.5}, {"temperature": 0.0})
    for options in wrong:
        with pytest.raises(InputError, match="must be"):
            token_distillation_loss(**options)
    pairs: Any = ((Z, Taught(LABELS, T)), (TwoHeads(Z, D), LABELS))
    for outputs, labels in pairs:
        with pytest.raises(InputError, match="needs outputs with logits and distilled"):
            token_distillation_loss()(outputs, labels)
    with pytest.raises(InputError, match="teacher"):
        token_distillation_loss()(TwoHeads(Z, D), Taught(LABELS, T[:, :3]))
