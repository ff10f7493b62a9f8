"""Every arithmetic learns: a small network of it on the digits, by the recipe of all."""

import functools

import jax
import optax
import pytest

from nnlab import data, training
from nnlab.arithmetics import NAMED, lp_adder
from nnlab.models import SmallCNN
from nnlab.optim import adder_recipe

EPOCHS, BATCH = 6, 64
STEPS = EPOCHS * (1437 // BATCH)
LEARNERS = NAMED | {"lp_adder": lp_adder(optax.linear_schedule(2.0, 1.0, STEPS // 2))}


@functools.cache
def digits():
    return data.standardized(data.load("digits"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_learns_the_digits(name):
    train, test = digits()
    model = SmallCNN(10, LEARNERS[name])
    optimizer = adder_recipe(STEPS, 0.1, binary_learning_rate=0.01)
    state = training.init(jax.random.key(0), model, optimizer, train[0])
    epoch = training.train_epoch(training.train_step(model, optimizer), BATCH)
    evaluate = jax.jit(training.evaluation(model))
    for _ in range(EPOCHS):
        state, metrics = epoch(state, train)
    assert metrics["nonfinite"].max() < 0
    # One in ten by chance. A network whose inner layers stayed as they were drawn, behind a
    # classifier that learns, comes to less; see `test_a_network_that_cannot_learn_fails_this`.
    assert evaluate(state, test)["accuracy"] > 0.9
