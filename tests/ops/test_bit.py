"""BiT against PyTorch code of its equations: layers, attention, learnt scales."""

import functools
import math
from typing import Any

import jax
import numpy as np
import pytest
import torch

from nnlab.ops.bit import bit_attention, bit_conv, initial_scale
from nnlab.ops.front import over_rows

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


class Elastic(torch.autograd.Function):
    """An input of one bit with a learnt step size (LSQ)."""

    @staticmethod
    def forward(ctx, x, alpha, signed):
        alpha = alpha.clamp(min=1e-5)
        ctx.save_for_backward(x, alpha)
        ctx.signed = signed
        return alpha * (x.sign() if signed else (x / alpha).round().clamp(0, 1))

    @staticmethod
    def backward(ctx, g):
        x, alpha = ctx.saved_tensors
        u = x / alpha
        low = -1 if ctx.signed else 0
        inside = ((u >= low) & (u <= 1)).float()
        slope = x.sign() if ctx.signed else (u > 1).float() + inside * (u.round() - u)
        return inside * g, (slope * g).sum() / math.sqrt(x.numel()), None


class BinaryWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.abs().mean() * (w - w.mean()).sign()

    @staticmethod
    def backward(ctx, g):
        return g


def normal(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("signed", [True, False])
def test_a_layer_and_its_scale(signed):
    x, w, g, alpha = normal(0, 3, 5, 4), normal(1, 4, 6), normal(2, 3, 5, 6), np.float32(0.8)

    @jit
    def passes(x, w, alpha):
        op = functools.partial(bit_conv, signed=signed)
        y, pull = jax.vjp(functools.partial(over_rows, op), x, w, alpha)
        return y, *pull(g), initial_scale(x, signed)

    theirs: Any = [torch.tensor(a, requires_grad=True) for a in (x, w, alpha)]
    out = Elastic.apply(theirs[0], theirs[2], signed) @ BinaryWeights.apply(theirs[1])
    out.backward(torch.tensor(g))
    y, *gradients, start = passes(x, w, alpha)
    close(y, out.detach())
    for ours, a in zip(gradients, theirs, strict=True):
        close(ours, a.grad)
    close(start, (2 if signed else 4) * np.abs(x).mean())
    assert not np.isnan(passes(0 * x, 0 * w, np.float32(0))[0]).any()
    assert passes(0 * x, w, alpha)[-1] == 1


def test_attention():
    q, k, v, g = (normal(seed, 2, 5, 3, 4) for seed in range(4))
    scales = tuple(np.array([0.7, 1.2, 0.3, 0.9], np.float32))
    mask: Any = np.ones((2, 1, 1, 5), bool)
    mask[1, ..., 3:] = False

    @jit
    def passes(q, k, v, scales):
        y, pull = jax.vjp(functools.partial(bit_attention, mask=mask), q, k, v, scales)
        return y, pull(g)

    theirs: Any = [torch.tensor(a, requires_grad=True) for a in (q, k, v, *scales)]
    heads = [a.transpose(1, 2) for a in theirs[:3]]
    of_query, of_key, of_probability, of_value = theirs[3:]
    scores = Elastic.apply(heads[0], of_query, True) @ Elastic.apply(
        heads[1], of_key, True
    ).transpose(2, 3)
    scores = scores / 2 + (1 - torch.tensor(mask).float()) * -10000
    bits = Elastic.apply(torch.softmax(scores, -1), of_probability, False)
    out = (bits @ Elastic.apply(heads[2], of_value, True)).transpose(1, 2)
    out.backward(torch.tensor(g))
    y, gradients = passes(q, k, v, scales)
    close(y, out.detach())
    for ours, a in zip(jax.tree.leaves(gradients), theirs, strict=True):
        close(ours, a.grad)
    assert np.any(gradients[0])
