"""Sequences and volumes: products in one and three dimensions, against all windows written out.

Operands are multiples of 1/4 of magnitude at most 2, so that all sums are exact in float32.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.testing import check_gradient_rule

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ORDER = {1: ("NWC", "WIO", "NWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}

# Shapes of x and of a kernel, and options with an entry for each axis.
TIME = (2, 6, 2), (3, 2, 3), dict(strides=(2,), padding=((1, 2),), kernel_dilation=(2,))
SPACE = (
    (2, 4, 3, 3, 2),
    (2, 1, 2, 2, 3),
    dict(strides=(1, 2, 1), padding=((1, 0), (0, 1), (2, 0)), kernel_dilation=(2, 1, 2)),
)


def quarters(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 4, np.float32)


def operands(shape, kernel_shape) -> Any:
    return [quarters(0, *shape), quarters(1, *kernel_shape)]


def windows(x, taps, strides, padding, kernel_dilation):
    """[batch, *out sizes, *taps, in]."""
    axes = len(taps)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    for axis in reversed(range(axes)):
        reach = (taps[axis] - 1) * kernel_dilation[axis]
        first = np.arange(0, x.shape[1 + axis] - reach, strides[axis])
        pixels = first[:, None] + kernel_dilation[axis] * np.arange(taps[axis])
        x = jnp.moveaxis(jnp.take(x, pixels, axis=1 + axis), 2 + axis, 1 + axes)
    return x


def sum_over_windows(term, x, kernel, **options):
    axes = kernel.ndim - 2
    terms = term(windows(x, kernel.shape[:axes], **options)[..., None], kernel)
    return terms.sum(range(1 + axes, 2 + 2 * axes))


def xla(x, kernel, strides, padding, kernel_dilation):
    order = ORDER[len(strides)]
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=kernel_dilation, dimension_numbers=order
    )


def distance(x, w):
    return -(x - w) * jnp.sign(x - w)


def square(x, w):
    return -((x - w) ** 2) / 2


def huber(x, w):
    d = jnp.abs(x - w)
    return -jnp.where(d < 1, d**2 / 2, d - 0.5)


POTENTIALS = {"full": square, "sign": distance, "clip": huber}


def test_golden():
    # Steps [1, 3] between zeros, filter [0.5, -1], stride 2: windows [0, 1] and [3, 0] give
    # -(0.5 + 2) and -(2.5 + 1). So do two frames of one pixel, between frames of zeros.
    for axes in (1, 3):
        shape = 2, *(1,) * (axes - 1)
        x = np.asarray([1.0, 3.0], np.float32).reshape(1, *shape, 1)
        kernel = np.asarray([0.5, -1], np.float32).reshape(*shape, 1, 1)
        padding = ((1, 1), (0, 0), (0, 0))[:axes]
        y = jax.jit(functools.partial(adder_conv, strides=(2, 1, 1)[:axes], padding=padding))(
            x, kernel
        )
        assert y.shape == (1, *shape, 1)
        assert np.ravel(y).tolist() == [-2.5, -3.5]


@pytest.mark.parametrize(
    ("case", "rules"),
    [(TIME, ("full", "clip")), (SPACE, ("full", "clip")), (SPACE, ("sign", "sign"))],
)
def test_adder_value_and_rules(case, rules):
    *shapes, options = case
    args = operands(*shapes)
    op = functools.partial(adder_conv, filter_rule=rules[0], input_rule=rules[1], **options)

    def passes(fn, x, kernel, g):
        y, pull = jax.vjp(fn, x, kernel)
        return y, *pull(g)

    def references(*args):
        sums = [
            functools.partial(sum_over_windows, phi, **options)
            for phi in (distance, POTENTIALS[rules[1]], POTENTIALS[rules[0]])
        ]
        return [passes(fn, *args)[i] for i, fn in enumerate(sums)]

    g = quarters(2, *jax.eval_shape(op, *args).shape)
    results = jax.jit(functools.partial(passes, op), compiler_options=QUICK)(*args, g)
    for got, expected in zip(
        results, jax.jit(references, compiler_options=QUICK)(*args, g), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_adder_dtypes_and_transformations():
    *shapes, options = SPACE
    x, kernel = operands(*shapes)
    check_gradient_rule(
        functools.partial(adder_conv, **options),
        [x, kernel],
        value=functools.partial(sum_over_windows, distance, **options),
        potentials=[functools.partial(sum_over_windows, p, **options) for p in (huber, square)],
        errors=[
            ([x[0, 0], kernel], r"^adder_conv expects x .* or one or three axes .*, not shapes"),
            ([x[..., :1], kernel], "^adder_conv needs as many inputs .* 1 in x .* 2 in kernel"),
            ([x[:, :1], kernel], "^the window spans 3 pixels of depth, .* has 2"),
        ],
        rtol=0,
        atol=0,
    )


@pytest.mark.slow
def test_conv_is_that_of_xla_in_all_dtypes_and_transformations():
    *shapes, options = TIME
    reference = functools.partial(xla, **options)
    check_gradient_rule(
        functools.partial(conv, **options),
        operands(*shapes),
        value=reference,
        potentials=[reference, reference],
        rtol=0,
        atol=0,
    )


def test_conv_of_volumes_has_the_gradients_of_xla():
    *shapes, options = SPACE

    def passes(op, x, kernel):
        y, pull = jax.vjp(functools.partial(op, **options), x, kernel)
        return y, *pull(quarters(2, *y.shape))

    jit = functools.partial(jax.jit, compiler_options=QUICK)
    results = [jit(functools.partial(passes, op))(*operands(*shapes)) for op in (conv, xla)]
    chex.assert_trees_all_equal(*results)


def test_paddings_by_name():
    for case, padding, theirs in (
        (TIME, "SAME_LOWER", "SAME_LOWER"),
        (TIME, 2, [(2, 2)]),
        (SPACE, "FULL", [(2, 2), (0, 0), (2, 2)]),  # the reach of 2, 1 and 2 taps
    ):
        x, kernel = operands(*case[:2])
        options: Any = case[2]
        ours = jax.jit(functools.partial(conv, **options | {"padding": padding}))
        expected = jax.jit(functools.partial(xla, **options | {"padding": theirs}))
        np.testing.assert_array_equal(ours(x, kernel), expected(x, kernel))


def test_volumes_are_kept_once_and_their_distances_taken_once():
    x, kernel = operands(*SPACE[:2])
    pull = jax.eval_shape(lambda x, kernel: jax.vjp(adder_conv, x, kernel)[1], x, kernel)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) == x.size + kernel.size

    def passes(x, kernel):
        y, pull = jax.vjp(adder_conv, x, kernel)
        return y, *pull(y)

    # 3 passes of 2 or less additions a term; a fourth, to have the copies again, would show.
    terms = jax.eval_shape(adder_conv, x, kernel).size * kernel[..., 0].size
    assert 4 * terms < count(passes, x, kernel).totals()["additions"] < 6 * terms


def test_empty():
    x, kernel = np.ones((2, 3, 2, 2, 0), np.float32), np.ones((2, 1, 1, 0, 2), np.float32)

    @jax.jit
    def passes(x, kernel):
        y, pull = jax.vjp(adder_conv, x, kernel)
        return y, *pull(y)

    assert not any(a.any() for a in passes(x, kernel))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(strides=(1, 2)), r"^strides must be one positive integer, not \(1, 2\)\.$"),
        (dict(padding=(1, 2)), r"^padding must be an integer or one pair of .*, not \(1, 2\)\.$"),
        (dict(padding="CAUSAL"), r"^padding must be .* or one pair of integers, not .CAUSAL.\.$"),
        (dict(padding="VALID", kernel_dilation=9), "^the window spans 19 steps of time, .* has 6"),
    ],
)
def test_errors_speak_of_sequences(options, message):
    with pytest.raises(ValueError, match=message):
        conv(*operands(*TIME[:2]), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(strides=(1, 2)), r"^strides must be one or three positive integers, not \(1, 2\)\.$"),
        (dict(padding=((0, 0),)), r"^padding .* three pairs of integers, none negative, not"),
        (dict(padding="VALID", kernel_dilation=(4, 1, 1)), "^the window spans 5 pixels of depth"),
    ],
)
def test_errors_speak_of_volumes(options, message):
    with pytest.raises(ValueError, match=message):
        conv(*operands(*SPACE[:2]), **options)
