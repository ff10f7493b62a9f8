"""Products by packed ternary weights, against the same in floats and a worked example."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.ops.packed_ternary import (
    pack_ternary,
    ternary_dense_int8,
    ternary_dense_packed,
    unpack_ternary,
)

CODES: Any = np.random.default_rng(0).integers(-1, 2, (45, 20)).astype(np.int8)
dense = jax.jit(ternary_dense_packed)


def inputs(*shape) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@jax.jit
def in_floats(x, codes, scale):
    """Training's forward pass: numbers of eight bits and codes travel as floats."""
    largest = jnp.maximum(jnp.abs(x).max(axis=-1, keepdims=True), 1e-5)
    rounded = jnp.clip(jnp.round(x * (127 / largest)), -128, 127)
    return scale * (rounded @ codes.astype(jnp.float32)) * (largest / 127)


def test_worked_example():
    w = np.array([[0.2, -0.7, 0.05], [1.1, -0.3, 0.4]]).T
    scale = np.abs(w).mean()  # 0.4583333
    codes = np.clip(np.round(w / scale), -1, 1).astype(np.int8)
    weights = pack_ternary(codes, scale)
    x = np.array([0.5, -1.27, 0.02], np.float32)
    whole: Any = np.array([50, -127, 2], np.int8)
    assert ternary_dense_int8(whole, weights).tolist() == [127, 179]
    np.testing.assert_allclose(dense(x, weights), [0.5820833, 0.8204167], rtol=1e-6)


@pytest.mark.parametrize("per_byte", [4, 5])
def test_equals_training_to_the_bit(per_byte: Any):
    x = np.concatenate([inputs(2, 6, 45), np.zeros((2, 1, 45), np.float32)], axis=1)
    scale = np.linspace(0.1, 2, 20, dtype=np.float32)
    weights = pack_ternary(CODES, scale, per_byte=per_byte)
    np.testing.assert_array_equal(unpack_ternary(weights), CODES)
    y = dense(x, weights)
    np.testing.assert_array_equal(y, in_floats(x, CODES, scale))
    assert not np.any(y[:, -1]) and y.dtype == jnp.float32
    assert dense(jnp.bfloat16(x), weights).dtype == jnp.bfloat16


def test_gradient_is_that_of_the_product_by_floats():
    weights = pack_ternary(CODES, 0.3)
    g = inputs(7, 20)
    _, pull = jax.vjp(lambda x: dense(x, weights), inputs(7, 45))
    np.testing.assert_allclose(pull(g)[0], g @ (0.3 * CODES.T), rtol=1e-5, atol=1e-5)
    of_scale = jax.grad(
        lambda scale: dense(inputs(7, 45), dataclasses.replace(weights, scale=scale)).sum()
    )
    assert of_scale(weights.scale) == 0


def test_weights_are_a_tree_for_scan_and_vmap():
    square = [np.rot90(CODES[:20], turns) for turns in range(3)]
    each = [pack_ternary(codes, 0.1 * (1 + i)) for i, codes in enumerate(square)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    x = inputs(4, 20)
    looped = jax.jit(lambda x, w: jax.lax.scan(lambda x, w: (dense(x, w), None), x, w)[0])
    expected = x
    for weights in each:
        expected = dense(expected, weights)
    np.testing.assert_array_equal(looped(x, stacked), expected)
    np.testing.assert_array_equal(jax.vmap(dense, (None, 0))(x, stacked)[2], dense(x, each[2]))
    np.testing.assert_array_equal(jax.vmap(dense, (0, None))(x, each[0]), dense(x, each[0]))


def test_a_term_counts_as_an_addition_of_bytes():
    counts = count(ternary_dense_int8, jnp.zeros((7, 45), jnp.int8), pack_ternary(CODES))
    assert counts.additions == {"int8": 7 * 45 * 20} and counts.totals()["multiplications"] == 0


def test_errors():
    weights, bad_number = pack_ternary(CODES), cast(Any, 6)
    bad: list[Any] = [
        (lambda: pack_ternary(CODES.astype(np.int32)), r"expects codes \[in, out\] in int8"),
        (lambda: pack_ternary(CODES[0]), r"not int8 \(20,\)"),
        (lambda: pack_ternary(CODES * np.int8(-128)), "packs -1, 0 and 1, not -128 to 0"),
        (lambda: pack_ternary(CODES, np.ones(3)), r"one scale or 20 of them, not shape \(3,\)"),
        (lambda: pack_ternary(CODES, per_byte=bad_number), "4 or 5 weights in a byte, not 6"),
        (lambda: dense(inputs(3, 44), weights), r"expects x \[\.\.\., 45\] .* not shape \(3, 44\)"),
        (lambda: dense(np.zeros((3, 45), np.int8), weights), "expects a floating x, not int8"),
        (lambda: ternary_dense_int8(inputs(3, 45), weights), "expects an int8 x, not float32"),
    ]
    for call, message in bad:
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(InputError, match=r"^ternary_dense_packed has a gradient rule for reverse"):
        jax.jvp(lambda x: dense(x, weights), [inputs(45)], [inputs(45)])
