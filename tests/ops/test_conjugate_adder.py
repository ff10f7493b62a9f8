"""Conjugate adder products against minima of magnitudes; sums of quarters are exact in float32."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.ops.conjugate_adder import conjugate_adder_conv
from nnlab.testing import check_gradient_rule, image_windows

OPTIONS: Any = dict(strides=(2, 1), padding=((1, 0), (2, 1)), kernel_dilation=(2, 1))


def quarters(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 4, np.float32)


def minima(x, kernel, **options):
    x = image_windows(x, kernel.shape, **options)[..., None]
    signs = jnp.sign(x) * jnp.sign(kernel)
    return (2 * signs * jnp.minimum(jnp.abs(x), jnp.abs(kernel))).sum((3, 4, 5))


def potential(x, kernel, **options):
    x = image_windows(x, kernel.shape, **options)[..., None]
    # d sgn d is |d| with slope 0 at 0.
    up, down = x + kernel, x - kernel
    return (up * jnp.sign(up) - down * jnp.sign(down)).sum((3, 4, 5))


def test_golden():
    # Inputs 3, -1, 2 and weights 1, 2, 2: 2 (1 - 1 + 2) = 4. The smaller magnitude learns, by twice
    # the other's sign: w of the first, x of the second, and at the tie each by once.
    x = np.asarray([3.0, -1.0, 2.0], np.float32).reshape(1, 1, 1, 3)
    kernel = np.asarray([1.0, 2.0, 2.0], np.float32).reshape(1, 1, 3, 1)

    @jax.jit
    def passes(x, kernel):
        y, pull = jax.vjp(conjugate_adder_conv, x, kernel)
        return y, *pull(jnp.ones_like(y))

    y, dx, dw = passes(x, kernel)
    assert y.item() == 4
    assert np.ravel(dx).tolist() == [0, 2, 1] and np.ravel(dw).tolist() == [2, 0, 1]


@pytest.mark.slow
def test_rules_are_the_gradients():
    slopes = functools.partial(potential, **OPTIONS)
    x, kernel = quarters(0, 2, 5, 4, 2), quarters(1, 2, 3, 2, 3)
    check_gradient_rule(
        functools.partial(conjugate_adder_conv, **OPTIONS),
        [x, kernel],
        value=functools.partial(minima, **OPTIONS),
        potentials=[slopes, slopes],
        errors=[([x[0], kernel], r"^conjugate_adder_conv expects x .*\(5, 4, 2\) and \(2, 3, 2")],
        rtol=0,
        atol=0,
    )


def test_padding_adds_nothing():
    x, kernel = quarters(0, 1, 3, 3, 2), quarters(1, 3, 3, 2, 2)
    padded, op = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), jax.jit(conjugate_adder_conv)
    valid = jax.jit(functools.partial(conjugate_adder_conv, padding="VALID"))
    np.testing.assert_array_equal(op(x, kernel), valid(padded, kernel))
    assert not np.any(op(np.zeros_like(x), kernel))
