"""Rules teach: a layer learns what another of its kind computes, and networks the digits."""

import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from nnlab import training, vision
from nnlab.arithmetics import NAMED, lp_adder
from nnlab.models import SmallCNN
from nnlab.optim import adder_recipe

BATCH, STEPS_PER_EPOCH = 64, 1437 // 64
# A rule of each family: distances, minima, signs by a straight-through rule, powers of two.
FAMILIES = "adder", "conjugate_adder", "binary", "shift_ps"
# Further quantisers and values, on the digits.
LEARNERS = {
    name: NAMED[name]
    for name in ("adder", "winograd_adder", "shift_add", "shift_ps", "binary_connect_stochastic")
} | {name: NAMED[name] for name in ("xnor", "bireal", "binary_swish", "ternary", "dorefa_4_4_8")}
LEARNERS["adder_posit8"] = NAMED["adder_posit8"]
LEARNERS["lp_adder"] = lp_adder(optax.linear_schedule(2.0, 1.0, 4 * STEPS_PER_EPOCH))
SLOW_LEARNERS = {"binary_connect_stochastic", "shift_ps"}
# These take longer to run than to compile, and get back what tests' flags save in compiling.
COSTLY = {"lp_adder", "winograd_adder"}
OPTIMIZED: Any = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_learns_what_another_of_its_kind_computes(name):
    layer: Any = NAMED[name].dense(4)
    x = jax.random.normal(jax.random.key(0), (256, 8))
    optimizer = optax.adam(0.03)

    @jax.jit
    def losses():
        teacher, student = (layer.init(jax.random.key(seed), x) for seed in (1, 2))
        y = layer.apply(teacher, x)

        def loss(variables):
            return jnp.square(layer.apply(variables, x) - y).mean() / jnp.var(y)

        def step(carry, _):
            variables, state = carry
            value, gradient = jax.value_and_grad(loss)(variables)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(variables, updates), state), value

        return jax.lax.scan(step, (student, optimizer.init(student)), None, 300)[1]

    first, *_, last = losses()
    assert last < first / 2


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
    epoch = epoch.lower(state, train).compile(OPTIMIZED if arithmetic.name in COSTLY else None)
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
