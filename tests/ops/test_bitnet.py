"""BitNet against worked examples, integers, PyTorch's straight-through code and statistics."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.costs import count
from nnlab.layers import BitNetDense
from nnlab.ops.bitnet import bitnet_conv, int8_by_example, ternary_by_mean
from nnlab.ops.front import over_rows
from nnlab.ops.scaled import centred_signs_by_layer, export_weights

W: Any = np.array([[0.2, -0.7, 0.05], [1.1, -0.3, 0.4]], np.float32).T  # [in, out]
X: Any = np.array([[0.5, -1.27, 0.02]], np.float32)
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)


def ternary(x, w):
    return over_rows(bitnet_conv, x, w)


def binary(x, w):
    return over_rows(functools.partial(bitnet_conv, quantizer=centred_signs_by_layer), x, w)


dense, dense_b1, inputs = jit(ternary), jit(binary), jit(int8_by_example)
export = jit(export_weights, static_argnums=1)


def normal(*shape) -> Any:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_the_worked_example():
    codes, scale = export(W, ternary_by_mean)
    assert codes.dtype == jnp.int8 and codes.T.tolist() == [[0, -1, 0], [1, -1, 1]]
    assert scale.dtype == jnp.float32 and scale == pytest.approx(0.4583333, rel=1e-6)
    q, step = inputs(X)
    assert q.tolist() == [[50, -127, 2]] and step.item() == pytest.approx(1 / 100, rel=1e-6)
    assert np.matmul(q, codes).tolist() == [[127, 179]]
    np.testing.assert_allclose(dense(X, W), [[0.5820833, 0.8204167]], rtol=1e-6)

    codes, scale = export(W, centred_signs_by_layer)
    assert codes.T.tolist() == [[1, -1, -1], [1, -1, 1]]
    assert scale == pytest.approx(0.4583333, rel=1e-6)
    np.testing.assert_allclose(dense_b1(X, W), scale / 100 * np.array([[175, 179]]), rtol=1e-6)

    blog = np.array([[0.8, -0.5, 1.2], [-1.5, 0.4, -0.9], [1.3, -0.7, 0.2]], np.float32)
    codes, scale = export(blog, ternary_by_mean)
    assert codes.tolist() == [[1, -1, 1], [-1, 0, -1], [1, -1, 0]]
    assert scale == pytest.approx(np.float32(7.5 / 9), rel=1e-6)


def test_the_sum_is_that_of_integers_to_the_bit():
    x, w = normal(5, 700), normal(700, 3)
    codes, scale = export(w, ternary_by_mean)
    q, step = inputs(x)
    whole = np.asarray(q, np.int64) @ np.asarray(codes, np.int64)
    y = np.float32(whole) * np.float32(scale) * np.asarray(step)
    np.testing.assert_array_equal(dense(x, w), y)
    worst = np.full((1, 131072), 127, np.float32)  # as many terms as float32 sums exactly
    assert dense(worst, np.ones((131072, 1), np.float32)).item() == 127 * 131072


def test_rounding_is_by_threshold_and_half_of_the_scale_is_zero():
    w = normal(40, 50)
    codes, scale = export(w, ternary_by_mean)
    np.testing.assert_array_equal(codes, np.sign(w) * (np.abs(w) > scale / 2))
    half = jnp.array([[1.0, -1.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5]]).T  # of mean size 1
    assert export(half, ternary_by_mean)[0].ravel().tolist() == [1, -1, 0, 0, 1, -1, 1, -1]


def test_a_scale_that_is_derived_again_is_another_one():
    """Why codes and scale are stored together."""
    codes, scale = BitNetDense(2, norm=False).export({"params": {"kernel": W}})
    zeros = np.mean(np.asarray(codes) == 0)
    again, smaller = export(np.asarray(scale * codes), ternary_by_mean)
    np.testing.assert_array_equal(again, codes)
    scale, smaller = float(scale), float(smaller)
    assert smaller == pytest.approx(scale * (1 - zeros), rel=1e-6)
    assert smaller == pytest.approx(0.3056, abs=1e-4) and scale == pytest.approx(0.4583, abs=1e-4)


@jit
def pulled(x, w, g):
    """Values and cotangents of both kinds."""
    made = [jax.vjp(layer, x, w) for layer in (ternary, binary)]
    return [(y, *pull(g)) for y, pull in made]


def test_zeros_give_zeros():
    x, w = np.zeros((4, 5), np.float32), np.zeros((5, 6), np.float32)
    for y, *cotangents in pulled(x, w, np.ones((4, 6), np.float32)):
        assert not y.any() and all(np.isfinite(g).all() for g in cotangents)
    assert not dense(X, 0 * W).any() and not dense(0 * X, W).any()
    assert jnp.isnan(dense(X * np.nan, W)).all()


def straight_through(value, x):
    return x + (value - x).detach()


def bit_linear(x, w, binary):
    """BitLinear of the training tips, in PyTorch, without its norm."""
    s = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
    x = straight_through((x * s).round().clamp(-128, 127) / s, x)
    scale = w.abs().mean()
    if binary:
        w = straight_through(scale * (w - w.mean()).sign(), w)
    else:
        scale = scale.clamp(min=1e-5)
        w = straight_through(scale * (w / scale).round().clamp(-1, 1), w)
    return torch.nn.functional.linear(x, w)


def test_values_and_gradients_of_pytorch():
    x, w, g = normal(4, 5), normal(5, 6), normal(4, 6)
    q, step = map(np.asarray, inputs(x))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    for (y, dx, dw), signs in zip(pulled(x, w, g), (False, True), strict=True):
        theirs: Any = [torch.tensor(a, requires_grad=True) for a in (x, w.T)]
        out = bit_linear(theirs[0], theirs[1], signs)
        out.backward(torch.tensor(g))
        close(y, out.detach())
        close(dx, theirs[0].grad)
        close(dw.T, theirs[1].grad)
        close(dw, (q * step).T @ g)  # no factor of the scale
        codes, scale = export(w, centred_signs_by_layer if signs else ternary_by_mean)
        close(dx, g @ np.asarray(scale * codes).T)


def test_a_convolution_has_a_step_for_each_example():
    x, w = normal(2, 5, 4, 3), normal(3, 3, 3, 2)
    conv = jit(bitnet_conv)
    y = conv(x, w)
    other = conv(np.stack([4 * x[0], x[1]]), w)
    np.testing.assert_array_equal(other, np.stack([4 * y[0], y[1]]))


@pytest.mark.parametrize(
    ("draw", "zeros"), [("normal", 0.3101), ("laplace", 0.3935), ("uniform", 0.25)]
)
def test_the_share_of_zeros(draw, zeros):
    rng = np.random.default_rng(0)
    w = {"uniform": lambda n: rng.uniform(-1, 1, n)}.get(draw, lambda n: getattr(rng, draw)(size=n))
    codes, scale = export(jnp.asarray(w(200_000), jnp.float32), ternary_by_mean)
    assert np.mean(np.asarray(codes) == 0) == pytest.approx(zeros, abs=0.004)
    if draw == "normal":
        assert scale == pytest.approx(0.79788, abs=0.005)


def test_terms_are_additions_of_eight_bits():
    counts = count(ternary, jnp.ones((64, 32)), jnp.ones((32, 48)))
    assert counts.additions == {"int8": 64 * 32 * 48}
    assert counts.multiplications["float32"] == 2 * 64 * 48 + 64 * 32  # scales, and to integers
