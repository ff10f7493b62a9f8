"""ShiftAddViT's attention against PyTorch code of its equations, its masks and its counts."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.layers import ShiftAttention
from nnlab.ops.shift_attention import shift_attention

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def normal(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


Q, K, V, G = (normal(seed, 2, 6, 3, 4) for seed in range(4))
FILTERS = normal(5, 5, 3)


def bits(x, over_batch):
    x = x / x.norm(dim=-1, keepdim=True)
    mean = x.mean() if over_batch else x.mean(-1, keepdim=True)
    clipped = x.clamp(0, 1)
    return ((x > mean).float() - clipped).detach() + clipped


@pytest.mark.parametrize("mean_over", [pytest.param("batch", marks=pytest.mark.slow), "token"])
def test_values_and_gradients_of_pytorch(mean_over):
    @jit
    def passes(*operands):
        y, pull = jax.vjp(functools.partial(shift_attention, mean_over=mean_over), *operands)
        return y, *pull(G)

    theirs: Any = [torch.tensor(a, requires_grad=True) for a in (Q, K, V, FILTERS)]
    q, k, v = (a.transpose(1, 2) for a in theirs[:3])
    q, k = (bits(a, mean_over == "batch") for a in (q, k))
    u = 0.5 * v + q @ (k.transpose(2, 3) @ v) / math.pi
    filters = theirs[3].T[:, None, :, None]
    along = torch.nn.functional.conv2d(v, filters, padding=(2, 0), groups=3)
    out = (u / u.norm(dim=-1, keepdim=True) + along).transpose(1, 2)
    out.backward(torch.tensor(G))
    y, *gradients = passes(Q, K, V, FILTERS)
    close(y, out.detach())
    for ours, a in zip(gradients, theirs, strict=True):
        close(ours, a.grad, rtol=1e-4, atol=1e-5)


def test_tokens_that_a_mask_hides_change_nothing():
    mask: Any = np.ones((2, 1, 1, 6), bool)
    mask[:, ..., 4:] = False
    attend = jit(lambda k, v: shift_attention(Q, k, v, FILTERS, mask=mask))
    other_k, other_v = K.copy(), V.copy()
    other_k[:, 4:], other_v[:, 4:] = 3.0, -7.0
    y = attend(K, V)
    np.testing.assert_array_equal(attend(other_k, other_v), y)
    short = jit(shift_attention)(*(a[:, :4] for a in (Q, K, V)), FILTERS)
    close(y[:, :4], short)
    assert np.isfinite(jit(shift_attention)(0 * Q, 0 * K, 0 * V, FILTERS)).all()


def test_products_are_additions():
    t, d = 64, 32
    q = jnp.ones((1, t, 1, d))
    without = count(lambda q: shift_attention(q, q, q, jnp.zeros((1, 1))), q)
    terms = 2 * t * d * d
    assert terms < without.additions["float32"] < 1.4 * terms
    assert without.multiplications["float32"] < terms


def test_the_layer_and_what_it_does_not_do():
    layer = ShiftAttention()
    variables = jax.eval_shape(layer.init, jax.random.key(0), Q, K, V)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"filters": (9, 1, 3)}}
    for options in ({"is_causal": True}, {"local_window_size": 2}, {"scale": 0.5}):
        with pytest.raises(InputError, match=r"^ShiftAttention sees all tokens"):
            jax.eval_shape(functools.partial(layer.init, **options), jax.random.key(0), Q, K, V)
    with pytest.raises(InputError, match="all keys of a query or none"):
        shift_attention(Q, K, V, FILTERS, mask=jnp.ones((2, 1, 6, 6), bool))
    with pytest.raises(InputError, match="an odd number of taps, not 6, 6 and 4"):
        shift_attention(Q, K, V, FILTERS[:4])
