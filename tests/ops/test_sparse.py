"""Masks against sorting in Python, and the product of what they leave."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import stored_bytes
from nnlab.errors import InputError
from nnlab.ops.convolution import conv
from nnlab.ops.sparse import (
    magnitude_mask,
    n_m_bits,
    n_m_mask,
    n_m_sparse,
)
from nnlab.testing import check_gradient_rule

RNG = np.random.default_rng(0)


def quarters(*shape) -> Any:
    """Multiples of 1/4 in [-2, 2], with many equal magnitudes."""
    return np.asarray(RNG.integers(-8, 9, shape) / 4, np.float32)


def kept_by_sorting(values, pruned):
    order = sorted(range(len(values)), key=lambda i: abs(values[i]))  # stable
    kept = np.ones(len(values), bool)
    kept[order[:pruned]] = False
    return kept


def test_magnitude_mask_prunes_exactly_the_smallest():
    w, masks = quarters(3, 4, 5), jax.jit(magnitude_mask)
    for sparsity in (0.0, 0.3, 0.5, 0.9, 1.0):
        mask = masks(w, sparsity)
        assert mask.dtype == bool and mask.shape == w.shape
        expected = kept_by_sorting(np.ravel(w).tolist(), round(sparsity * 60))
        np.testing.assert_array_equal(np.ravel(mask), expected)


@pytest.mark.parametrize(("n", "m", "axis"), [(2, 4, -2), (2, 4, 0), (1, 3, -2), (3, 5, 0)])
def test_n_m_mask_keeps_n_of_every_group(n, m, axis):
    w = quarters(6, 10, 3)  # groups of 4 do not fit in 6 nor 10: the last is shorter
    mask = np.moveaxis(np.asarray(jax.jit(lambda w: n_m_mask(w, n, m, axis))(w)), axis, -1)
    rows = np.moveaxis(np.asarray(w), axis, -1)
    length = rows.shape[-1]
    for index in itertools.product(*map(range, rows.shape[:-1])):
        for start in range(0, length, m):
            group = rows[index][start : start + m].tolist()
            expected = kept_by_sorting(group, max(len(group) - n, 0))
            np.testing.assert_array_equal(mask[index][start : start + m], expected)


def test_golden():
    w = np.asarray([1.0, -3.0, 0.5, 2.0, 4.0, 1.0], np.float32).reshape(6, 1)
    # of 1 3 0.5 2 the largest two are 3 and 2; 4 and 1 are two already
    assert jax.jit(lambda w: n_m_mask(w, 2, 4))(w).ravel().tolist() == [
        False,
        True,
        False,
        True,
        True,
        True,
    ]
    assert jax.jit(magnitude_mask)(w, 0.5).ravel().tolist() == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_n_m_product_has_the_rules_of_the_product_at_its_weights(thorough):
    x = quarters(1, 3, 3, 4)
    magnitudes = RNG.permutation(np.arange(1, 25)) / 8  # no two alike, exact in every dtype
    kernel = np.asarray(magnitudes * RNG.choice([-1, 1], 24), np.float32).reshape(1, 2, 4, 3)

    def plain(x, kernel):
        neighbours = jnp.stack([x, jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)))[:, :, 1:]], 3)
        return (neighbours[..., None] * kernel[0]).sum((3, 4))

    def value(x, kernel):
        second = jnp.sort(jnp.abs(kernel), axis=2)[:, :, 2:3]
        return plain(x, jnp.where(jnp.abs(kernel) >= second, kernel, 0))

    # Of w the rule is the product's for pruned weights too, and linear: the same at any weights.
    check_gradient_rule(
        n_m_sparse(),
        [x, kernel],
        value=jax.jit(value),
        potentials=[value, plain],
        errors=[([x[0], kernel], "^conv expects")],
        rtol=0,
        atol=0,
        thorough=thorough,
    )


def test_bytes_at_rest():
    assert [n_m_bits(2, 4), n_m_bits(2, 4, 8), n_m_bits(1, 4, 16)] == [17, 5, 5]
    kernel = jax.ShapeDtypeStruct((3, 3, 8, 4), jnp.float32)
    x = jax.ShapeDtypeStruct((1, 6, 6, 8), jnp.float32)
    op = n_m_sparse()
    assert stored_bytes(lambda w, x: op(x, w), kernel, x) == 288 * 17 // 8


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (2.0, 4)])
def test_bad_patterns_are_refused(n, m):
    for make in (
        lambda: n_m_sparse(conv, n, m),
        lambda: n_m_mask(jnp.ones((4, 4)), n, m),
    ):
        with pytest.raises(InputError, match=f"0 < n < m, not {n}:{m}"):
            make()
