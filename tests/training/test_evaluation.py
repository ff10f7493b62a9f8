"""Evaluation covers every example once, each by itself, in batches of a bounded size."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers.normalization import batch_norm
from nnlab.training import State, evaluation, in_batches

RNG = np.random.default_rng(0)
INPUTS = RNG.integers(-3, 4, (23, 4))
LABELS = RNG.integers(0, 3, 23)
DATA = INPUTS.astype(np.float32), LABELS


def squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.square(logits - jax.nn.one_hot(labels, logits.shape[-1])).mean()


class Net(nn.Module):
    """BatchNorm and dropout differ between training and evaluation."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dropout(0.5, deterministic=not train)(batch_norm(train)(nn.Dense(3)(x)))


def test_covers_every_example_once_with_running_statistics():
    """Small whole numbers, so that all sums are exact in whichever order."""
    kernel = RNG.integers(-3, 4, (4, 3))
    mean, scale = np.array([1, -2, 3]), np.array([2, 1, 4])
    params = {
        "Dense_0": {"kernel": kernel, "bias": np.ones(3)},
        "BatchNorm_0": {"scale": scale, "bias": np.zeros(3)},
    }
    stats = {"BatchNorm_0": {"mean": mean, "var": np.full(3, 1 - 1e-5)}}
    params, stats = jax.tree.map(np.float32, (params, stats))
    state = State(jnp.int32(0), params, stats, (), jax.random.key(0))
    logits = (INPUTS @ kernel + 1 - mean) * scale
    loss = np.square(logits - np.eye(3)[LABELS]).mean()
    accuracy = (logits.argmax(1) == LABELS).mean()
    evaluate = evaluation(Net(), squared_error, 5)
    for key in (0, 9):  # nothing is drawn
        metrics = evaluate(state._replace(key=jax.random.key(key)), DATA)
        # What rounds is the quotients, and factors by which a compiler may replace them.
        assert float(metrics["loss"]) == pytest.approx(loss, rel=2**-20)
        assert float(metrics["accuracy"]) == pytest.approx(accuracy, rel=2**-22)
    zero = evaluation(Net(), batch_size=5, weights=lambda s: jax.tree.map(jnp.zeros_like, s.params))
    assert float(zero(state, DATA)["loss"]) == pytest.approx(np.log(3))


@pytest.mark.parametrize("batch_size", [1, 5, 23, 500])
def test_in_batches_is_the_function_with_a_bound_on_its_input(batch_size):
    sizes = []

    def fn(tree):
        sizes.append(len(tree["values"]))
        return {"largest": tree["values"].max(1), "more": (2 * tree["values"], tree["labels"])}

    tree = {"values": INPUTS, "labels": LABELS}
    found = jax.jit(lambda tree: in_batches(fn, tree, batch_size))(tree)
    chex.assert_trees_all_equal(found, fn(tree))
    assert max(sizes[:-1]) <= batch_size
