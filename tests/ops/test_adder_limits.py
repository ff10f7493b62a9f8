"""Adder products at their limits: nothing to sum, NaN, large numbers, memory, compilations."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.ops.adder import adder_conv, adder_dense


@pytest.mark.parametrize(
    "shape, kernel_shape, rule",
    [
        ((0, 3, 3, 2), (2, 2, 2, 4), "sign"),
        ((2, 3, 3, 0), (2, 2, 0, 4), "full"),
        ((2, 3, 3, 2), (2, 2, 2, 0), "sign"),
        ((2, 0, 3, 2), (2, 2, 2, 4), "full"),  # two rows of padding only
        ((2, 0, 3, 2), (2, 2, 2, 4), "sign"),
    ],
)
def test_empty_convolutions(shape, kernel_shape, rule):
    x, kernel = np.zeros(shape, np.float32), np.ones(kernel_shape, np.float32)
    op = functools.partial(adder_conv, padding=((1, 1), (0, 1)), filter_rule=rule, input_rule=rule)

    @jax.jit
    def passes(x, kernel):
        y, pull = jax.vjp(op, x, kernel)
        return y, *pull(jnp.ones_like(y))

    y, dx, dw = passes(x, kernel)
    assert y.shape == (shape[0], shape[1] + 1, 3, kernel_shape[3])
    np.testing.assert_array_equal(y, -np.prod(kernel_shape[:3]))
    assert dx.shape == x.shape and not dx.any()
    np.testing.assert_array_equal(dw, -np.prod(y.shape[:3]))  # positions * (0 - 1)


@pytest.mark.parametrize("shape, features", [((0, 3), 2), ((2, 0), 3), ((2, 3), 0)])
def test_empty_dense(shape, features):
    x, kernel = np.ones(shape, np.float32), np.ones((shape[-1], features), np.float32)

    @jax.jit
    def passes(x, kernel):
        y, pull = jax.vjp(adder_dense, x, kernel)
        return y, *pull(y)

    y, dx, dw = passes(x, kernel)
    assert y.shape == (shape[0], features) and not y.any()
    assert not dx.any() and not dw.any()


def test_nan_and_infinity():
    inf, nan = np.inf, np.nan
    x = jnp.array([[inf, 1.0], [nan, 1.0], [0.0, 1.0]])
    kernel = jnp.array([[0.0, inf], [2.0, 2.0]])
    value = [[-inf, nan], [nan, nan], [-1, -inf]]
    g = jnp.array([[1.0, 2.0], [1.0, 1.0], [1.0, 1.0]])

    @jax.jit
    def passes(x, kernel, g):
        y, pull = jax.vjp(adder_dense, x, kernel)
        return y, *pull(g)

    y, dx, dw = passes(x, kernel, g)
    np.testing.assert_array_equal(y, value)
    # clip(w - x): clip(0 - inf) = -1 and clip(inf - inf) = NaN; x = 1 is 1 below both weights.
    np.testing.assert_array_equal(dx, [[nan, 3], [nan, 2], [1, 2]])
    np.testing.assert_array_equal(dw[1], [-3, -4])
    np.testing.assert_array_equal(np.isnan(dw[0]), [True, True])


def test_a_large_shared_offset_costs_no_digits_of_the_value():
    rng = np.random.default_rng(0)
    x, kernel = (np.asarray(rng.normal(1000, 1, shape), np.float32) for shape in ((6, 72), (72, 5)))
    exact = -np.abs(np.asarray(x, np.float64)[..., None] - np.asarray(kernel)).sum(1)
    # K = 72 terms of one sign: the relative error is below K * eps.
    np.testing.assert_allclose(jax.jit(adder_dense)(x, kernel), exact, rtol=72 * 2.0**-23, atol=0)


def temporary_bytes(kernel_size, differentiate=None, **rules):
    """A layer of a ResNet: 16×16 images, 64 in a batch, 32 channels to 32."""
    x = jax.ShapeDtypeStruct((64, 16, 16, 32), jnp.float32)
    kernel = jax.ShapeDtypeStruct((kernel_size, kernel_size, 32, 32), jnp.float32)
    op = functools.partial(adder_conv, **rules)
    if differentiate is None:
        lowered = jax.jit(op).lower(x, kernel)
    else:
        pull = jax.jit(lambda x, kernel, g: jax.vjp(op, x, kernel)[1](g)[differentiate])
        lowered = pull.lower(x, kernel, x)
    memory: Any = lowered.compile().memory_analysis()
    return memory.temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    "differentiate, rules",
    [
        (None, {}),
        (0, dict(input_rule="clip")),
        (0, dict(input_rule="full")),
        (0, dict(input_rule="sign")),
        (1, dict(filter_rule="full")),
        (1, dict(filter_rule="sign")),
    ],
)
def test_memory_is_a_few_images_whatever_the_kernel(differentiate, rules):
    images = (
        2 * 64 * 16 * 16 * 32 * 4
    )  # bytes of x and y; [positions, in, out] are 16 times as many
    three, seven = (temporary_bytes(size, differentiate, **rules) for size in (3, 7))
    assert three < 4 * images
    # 49 taps for 9; only the padding, 6 pixels for 2, may add: (16 + 6)^2 to (16 + 2)^2.
    assert seven < (22 / 18) ** 2 * max(three, images / 8)


def test_a_second_call_does_not_compile():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def pull(x, kernel, g):
        return jax.vjp(functools.partial(adder_conv, strides=[2, 2]), x, kernel)[1](g)

    for number in range(3):
        x = np.full((2, 4, 4, 3), number, np.float32)
        pull(x, np.ones((3, 3, 3, 2), np.float32), np.ones((2, 2, 2, 2), np.float32))
