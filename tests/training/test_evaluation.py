"""Evaluation covers every image once, each alone, in batches of a bounded size."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers.normalization import batch_norm
from nnlab.training import (
    State,
    evaluation,
    in_batches,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(-3, 4, (23, 4, 4, 1))
LABELS = RNG.integers(0, 3, 23)
DATA = jnp.asarray(IMAGES, jnp.float32), jnp.asarray(LABELS)


class Net(nn.Module):
    """What differs between training and evaluation."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Dense(3)(x.reshape(len(x), -1))
        return nn.Dropout(0.5, deterministic=not train)(batch_norm(train)(x))


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(3)(x.reshape(len(x), -1))


def squared_error(logits, labels):
    return jnp.square(logits - jax.nn.one_hot(labels, logits.shape[-1])).mean()


def state_of(params, stats: Any = None) -> State:
    return State(jnp.int32(0), params, stats or {}, (), jax.random.key(0))


@pytest.mark.parametrize("batch_size", [1, 5, 23, 500])
def test_covers_every_image_once(batch_size):
    """Whole numbers in, so that all sums are exact in whichever order."""
    kernel = RNG.integers(-3, 4, (16, 3))
    params = {"Dense_0": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.ones(3)}}
    metrics = evaluation(Plain(), squared_error, batch_size)(state_of(params), DATA)
    logits = IMAGES.reshape(23, 16) @ kernel + 1
    loss, accuracy = (
        np.square(logits - np.eye(3)[LABELS]).mean(),
        (logits.argmax(1) == LABELS).mean(),
    )
    # What rounds is the quotient, and the factor by which a compiler may replace it.
    assert float(metrics["loss"]) == pytest.approx(loss, rel=2**-22)
    assert float(metrics["accuracy"]) == pytest.approx(accuracy, rel=2**-22)


def test_sees_each_image_alone_and_draws_nothing():
    shapes = jax.eval_shape(Net().init, jax.random.key(0), DATA[0])
    params, stats = (
        jax.tree.map(lambda s: jnp.asarray(RNG.uniform(0.5, 2, s.shape)), shapes[name])
        for name in ("params", "batch_stats")
    )
    state, evaluate = state_of(params, stats), evaluation(Net(), batch_size=4)
    whole = evaluate(state, DATA)
    alone = [evaluate(state, (DATA[0][i : i + 1], DATA[1][i : i + 1])) for i in range(23)]
    for name, value in whole.items():
        # Rows of a matrix product may round otherwise in another batch.
        assert float(value) == pytest.approx(np.mean([m[name] for m in alone]), rel=1e-5)
    assert evaluate(state._replace(key=jax.random.key(9)), DATA) == whole


@pytest.mark.parametrize("batch_size", [1, 5, 23, 500])
def test_in_batches_is_the_function_with_a_bound_on_its_input(batch_size):
    sizes = []

    def fn(images):
        sizes.append(len(images))
        return {"largest": images.max((1, 2, 3)), "more": (2 * images, images[:, 0])}

    chex.assert_trees_all_equal(in_batches(fn, DATA[0], batch_size), fn(DATA[0]))
    assert max(sizes[:-1]) <= batch_size
