"""A step is a pure function of the state and the batch, and the gradient step that it should be."""

from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.models import SmallCNN
from nnlab.optim import adder_rate, labels
from nnlab.training import State, init, leaf_name, train_step
from nnlab.training.steps import Step

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(12, 4)).astype(np.float32)
LABELS = {"class": np.arange(12, dtype=np.int32) % 3, "number": INPUTS[:, 0]}
DATA = INPUTS, LABELS
SGD = optax.sgd(0.1, 0.9)


class Net(nn.Module):
    """BatchNorm makes the batch matter, dropout the key; outputs are a tree."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        x = batch_norm(train)(nn.Dense(5)(x))
        y = nn.Dense(4)(nn.Dropout(0.5, deterministic=not train)(x))
        return {"classes": y[:, 1:], "number": y[:, 0]}


def noise(key, inputs):
    return inputs + 0.1 * jax.random.normal(key, inputs.shape)


def loss(outputs, labels):
    logits = optax.softmax_cross_entropy_with_integer_labels(outputs["classes"], labels["class"])
    return jnp.mean(logits + jnp.square(outputs["number"] - labels["number"]))


def hits(outputs, labels):
    return {"hits": jnp.mean(outputs["classes"].argmax(-1) == labels["class"])}


class Steps(NamedTuple):
    start: State
    once: Step
    in_parts: Step


PARTS = 3


@pytest.fixture(scope="module")
def steps() -> Steps:
    options: Any = {"augment": noise, "metrics": hits}
    return Steps(
        init(jax.random.key(0), Net(), SGD, INPUTS),
        jax.jit(train_step(Net(), SGD, loss, **options)),
        jax.jit(train_step(Net(), SGD, loss, accumulate=PARTS, **options)),
    )


def bits(state: State) -> Any:
    return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def test_init_is_a_function_of_the_key_and_the_shape(steps):
    again = init(jax.random.key(0), Net(), SGD, np.full_like(INPUTS, np.nan))
    chex.assert_trees_all_equal(bits(again), bits(steps.start))
    other = init(jax.random.key(1), Net(), SGD, INPUTS)
    assert other.key != steps.start.key and steps.start.key != jax.random.key(0)
    kernels = [np.asarray(s.params["Dense_0"]["kernel"]) for s in (steps.start, other)]
    assert (kernels[0] != kernels[1]).all()
    assert steps.start.step.dtype == jnp.int32 and steps.start.step == 0


def test_a_step_is_pure(steps):
    before = bits(steps.start)
    first, second = steps.once(steps.start, DATA), steps.once(steps.start, DATA)
    chex.assert_trees_all_equal(bits(first[0]), bits(second[0]))
    assert first[1] == second[1]
    chex.assert_trees_all_equal(bits(steps.start), before)
    assert first[0].step == 1
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(bits(first[0])), strict=True):
        assert a is before.key or (a != b).any()
    chex.assert_trees_all_equal_shapes_and_dtypes(first[0], steps.start)


@pytest.mark.parametrize("parts", [1, PARTS])
def test_two_steps_are_those_of_the_gradient_by_hand(steps, parts):
    """The mean over the parts, with keys drawn anew each step, and metrics before the update."""

    @jax.jit
    def by_hand(params, stats, key):
        augment_key, dropout_key = jax.random.split(key)
        batch = noise(augment_key, INPUTS), LABELS
        keys = jax.random.split(dropout_key, parts) if parts > 1 else dropout_key[None]

        def objective(params, inputs, labels, key):
            outputs, updates = Net().apply(
                {"params": params, "batch_stats": stats},
                inputs,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            value = loss(outputs, labels)
            return value, (updates["batch_stats"], {"loss": value, **hits(outputs, labels)})

        # Part i takes examples i, i + parts, …, so that on a mesh it has as many of each device.
        cut = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]), batch)
        over = jax.vmap(jax.grad(objective, has_aux=True), (None, 1, 1, 0))
        return jax.tree.map(lambda a: a.mean(0), over(params, *cut, keys))

    state, params, trace = steps.start, bits(steps.start).params, None
    for number in range(2):
        key = jax.random.fold_in(jax.random.fold_in(steps.start.key, 1), number)
        grads, (stats, measured) = jax.tree.map(np.asarray, by_hand(params, state.batch_stats, key))
        state, metrics = (steps.once if parts == 1 else steps.in_parts)(state, DATA)
        trace = grads if trace is None else jax.tree.map(lambda t, g: 0.9 * t + g, trace, grads)
        params = jax.tree.map(lambda p, t: p - 0.1 * t, params, trace)
        # Sums of a dozen float32 numbers of about 1, in two programs.
        expected = params, stats, measured | {"nonfinite": -1}
        chex.assert_trees_all_close((state.params, state.batch_stats, metrics), expected, atol=2e-6)


def test_a_step_that_is_not_finite_is_not_taken(steps):
    inputs = INPUTS.copy()
    inputs[3, 0] = np.nan
    after, metrics = steps.once(steps.start, (inputs, LABELS))
    chex.assert_trees_all_equal(bits(after), bits(steps.start))
    number = int(metrics["nonfinite"])
    assert leaf_name(steps.start, number) == "batch_stats['BatchNorm_0']['mean']"


class Linear(nn.Module):
    """Logits whose mean has the gradient x."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return (x * self.param("adder_kernel", nn.initializers.zeros, (3, 3))).sum((1, 2))


