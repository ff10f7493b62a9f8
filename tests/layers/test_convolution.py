"""The float convolution agrees with Flax's on the same parameters.

On small integers every product and every sum is an integer below 2^24, which float32 holds
exactly in any order of summation: values and gradients must be equal, not close.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.layers import Conv


def integers(shape):
    return jnp.asarray(np.random.default_rng(len(shape)).integers(-4, 5, shape), jnp.float32)


WINDOWS = [
    ((3, 3), {}),
    ((1, 1), {"strides": 2}),
    ((5, 2), {"padding": "VALID", "strides": (1, 2)}),
    ((3, 2), {"padding": ((2, 0), (0, 3)), "strides": (2, 3)}),
    ((2, 3), {"kernel_dilation": (3, 2), "strides": 2}),
    ((4,), {"kernel_dilation": 2}),
    ((2, 1, 3), {"padding": "VALID", "strides": (1, 2, 1)}),
]


@pytest.mark.parametrize(("kernel_size", "options"), WINDOWS)
def test_agrees_with_flax(kernel_size, options):
    x = integers((2, *(9, 8, 4)[: len(kernel_size)], 3))
    ours = Conv(4, kernel_size, use_bias=True, **options)
    theirs = nn.Conv(4, kernel_size, use_bias=True, **options)
    shapes = jax.eval_shape(theirs.init, jax.random.key(0), x)
    assert jax.eval_shape(ours.init, jax.random.key(0), x) == shapes
    variables = jax.tree.map(lambda s: integers(s.shape), shapes)

    def value_and_cotangents(layer):
        y, pull = jax.vjp(layer.apply, variables, x)
        return y, pull(integers(y.shape))

    chex.assert_trees_all_equal(
        *map(jax.jit(value_and_cotangents, static_argnums=0), [ours, theirs])
    )


def test_parameters():
    def parameters(**options):
        init = Conv(4, (3, 2), **options).init
        shapes: Any = jax.eval_shape(init, jax.random.key(0), jnp.ones((1, 5, 5, 3)))["params"]
        return {name: (leaf.shape, leaf.dtype.name) for name, leaf in shapes.items()}

    assert parameters() == {"kernel": ((3, 2, 3, 4), "float32")}
    assert parameters(use_bias=True, param_dtype=jnp.bfloat16) == {
        "kernel": ((3, 2, 3, 4), "bfloat16"),
        "bias": ((4,), "bfloat16"),
    }


def test_bfloat16_computes_in_bfloat16_from_float32_parameters():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 3)), jnp.float32)
    ours: Any = Conv(4, (3, 3), use_bias=True, dtype=jnp.bfloat16)
    variables = ours.init(jax.random.key(1), x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    y = ours.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    rounded = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(jnp.float32), (variables, x))
    exact = ours.clone(dtype=jnp.float32).apply(*rounded)
    # Products of bfloat16 numbers are exact in float32; what remains is the rounding of the result.
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8, atol=1e-5)
    grads = jax.eval_shape(jax.grad(lambda v: ours.apply(v, x).sum()), variables)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(grads)} == {"float32"}


def test_weights_start_as_he_normal():
    x = jnp.ones((1, 4, 4, 100))
    w = np.asarray(Conv(100, (3, 3)).init(jax.random.key(0), x)["params"]["kernel"], np.float64)
    # Standard deviation sqrt(2 / fan in). The distribution is cut off, so its kurtosis is below 3
    # and five standard errors of the variance below 5 sqrt(2 / n).
    scaled = w * np.sqrt(900 / 2)
    assert abs(scaled.mean()) < 5 / np.sqrt(w.size)
    assert abs(np.square(scaled).mean() - 1) < 5 * np.sqrt(2 / w.size)


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (Conv(4, (3, 3)), (9, 8, 3), r"conv expects x \[batch.* not shapes \(9, 8, 3\)"),
        (Conv(4, (3,)), (1, 9, 8, 3), r"conv expects x .* \(1, 9, 8, 3\) and \(3, 3, 4\)"),
        (Conv(4, 3), (1, 9, 3), r"conv expects x .* \(1, 9, 3\) and \(3, 3, 3, 4\)"),
        (Conv(4, (3, 3), padding="MIRROR"), (1, 9, 8, 3), "padding must be .* not 'MIRROR'"),
    ],
)
def test_errors_name_what_was_given(layer, shape, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(shape))
