"""What a start does to a stack of adder layers, and the bounds of an even spread."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.layers import AdderDense
from nnlab.layers.initializers import uniform_between
from nnlab.layers.normalization import batch_norm


def test_units_of_adder_layers_come_to_agree_unless_centres_are_wide():
    """Eight adder layers with BatchNorm and ReLU, their units' correlation and their gradients."""
    width, images, depth = 64, 256, 8
    adders, norm = AdderDense(width), batch_norm(train=True)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
    def measured(key, deviation):
        keys = jax.random.split(key, depth + 2)
        x = nn.relu(jax.random.normal(keys[0], (images, width)))
        params = jax.vmap(lambda key: adders.init(key, x))(keys[2:])
        params = jax.tree.map(lambda w: deviation * w, params)
        stats = norm.init(key, x)

        def layer(x, params):
            y: Any = adders.apply(params, x)
            z = norm.apply(stats, y, mutable=["batch_stats"])[0]
            return nn.relu(z), z

        def scanned(params):
            return jax.lax.scan(layer, x, params)

        y, back, z = jax.vjp(scanned, params, has_aux=True)
        (grads,) = back(jax.random.normal(keys[1], y.shape))
        products = jnp.einsum("lnu,lnv->luv", z, z) / images
        others = (jnp.abs(products).sum((1, 2)) - width) / (width * (width - 1))
        return others, jnp.linalg.norm(grads["params"]["adder_kernel"], axis=(1, 2))

    for deviation, agree in ((1.0, True), (3.0, False)):
        found = [measured(jax.random.key(seed), deviation) for seed in range(3)]
        correlations, norms = (np.asarray(values) for values in zip(*found, strict=True))
        assert (correlations[:, -1] > 0.98).all() if agree else (correlations < 0.3).all()
        # The last layer's gradient has no layer after it: less of it is left by agreement alone.
        # Wide centres gave 93, and three seeds of the others 2 to 9.
        assert (norms[:, -1] < 20).all() if agree else (norms[:, -1] > 50).all()


def test_an_even_spread():
    numbers = uniform_between(-2.0, 6.0)(jax.random.key(0), (10_000,))
    assert numbers.min() >= -2 and numbers.max() <= 6
    # Five standard deviations of a mean, 8 / sqrt(12) each.
    assert abs(float(numbers.mean()) - 2) < 5 * 8 / np.sqrt(12 * 10_000)
