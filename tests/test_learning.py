"""Every arithmetic learns: all layers of a small network, on the digits, by the recipe of all."""

import functools
from collections.abc import Hashable
from typing import Any

import jax
import optax
import pytest

from nnlab import training, vision
from nnlab.arithmetics import NAMED, lp_adder
from nnlab.models import SmallCNN
from nnlab.optim import adder_recipe

BATCH, STEPS_PER_EPOCH = 64, 1437 // 64
LEARNERS = NAMED | {"lp_adder": lp_adder(optax.linear_schedule(2.0, 1.0, 4 * STEPS_PER_EPOCH))}
SLOW_LEARNERS = {"binary_connect_stochastic", "shift_ps"}


@functools.cache
def digits():
    return vision.standardized(vision.load("digits"))


def without_kernels(optimizer):
    """The optimiser with all kernels held as they were drawn, so that BatchNorm alone learns."""

    def kind(path, _):
        return "held" if path[-1].key.endswith("kernel") else "learns"

    parts: dict[Hashable, Any] = {"held": optax.set_to_zero(), "learns": optimizer}
    return optax.partition(parts, lambda p: jax.tree_util.tree_map_with_path(kind, p))


def trained(arithmetic, epochs, change=lambda optimizer: optimizer):
    """The loss of the last epoch and the test accuracy."""
    train, test = digits()
    model = SmallCNN(10, arithmetic, first=arithmetic, classifier=arithmetic)
    steps = epochs * STEPS_PER_EPOCH
    optimizer = change(adder_recipe(steps, binary_learning_rate=0.01))
    state = training.init(jax.random.key(0), model, optimizer, train[0])
    epoch = training.train_epoch(training.train_step(model, optimizer), BATCH)
    for _ in range(epochs):
        state, metrics = epoch(state, train)
    assert metrics["nonfinite"].max() < 0
    evaluation = jax.jit(training.evaluation(model))(state, test)
    return float(metrics["loss"].mean()), float(evaluation["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_learns_the_digits(name):
    epochs = 24 if name in SLOW_LEARNERS else 8
    loss, accuracy = trained(LEARNERS[name], epochs)
    loss_without, _ = trained(LEARNERS[name], epochs, without_kernels)
    assert accuracy > 0.8 and loss < loss_without / 2