def linear(optimizer) -> State:
    params = {"adder_kernel": np.zeros((3, 3), np.float32)}
    return State(jnp.int32(0), params, {}, optimizer.init(params), jax.random.key(0))


def test_gradients_are_averaged_before_the_rate_of_an_adder_layer():
    """Of gradients g and -g / 2 the average gets length eta sqrt(k); the rates' mean would be 0."""
    g = RNG.normal(size=(3, 3)).astype(np.float32)
    parts = np.stack([g, -g / 2])[:, None]
    optimizer = optax.chain(optax.partition({"adder": adder_rate(0.2)}, labels), optax.scale(-1.0))
    step = train_step(
        Linear(), optimizer, lambda y, _: y.mean(), axis_name="data", metrics=lambda *_: {}
    )
    mapped = jax.jit(jax.vmap(step, (None, 0), axis_name="data"))
    after, _ = mapped(linear(optimizer), (parts, np.zeros((2, 1), np.int32)))
    expected = -0.2 * 3 * g / np.linalg.norm(g)
    for moved in np.asarray(after.params["adder_kernel"]):
        np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_devices_draw_differently():
    step = train_step(
        Linear(),
        SGD,
        lambda y, _: y.mean(),
        noise,
        axis_name="data",
        combine=lambda g, _: g,
        metrics=lambda *_: {},
    )
    parts = np.ones((2, 1, 3, 3), np.float32), np.zeros((2, 1), np.int32)
    after, _ = jax.jit(jax.vmap(step, (None, 0), axis_name="data"))(linear(SGD), parts)
    one, other = np.asarray(after.params["adder_kernel"])
    assert (one != other).all()


def test_a_batch_without_examples_is_refused(steps):
    nobody = jax.tree.map(lambda a: a[:0], DATA)
    with pytest.raises(InputError, match="no examples"):
        init(jax.random.key(0), Net(), SGD, nobody[0])
    with pytest.raises(InputError, match="no examples"):
        train_step(Net(), SGD)(steps.start, nobody)


def test_accumulation_in_parts_that_do_not_fit_is_refused(steps):
    with pytest.raises(InputError, match=r"^accumulate must be an integer of at least 1, not 0\.$"):
        train_step(Net(), SGD, accumulate=0)
    with pytest.raises(InputError, match=r"batch of 12 examples, not 5"):
        train_step(Net(), SGD, accumulate=5)(steps.start, DATA)


class NnxNetwork(nnx.Module):
    def __call__(self, x, train=False):
        return x


class WithoutTrain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


class OfArithmetic(nn.Module):
    arithmetic: Any = ADDER

    def __call__(self, x, train=False):
        return self.arithmetic.dense(3)(x)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (SmallCNN, "model is the class SmallCNN, expected one of it"),
        ("resnet20", "model is a str; expected a flax.linen.Module"),
        (NnxNetwork(), "NnxNetwork, a module of flax.nnx; expected a flax.linen.Module"),
        (
            OfArithmetic("adder"),
            "arithmetic of OfArithmetic is 'adder', expected the arithmetic itself, nnlab.arith",
        ),
        (WithoutTrain(), "its __call__ lacks the argument `train: bool = False`"),
    ],
)
def test_what_is_no_model_is_named(model: Any, said):
    with pytest.raises(InputError, match=said):
        init(jax.random.key(0), model, optax.sgd(0.1), jnp.zeros((2, 8, 8, 1)))
