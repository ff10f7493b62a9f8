"""Explicit windows: XLA's output sizes, and sentences for what cannot be a window."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.kernels.convolution import convolve
from nnlab.kernels.window import Window
from nnlab.ops.windows import (
    Moves,
    kernel_axes,
    moves_of,
    window_of,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_output_sizes_are_those_of_xla(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    strides, dilation = (
        np.broadcast_to(options[name], 2).tolist() for name in ("strides", "kernel_dilation")
    )

    def theirs(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            options["padding"],
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def ours(x, kernel):
        return convolve(x, kernel, window_of(shape, kernel_shape, **options))

    operands = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, kernel_shape)]
    assert jax.eval_shape(ours, *operands) == jax.eval_shape(theirs, *operands)


def test_golden():
    # 7 rows, stride 2, extent (2 - 1) * 3 + 1 = 4: ceil(7 / 2) = 4 windows reach (4 - 1) * 2 + 4 =
    # 10 rows, 3 of them padding, the odd one below, or above if LOWER. 5 columns need (5 - 1) + 3 =
    # 7, one on each side.
    same = window_of((1, 7, 5, 1), (2, 3, 1, 1), (2, 1), "same", (3, 1))
    lower = window_of((1, 7, 5, 1), (2, 3, 1, 1), (2, 1), "SAME_LOWER", (3, 1))
    assert same == Window((2, 1), ((1, 2), (1, 1)), (3, 1))
    assert lower == same._replace(padding=((2, 1), (1, 1)))


def test_one_integer_is_on_every_side_and_full_lets_every_pixel_meet_every_tap():
    one = window_of((1, 7, 5, 1), (2, 3, 1, 1), 1, 2, (3, 1))
    assert one.padding == ((2, 2), (2, 2))
    full = window_of((1, 7, 5, 1), (2, 3, 1, 1), 1, "full", (3, 1))
    assert full.padding == ((3, 3), (2, 2))
    assert full.positions((7, 5), (2, 3)) == (7 + 4 - 1, 5 + 3 - 1)  # n + k - 1 of extents


def test_moves_along_one_axis_and_three():
    # 7 steps, stride 2, extent 4: see above. Along three axes one integer is for all.
    one = moves_of((7,), (2,), (2,), "SAME", (3,))
    assert one == Moves((2,), ((1, 2),), (3,))
    assert one.plane == Window((1, 2), ((0, 0), (1, 2)), (1, 3))
    three = moves_of((3, 7, 5), (1, 2, 3), 1, "FULL", (5, 3, 1))
    assert three == Moves((1, 1, 1), ((0, 0), (3, 3), (2, 2)), (5, 3, 1))
    assert three.plane == window_of((1, 7, 5, 1), (2, 3), 1, "FULL", (3, 1))


def test_axes_of_a_kernel():
    one: Any = np.int64(3)
    three: Any = np.array([1, 2, 3])
    assert kernel_axes(one) == (3, 3)
    assert [kernel_axes(size) for size in ((3,), [3, 2], three)] == [(3,), (3, 2), (1, 2, 3)]


@pytest.mark.parametrize("size", [0, (1, 0), (), (1, 2, 3, 4), 1.5, "3", None, (2.0, 3)])
def test_what_is_no_kernel_size_is_named(size):
    message = (
        f"kernel_size must be one positive integer, .* three axes, not {re.escape(repr(size))}"
    )
    with pytest.raises(ValueError, match=message):
        kernel_axes(size)


def test_any_integers_give_a_window_of_plain_integers():
    two: Any = np.int64(2)
    pairs: Any = [[two, 1], [0, np.array(3)]]
    dilation: Any = np.array([1, 2])
    window = window_of((1, 9, 9, 1), (3, 3, 1, 1), two, pairs, dilation)
    assert window == Window((2, 2), ((2, 1), (0, 3)), (1, 2))
    assert all(type(n) is int for n in jax.tree.leaves(window))
    assert hash(window) == hash(Window((2, 2), ((2, 1), (0, 3)), (1, 2)))  # a static argument


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(strides=0), r"^strides must be one or two positive integers, not 0\.$"),
        (dict(strides=(1, 2, 3)), r"^strides must be .*, not \(1, 2, 3\)\.$"),
        (dict(strides=1.5), r"^strides must be .*, not 1\.5\.$"),
        (dict(strides="2"), r"^strides must be .*, not '2'\.$"),
        (dict(kernel_dilation=(1, -1)), r"^kernel_dilation must be .*, not \(1, -1\)\.$"),
        (
            dict(padding="CIRCULAR"),
            r'^padding must be "SAME", .* pairs of integers, not .CIRCULAR.\.$',
        ),
        (dict(padding=-1), r"^padding must be an integer or two pairs of .* negative, not -1\.$"),
        (dict(padding=1.5), r"^padding must be an integer or two pairs of .*, not 1\.5\.$"),
        (dict(padding=((0, 0), (0, -1))), r"^padding must be .*, not \(\(0, 0\), \(0, -1\)\)\.$"),
        (dict(padding=((0.5, 1), (1, 1))), r"^padding must be .*, not \(\(0\.5, 1\), "),
        (dict(padding=((0, 0),)), r"^padding must be .*, not \(\(0, 0\),\)\.$"),
        (dict(padding=None), r"^padding must be .*, not None\.$"),
        (
            dict(padding="VALID", kernel_dilation=(3, 1)),
            r"^the window spans 7 pixels of height, but the padded image has 5\.$",
        ),
        (
            dict(padding=((0, 0), (0, 1)), kernel_dilation=(1, 4)),
            r"^the window spans 9 pixels of width, but the padded image has 7\.$",
        ),
    ],
)
def test_errors_name_what_was_given(options, message):
    options = dict(strides=1, padding="SAME", kernel_dilation=1) | options
    with pytest.raises(ValueError, match=message):
        window_of((1, 5, 6, 2), (3, 3, 2, 4), **options)
