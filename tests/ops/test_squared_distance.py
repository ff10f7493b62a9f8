"""Squared distances against differences written out; sums of quarters are exact in float32."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from nnlab.ops.squared_distance import squared_distance_conv
from nnlab.testing import check_gradient_rule, image_windows

OPTIONS: Any = dict(strides=(2, 1), padding=((1, 0), (2, 1)), kernel_dilation=(2, 1))


def quarters(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 4, np.float32)


def squares(x, kernel, **options):
    d = image_windows(x, kernel.shape, **options)[..., None] - kernel
    return -(d**2).sum((3, 4, 5))


def test_golden():
    # Row [1, 3] between zeros, filter [0.5, -1], stride 2: windows [0, 1] and [3, 0] give
    # -(0.25 + 4) and -(6.25 + 1). With g = [1, 2], 2 g d: dw = [-1 + 10, 4 + 4], and 2 g times
    # w - x of the two pixels: dx = [2 (-2), 4 (-2.5)].
    x, kernel = (
        np.asarray([1.0, 3.0], np.float32).reshape(1, 1, 2, 1),
        np.asarray([0.5, -1], np.float32).reshape(1, 2, 1, 1),
    )
    op = functools.partial(squared_distance_conv, strides=(1, 2), padding=((0, 0), (1, 1)))

    @jax.jit
    def passes(x, kernel):
        y, pull = jax.vjp(op, x, kernel)
        return y, *pull(np.asarray([1.0, 2.0], np.float32).reshape(y.shape))

    y, dx, dw = passes(x, kernel)
    assert [np.ravel(a).tolist() for a in (y, dx, dw)] == [[-4.25, -7.25], [-4, -10], [9, 8]]


@pytest.mark.slow
def test_rules_are_the_gradients():
    potential = functools.partial(squares, **OPTIONS)
    x, kernel = quarters(0, 2, 5, 4, 2), quarters(1, 2, 3, 2, 3)
    check_gradient_rule(
        functools.partial(squared_distance_conv, **OPTIONS),
        [x, kernel],
        value=potential,
        potentials=[potential, potential],
        errors=[([x, kernel[:, :, :1]], r"^squared_distance_conv needs as many inputs .* 2 in x")],
        rtol=0,
        atol=0,
    )
