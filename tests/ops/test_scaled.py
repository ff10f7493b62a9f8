"""Products by codes and a scale: the value in either order, and the cotangents of the second."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count, stored_bytes
from nnlab.ops.bireal import bireal_conv
from nnlab.ops.scaled import signs_by_filter, signs_by_layer
from nnlab.ops.ternary import ternary_conv, ternary_weights
from nnlab.testing import check_gradient_rule, image_windows

OPTIONS: Any = dict(strides=(2, 1), padding=((1, 0), (0, 1)))


def operands() -> Any:
    """Numbers of few bits off -1, 0 and 1, filters of mean size 1 or 1/2: exact in float32.

    In bfloat16 a result is rounded once, and once more where a scale or a slope follows.
    """
    rng = np.random.default_rng(0)
    x = rng.permutation(np.repeat([0.5, -0.5, 1.5, -1.5], 12)).reshape(2, 4, 3, 2)
    sizes = [rng.permutation(np.repeat(two, 4)) for two in ([0.25, 0.75], [0.5, 1.5], [0.25, 1.75])]
    w = np.stack(sizes, axis=-1) * rng.choice([-1, 1], (8, 3))
    return [np.asarray(x, np.float32), np.asarray(w.reshape(2, 2, 2, 3), np.float32)]


def conv_sum(x, w):
    windows = image_windows(x, w.shape, **OPTIONS)
    return jnp.tensordot(windows, w, 3)


def sign(x):
    return jnp.where(x >= 0, 1.0, -1.0)


def clip(x):
    return jnp.clip(x, -1, 1)


def scale(w):
    return jax.lax.stop_gradient(jnp.abs(w).mean((0, 1, 2)))


EXACT: Any = {"rtol": 0, "atol": 0, "bfloat16_rtol": 2**-7}


@pytest.mark.slow
def test_bireal():
    def triangle(x):
        return 2 * clip(x) - clip(x) * jnp.abs(clip(x))

    def value(x, w):
        return np.asarray(conv_sum(sign(x), scale(w) * sign(w)))

    x, w = operands()
    errors = [([x[0], w], r"^binary_conv expects .*\(4, 3, 2\) and \(2, 2, 2, 3\)")]
    check_gradient_rule(
        functools.partial(bireal_conv, **OPTIONS),
        [x, w],
        value=value,
        potentials=[
            lambda x, w: conv_sum(triangle(x), scale(w) * sign(w)),
            lambda x, w: conv_sum(sign(x), scale(w) * clip(w)),
        ],
        errors=errors,
        **EXACT,
    )


def ternary(w):
    w = np.asarray(w)
    threshold = 0.7 * np.abs(w).mean()
    codes = np.where(w > threshold, 1.0, np.where(w < -threshold, -1.0, 0.0))
    return codes * np.abs(w)[codes != 0].mean()


@pytest.mark.slow
def test_ternary():
    x, w = operands()
    # The mean size becomes 2/3, the threshold 0.47, and the mean from there on 7/8.
    w = jnp.where(jnp.abs(w) == 1.75, jnp.sign(w) * 0.75, w)
    check_gradient_rule(
        functools.partial(ternary_conv, **OPTIONS),
        [x, w],
        value=lambda x, w: np.asarray(conv_sum(x, ternary(w))),
        potentials=[
            lambda x, w: conv_sum(x, ternary(jax.lax.stop_gradient(w))),
            lambda x, w: conv_sum(x, w),
        ],
        **EXACT,
    )
    assert np.unique(ternary(w)).tolist() == [-7 / 8, 0, 7 / 8]


def test_golden():
    # The mean of abs is 0.5, the threshold 0.35; above it lie 0.5, 0.75 and 0.625.
    codes, alpha = ternary_weights(jnp.array([[0.5, -0.125], [-0.75, 0.625]]))
    assert codes.tolist() == [[1, 0], [-1, 1]] and float(alpha) == 0.625
    w = jnp.array([[0.0, -1.0], [0.5, 2.0]])
    signs, by_filter = signs_by_filter(w)
    assert signs.tolist() == [[1, -1], [1, 1]] and by_filter.tolist() == [0.25, 1.5]
    assert float(signs_by_layer(w)[1]) == 0.875


@pytest.mark.parametrize("op", [bireal_conv, ternary_conv])
def test_weights_of_zero_give_zero(op):
    x, w = operands()[0], np.zeros((2, 2, 2, 3), np.float32)

    @jax.jit
    def passes(x, w):
        y, pull = jax.vjp(op, x, w)
        return y, pull(y + 1)

    y, cotangents = passes(x, w)
    assert not y.any() and all(np.isfinite(cotangent).all() for cotangent in cotangents)


def test_what_a_term_and_a_weight_cost():
    x, w = (
        jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 8, 5), float),
    )
    terms, outputs = 4 * 4 * 5 * 72, 4 * 4 * 5
    signs = count(bireal_conv, x, w)
    assert signs.bit_operations == {"bool": terms} and signs.additions == {"int8": terms}
    assert signs.multiplications == {"float32": outputs} and not signs.other
    assert signs.comparisons == {"float32": 4 * 4 * 8}  # the signs of the inputs
    three = count(ternary_conv, x, w)
    assert three.multiplications == {"float32": outputs} and three.additions == {"float32": terms}
    assert stored_bytes(lambda w, x: bireal_conv(x, w), w, x) == 360 // 8 + 5 * 4
    assert stored_bytes(lambda w, x: ternary_conv(x, w), w, x) == 360 * 2 // 8 + 4
