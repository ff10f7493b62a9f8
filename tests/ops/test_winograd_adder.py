"""Winograd's form of the adder, against its equation with matrices written out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.ops.windows import moves_of
from nnlab.ops.winograd_adder import _winograd, winograd_adder_conv

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
AT = np.array([[-1, 1, 1, 0], [0, 1, -1, 1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
BT = np.array([[-1, 0, 1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]])


def quarters(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 4, np.float32)


X, KERNEL = quarters(0, 2, 5, 4, 2), quarters(1, 3, 3, 2, 3)


def l1(d):
    return -d * jnp.sign(d)


def l2(d):
    return -(d**2) / 2


def huber(d):
    return -jnp.where(jnp.abs(d) < 1, d**2 / 2, jnp.abs(d) - 0.5)


def along_axes(matrix, a, first):
    """`a` with `matrix` applied to each axis from `first` on, but the last."""
    for axis in range(first, a.ndim - 1):
        a = jnp.moveaxis(jnp.tensordot(jnp.asarray(matrix, a.dtype), a, (1, axis)), 0, axis)
    return a


def equation(phi, x, kernel):
    """(1) of a "SAME" window in any number of axes, the distances by `phi`."""
    n, *sizes, _ = x.shape
    tiles = [-(-size // 2) for size in sizes]
    pads = ((1, 2 * tile + 1 - size) for tile, size in zip(tiles, sizes, strict=True))
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    filters = jnp.moveaxis(along_axes(G, jnp.moveaxis(kernel, -1, 0), 1), 0, -1)
    y = jnp.zeros((n, *(2 * tile for tile in tiles), kernel.shape[-1]), x.dtype)
    for place in np.ndindex(*tiles):
        corner = [slice(2 * i, 2 * i + 4) for i in place]
        tile = along_axes(BT, x[:, *corner], 1)
        outputs = along_axes(AT, phi(tile[..., None] - filters).sum(-2), 1)
        y = y.at[:, *(slice(2 * i, 2 * i + 2) for i in place)].set(outputs)
    return y[:, *map(slice, sizes)]


LINE = quarters(2, 2, 5, 2), quarters(3, 3, 2, 3)
SPACE = quarters(4, 1, 2, 3, 4, 2), quarters(5, 3, 3, 3, 2, 2)


@pytest.mark.parametrize(
    ("x", "kernel"), [LINE, (X, KERNEL), pytest.param(*SPACE, marks=pytest.mark.slow)]
)
def test_products_in_place_of_distances_give_the_convolution(x, kernel):
    def products(x, w):
        return x @ w

    axes = x.ndim - 2
    moves = moves_of(x.shape[1:-1], kernel.shape[:-2], 1, "SAME", 1)
    assert moves.padding == ((1, 1),) * axes
    y = jit(lambda x, w: _winograd(products, x, w, moves))(x, kernel)
    np.testing.assert_array_equal(y, jit(conv)(x, kernel))


@pytest.mark.parametrize(("x", "kernel"), [LINE, pytest.param(*SPACE, marks=pytest.mark.slow)])
def test_value_along_one_axis_and_three(x, kernel):
    y = jit(winograd_adder_conv)(x, kernel)
    np.testing.assert_array_equal(y, jit(functools.partial(equation, l1))(x, kernel))


def test_every_output_has_five_plus_and_four_minus():
    signs = [np.outer(AT[i], AT[j]) for i, j in np.ndindex(2, 2)]
    assert [((s > 0).sum(), (s < 0).sum()) for s in signs] == [(5, 4)] * 4
    # One filter of ones at its centre: G g G^T is ±1/4 in the middle of the grid. Over an image of
    # zeros its four distances of 1/4 get the signs of the middle of A A^T, worked by hand:
    # -(1 + 1 + 1 + 1) / 4 first, then 0, 0, and 0 below.
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    y = jit(winograd_adder_conv)(np.zeros((1, 2, 2, 1), np.float32), kernel)
    assert np.ravel(y).tolist() == [-1, 0, 0, 0]


@pytest.mark.parametrize(
    ("rules", "potentials"),
    [
        ({}, (huber, l2)),
        pytest.param(
            {"filter_rule": "sign", "input_rule": "sign"}, (l1, l1), marks=pytest.mark.slow
        ),
    ],
)
def test_rules(rules, potentials):
    x, kernel, g = X[:, :3, :2], KERNEL[..., :2], quarters(2, 2, 3, 2, 2)

    def both(op, x, kernel, g):
        y, pull = jax.vjp(op, x, kernel)
        return y, *pull(g)

    results = jit(functools.partial(both, functools.partial(winograd_adder_conv, **rules)))
    of_x, of_kernel = (functools.partial(equation, phi) for phi in potentials)
    expected = jit(lambda *a: (equation(l1, *a[:2]), both(of_x, *a)[1], both(of_kernel, *a)[2]))
    for got, wanted in zip(results(x, kernel, g), expected(x, kernel, g), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_bfloat16_is_rounded_once_and_vmap_is_a_loop():
    x, kernel = LINE
    op = jit(winograd_adder_conv)
    y = op(x, kernel)
    narrow = op(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    np.testing.assert_array_equal(narrow, np.asarray(y).astype(jnp.bfloat16))
    together = jit(jax.vmap(winograd_adder_conv, (0, None)))(np.stack([x, -x]), kernel)
    np.testing.assert_array_equal(together, np.stack([y, op(-x, kernel)]))


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match=r"^winograd_adder_conv expects x .*\(5, 4, 2\)"):
        winograd_adder_conv(X[0], KERNEL)
    with pytest.raises(ValueError, match=r"input_rule must be .* not 'soft'"):
        winograd_adder_conv(X, KERNEL, input_rule="soft")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("kernel", "options"),
    [(KERNEL, {"strides": 2}), (KERNEL, {"kernel_dilation": 2}), (KERNEL[:1, :2], {})],
)
def test_other_windows_are_the_adders(kernel, options):
    ours, theirs = (jit(functools.partial(f, **options)) for f in (winograd_adder_conv, adder_conv))
    np.testing.assert_array_equal(ours(X, kernel), theirs(X, kernel))


def test_it_is_not_the_adder():
    assert not np.array_equal(jit(winograd_adder_conv)(X, KERNEL), jit(adder_conv)(X, KERNEL))
