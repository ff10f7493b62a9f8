"""What a start does to the gradients of adder layers, and the bounds of an even spread."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers import AdderDense
from nnlab.layers.initializers import uniform_between
from nnlab.layers.normalization import batch_norm

WIDTH, IMAGES = 128, 512


@pytest.mark.parametrize(
    ("start", "gain", "correlation"),
    [
        # Means of 40 draws, and five times their standard deviations.
        (nn.initializers.normal(1.0), (1.061, 0.088), (0.428, 0.090)),
        (nn.initializers.normal(0.1), (0.623, 0.136), (0.990, 0.004)),
        (nn.initializers.normal(3.0), (1.181, 0.035), (0.095, 0.016)),
    ],
)
def test_gradients_keep_their_size_from_unit_normal_centres_alone(start, gain, correlation):
    keys = jax.random.split(jax.random.key(0), 3)
    x = nn.relu(jax.random.normal(keys[0], (IMAGES, WIDTH)))
    adders = AdderDense(WIDTH, kernel_init=start)
    params = adders.init(keys[1], x)
    norm = batch_norm(train=True)
    stats = norm.init(keys[1], x)

    def normalized(x):
        return norm.apply(stats, adders.apply(params, x), mutable=["batch_stats"])[0]

    y, back = jax.vjp(jax.jit(lambda x: nn.relu(normalized(x))), x)
    g = jax.random.normal(keys[2], y.shape)
    found = jnp.sqrt(jnp.mean(jnp.square(back(g)[0])) / jnp.mean(jnp.square(g)))
    units = np.corrcoef(np.asarray(normalized(x)).T)
    others = np.abs(units[~np.eye(WIDTH, dtype=bool)]).mean()
    for value, (mean, bound) in ((float(found), gain), (others, correlation)):
        assert abs(value - mean) < bound


def test_an_even_spread():
    numbers = uniform_between(-2.0, 6.0)(jax.random.key(0), (10_000,))
    assert numbers.min() >= -2 and numbers.max() <= 6
    # Five standard deviations of a mean, 8 / sqrt(12) each.
    assert abs(float(numbers.mean()) - 2) < 5 * 8 / np.sqrt(12 * 10_000)
