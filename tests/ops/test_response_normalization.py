"""Local response normalisation against its equation and against PyTorch's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.ops.response_normalization import local_response_norm


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(scale=8, size=shape).astype(np.float32)


def of_torch(x, g, size, alpha, beta, k):
    """Values and gradients in float64 of [batch, height, width, channels]; alpha as the paper's."""
    import torch

    given = torch.tensor(np.moveaxis(x, -1, 1), dtype=torch.float64, requires_grad=True)
    y = torch.nn.LocalResponseNorm(size, alpha * size, beta, k)(given)
    y.backward(torch.tensor(np.moveaxis(g, -1, 1), dtype=torch.float64))
    assert given.grad is not None
    return [np.moveaxis(a.numpy(), 1, -1) for a in (y.detach(), given.grad)]


def written_out(x, size, alpha, beta, k):
    """(1) of every channel by itself."""
    channels, results = x.shape[-1], []
    for c in range(channels):
        near = [j for j in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= j < channels]
        d = k + alpha * sum(x[..., j] ** 2 for j in near)
        results.append(x[..., c] * d**-beta)
    return jnp.stack(results, axis=-1)


def test_value_and_gradient_are_those_of_the_equation():
    x, g, options = drawn(3, 7), drawn(3, 7, seed=1), (4, 0.3, 0.75, 1.0)

    def passes(op, x, g):
        y, pull = jax.vjp(lambda x: op(x, *options), x)
        return y, *pull(g)

    ours = jax.jit(lambda *a: passes(local_response_norm, *a))(x, g)
    with jax.enable_x64(True):
        wide = np.float64(x), np.float64(g)
        expected = jax.jit(lambda *a: passes(written_out, *a))(*wide)
    for got, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)  # see below


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "size", "alpha", "beta", "k"),
    [(9, 5, 1e-4, 0.75, 2.0), (7, 4, 0.3, 0.75, 1.0), (3, 5, 0.1, 0.5, 2.0), (4, 1, 1.0, 2.0, 0.5)],
)
def test_value_and_gradient_are_pytorchs_with_alpha_times_the_size(channels, size, alpha, beta, k):
    x, g = drawn(2, 3, 2, channels), drawn(2, 3, 2, channels, seed=1)

    def normalized(x):
        return local_response_norm(x, size, alpha, beta, k)

    y, back = jax.vjp(jax.jit(normalized), jnp.asarray(x))
    value, gradient = of_torch(x, g, size, alpha, beta, k)
    # exp(-beta log d) of a d up to 1e3: relative error beta log(d) eps, about 20 units in the last
    # place at most; the gradient is a difference of terms up to 50 at which that error arises.
    np.testing.assert_allclose(y, value, rtol=2e-6)
    np.testing.assert_allclose(back(jnp.asarray(g))[0], gradient, rtol=1e-5, atol=2e-5)


def test_golden_value_by_hand():
    # d = 2 + 1e-4 (1 + 4 + 9 + 16) for the third of 1 2 3 4: y = 3 / 2.003 ** 0.75.
    y = jax.jit(local_response_norm)(np.asarray([1, 2, 3, 4], np.float32))
    np.testing.assert_allclose(np.asarray(y)[2], 3 / 2.003**0.75, rtol=1e-6)


def test_keeps_half_precision_outside_and_computes_in_float32():
    x = jnp.asarray(drawn(4, 9), jnp.bfloat16)
    op = jax.jit(lambda x: local_response_norm(x, alpha=0.1))
    y, exact = op(x), op(x.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_gradient_keeps_no_more_than_a_few_copies_of_the_input():
    x = np.zeros((8, 16, 16, 64), np.float32)
    gradient = jax.jit(jax.grad(lambda x: local_response_norm(x).sum()))
    memory: Any = gradient.lower(x).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 3 * x.nbytes


@pytest.mark.parametrize("options", [{"size": 0}, {"k": 0.0}, {"alpha": -1.0}])
def test_refuses_what_has_no_value(options):
    with pytest.raises(InputError, match="local_response_norm needs"):
        local_response_norm(jnp.ones((1, 4)), **options)


def test_refuses_integers_and_scalars():
    with pytest.raises(TypeError, match="floating x, not int32"):
        local_response_norm(jnp.ones((1, 4), jnp.int32))
    with pytest.raises(InputError, match=r"x \[..., channels\], not \(\)"):
        local_response_norm(jnp.ones(()))
