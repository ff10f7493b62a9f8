"""Statistics of BatchNorm taken anew, against moments of all examples."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.arithmetics import ADDER, lp_adder
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm

INPUTS = np.random.default_rng(0).normal(1, 2, (40, 5)).astype(np.float32)
LP = lp_adder(optax.constant_schedule(2.0))


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = batch_norm(train, name="norm")(ADDER.dense(3, name="layer")(x))
        return nn.BatchNorm(True, name="frozen")(LP.dense(2, name="lp")(x))


@pytest.fixture(scope="module")
def state():
    return training.init(jax.random.key(0), Network(), optax.sgd(0.1), INPUTS)


def test_they_are_the_moments_of_all_examples(state):
    renewed = training.fresh_statistics(Network(), INPUTS, 8)(state)
    centres = np.asarray(state.params["layer"]["adder_kernel"], np.float64)
    y = -abs(INPUTS[:, :, None].astype(float) - centres).sum(axis=1)
    found = renewed.batch_stats["norm"]
    np.testing.assert_allclose(found["mean"], y.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["var"], y.var(axis=0), rtol=1e-4)
    # Nothing else moves, and whatever was there before, they come out the same.
    assert renewed.batch_stats["lp"] == state.batch_stats["lp"]
    chex.assert_trees_all_close(
        renewed.batch_stats["frozen"], state.batch_stats["frozen"], rtol=1e-5
    )
    again = training.fresh_statistics(Network(), INPUTS, 8)(renewed).batch_stats["norm"]
    np.testing.assert_allclose(again["var"], found["var"], rtol=1e-4)


def test_some_batches_or_none(state):
    few = training.fresh_statistics(Network(), INPUTS, 8, batches=2)(state)
    same = training.fresh_statistics(Network(), INPUTS[:16], 8)(state)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, few.batch_stats, same.batch_stats))
    for size, batches in ((41, 20), (0, 20), (8, 0)):
        with pytest.raises(InputError, match="at least one batch of 1 or more examples"):
            training.fresh_statistics(Network(), INPUTS, size, batches=batches)
