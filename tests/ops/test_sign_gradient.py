"""The sign of a gradient in place of the gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.ops.sign_gradient import sign_cotangent
from nnlab.training.parallel import data_mesh


def layer(x, w):
    return jnp.tanh(x @ w) + x.sum() * w[0]


@pytest.mark.parametrize("jitted", [False, True])
def test_the_value_is_unchanged_and_the_cotangents_are_signs(jitted):
    rng = np.random.default_rng(0)
    x, w, g = (jnp.float32(rng.normal(size=shape)) for shape in ((2, 3), (3, 4), (2, 4)))
    signed = sign_cotangent(layer)
    if jitted:
        signed = jax.jit(signed)
    y, pull = jax.vjp(signed, x, w)
    value, true_pull = jax.vjp(jax.jit(layer), x, w)
    np.testing.assert_array_equal(y, value)
    for got, true in zip(pull(g), true_pull(g), strict=True):
        assert got.dtype == true.dtype
        np.testing.assert_array_equal(got, np.sign(true))


def test_golden_values():
    # d/dx of sum a x^2 is 2 a x: 6, -8 and 0
    gradient = jax.grad(sign_cotangent(lambda x: jnp.sum(jnp.array([1.0, 2, 0]) * x**2)))
    assert jax.jit(gradient)(np.asarray([3, -2, 5], np.float32)).tolist() == [1, -1, 0]


def test_the_sign_is_of_the_sum_over_all_uses():
    # 3x - 2x + x: the sum of the signs would be 1 too, of 3x - x - x - x it would be -2
    for uses, sign in ((3, 0), (4, 1)):
        gradient = jax.grad(sign_cotangent(lambda x, n=uses: n * x - x - x - x))
        assert jax.jit(gradient)(1.0) == sign


def test_trees_keywords_integers_and_what_is_around():
    around = np.asarray([2, -3], np.float32)

    @sign_cotangent
    def f(params, index, *, scale):
        """Some words."""
        return scale * (jnp.asarray(params["a"])[index] * around).sum() - 5 * params["b"]

    assert f.__name__ == "f" and f.__doc__ == "Some words."
    params = {"a": np.ones((3, 2), np.float32), "b": np.ones((), np.float32)}
    gradients: Any = jax.jit(jax.grad(f), static_argnums=1)(params, 1, scale=7.0)
    assert gradients["a"].tolist() == [[0, 0], [1, -1], [0, 0]] and gradients["b"] == -1
    gradients = jax.jit(jax.grad(lambda s: f(params, jnp.int32(1), scale=s)))(jnp.float32(7))
    assert gradients == -1  # of 2 - 3
    outside = jax.grad(lambda a: sign_cotangent(lambda x: (x * a).sum())(params["a"]))
    assert jax.jit(outside)(np.ones(2, np.float32)).tolist() == [3, 3]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes(dtype):
    gradient = jax.jit(jax.grad(sign_cotangent(lambda x: (x**2).sum())))(
        np.array([3, -2, 0], dtype)
    )
    assert gradient.dtype == dtype and gradient.tolist() == [1, -1, 0]


def test_vmap():
    x, w = jnp.float32([[3, 1], [-1, 1], [0, -4]]), np.ones(2, np.float32)
    signed = sign_cotangent(jnp.vdot)
    each = jax.jit(jax.vmap(jax.grad(signed), (None, 0)))(w, x)
    assert each.tolist() == [[1, 1], [-1, 1], [0, -1]]
    shared = jax.grad(lambda w: jax.vmap(signed, (None, 0))(w, x).sum())
    assert jax.jit(shared)(w).tolist() == [1, -1]  # of 2 and -2


def test_a_nan_stays_one():
    assert np.isnan(jax.jit(jax.grad(sign_cotangent(lambda x: jnp.nan * x)))(1.0))


def test_sgd_by_it_is_sign_sgd():
    target = np.asarray([3, -4, 0.5], np.float32)

    def loss(w):
        return jnp.sum(jnp.cosh(w - target))

    def end(optimizer, loss):
        w: Any = np.zeros(3, np.float32)

        def step(_, carry):
            w, state = carry
            updates, state = optimizer.update(jax.grad(loss)(w), state, w)
            return optax.apply_updates(w, updates), state

        return jax.jit(lambda w: jax.lax.fori_loop(0, 20, step, (w, optimizer.init(w)))[0])(w)

    ours = end(optax.sgd(0.25), sign_cotangent(loss))
    assert ours.tolist() == end(optax.sign_sgd(0.25), loss).tolist() == [3, -4, 0.5]


def test_under_shard_map():
    mesh = data_mesh()
    split, every = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(split, every), out_specs=every)
    def gradient(x, w):
        own = jax.lax.pcast(w, "data", to="varying")
        return jax.lax.psum(jax.grad(sign_cotangent(lambda w: (x @ w).sum()))(own), "data")

    x = np.asarray([[1, -2], [3, -4]], np.float32)
    assert gradient(x, np.ones(2, np.float32)).tolist() == [1, -1]
