"""Integer affine functions against real ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.deployment.bounds import Bounds
from nnlab.deployment.fixed_point import fixed_point
from nnlab.errors import InputError


def test_golden():
    # y = x / 4 + 1 for x in [-8, 8] is 0 at -4; 2^30 / 4 · 12 + 2^29 > 2^31 - 1, and so on down to
    # a shift of 29: 2^27 · 12 + 2^28 = 1.875 · 2^30.
    constants = fixed_point(np.array([0.25]), np.array([1.0]), Bounds(-8, 8))
    assert [n.tolist() for n in constants] == [[-4], [2**27], [29], [0]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    scale=st.floats(-100, 100),
    zero=st.floats(-3e5, 3e5),
    low=st.integers(-200_000, 0),
    width=st.integers(1, 200_000),
)
def test_error_and_range(scale, zero, low, width):
    bounds = Bounds(low, low + width)
    offset = -scale * zero
    center, multiplier, shift, rest = (
        int(n[0]) for n in fixed_point(np.array([scale]), np.array([offset]), bounds)
    )
    half = 2**shift // 2
    x = np.unique(np.linspace(*bounds, 1001).astype(np.int64))
    product = (x - center) * multiplier
    assert abs(product).max() + half <= 2**31 - 1
    y = rest + (product + half) // 2**shift
    allowed = abs(x - center) * 2.0 ** (-shift - 1) + 1 + 1e-6  # of float64 in the expectation
    assert (abs(y - (scale * x + offset)) <= allowed).all()


def test_a_constant_has_no_center():
    center, multiplier, _, offset = fixed_point(np.zeros(2), np.array([3.4, -7.6]), Bounds(-9, 9))
    assert center.tolist() == [0, 0] == multiplier.tolist() and offset.tolist() == [3, -8]


def test_errors():
    with pytest.raises(InputError, match=r"up to 2 times 1e\+10 do not fit in int32"):
        fixed_point(np.array([1e10]), np.array([0.0]), Bounds(0, 2))
    with pytest.raises(InputError, match="is not finite"):
        fixed_point(np.array([np.nan]), np.array([0.0]), Bounds(0, 2))
