"""BinaryConnect's products: which weights they take, and when."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.costs import count, stored_bytes
from nnlab.ops.binary import stochastic_binary_weights
from nnlab.ops.binary_connect import binary_connect_conv, stochastic_binary_connect_conv
from nnlab.testing import image_windows


def conv_sum(x, w, **options):
    return jnp.tensordot(image_windows(x, w.shape, **options), w, 3)


def operands() -> Any:
    """Multiples of 1/8 between -1 and 1, so that sums are exact."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-8, 9, (2, 4, 3, 2)) / 8, rng.integers(-8, 9, (2, 2, 2, 3)) / 8
    return np.asarray(x, np.float32), np.asarray(w, np.float32)


def assert_same(op, weights):
    """`op` has the value and the input's cotangent of these weights, and w that of these."""
    x, w = operands()
    options = dict(strides=(2, 1), padding="VALID")

    @functools.partial(jax.jit, static_argnums=0)
    def passes(op, x, w):
        y, pull = jax.vjp(lambda x, w: op(x, w, **options), x, w)
        return y, *pull(y)

    for got, other in zip(passes(op, x, w), passes(conv_sum, x, weights), strict=True):
        np.testing.assert_array_equal(got, other)


def test_deterministic():
    w = operands()[1]
    assert_same(binary_connect_conv, jnp.where(w >= 0, 1.0, -1.0))


def test_stochastic_with_a_key_and_in_evaluation():
    w, key = operands()[1], jax.random.key(3)
    draw = jax.jit(stochastic_binary_weights)(key, w)
    assert (draw != jnp.where(w >= 0, 1.0, -1.0)).any()
    assert_same(lambda *a, **b: stochastic_binary_connect_conv(*a, key=key, **b), draw)
    assert_same(stochastic_binary_connect_conv, w)


def test_what_a_term_and_a_weight_cost():
    x = jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 8, 5), jnp.float32)
    counts = count(binary_connect_conv, x, w)
    assert counts.additions == {"float32": 16 * 5 * 72} and not counts.multiplications
    assert stored_bytes(lambda w, x: binary_connect_conv(x, w), w, x) == 45
    real = count(stochastic_binary_connect_conv, x, w)
    assert real.multiplications == {"float32": 16 * 5 * 72}
    assert stored_bytes(lambda w, x: stochastic_binary_connect_conv(x, w), w, x) == 1440
