"""BiBERT against PyTorch code of its equations: layers, and attention without softmax."""

import functools
from typing import Any

import jax
import numpy as np
import torch

from nnlab.costs import count
from nnlab.ops.bibert import bibert_attention, bibert_conv
from nnlab.ops.front import over_rows

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


class Step(torch.autograd.Function):
    """The sign, or 1 above 0 and else 0, whose slope is 1 between -1 and 1."""

    @staticmethod
    def forward(ctx, x, low):
        ctx.save_for_backward(x)
        return x.sign().clamp(min=low)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() < 1), None


def normal(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_layer():
    x, w, g = normal(0, 7, 5), normal(1, 5, 6), normal(2, 7, 6)

    @jit
    def passes(x, w):
        y, pull = jax.vjp(functools.partial(over_rows, bibert_conv), x, w)
        return y, *pull(g)

    theirs: Any = [torch.tensor(a, requires_grad=True) for a in (x, w.T)]
    scale = theirs[1].abs().mean(1, keepdim=True).detach()
    centred = theirs[1] - theirs[1].mean(1, keepdim=True)
    clipped = centred.clamp(-1, 1)
    weights = (scale * centred.sign() - clipped).detach() + clipped
    out = torch.nn.functional.linear(Step.apply(theirs[0], -1), weights)
    out.backward(torch.tensor(g))
    y, dx, dw = passes(x, w)
    close(y, out.detach())
    close(dx, theirs[0].grad)
    close(dw.T, theirs[1].grad)


def test_attention():
    q, k, v, g = (normal(seed, 2, 5, 3, 4) for seed in range(4))
    mask: Any = np.ones((2, 1, 1, 5), bool)
    mask[1, ..., 3:] = False
    attention = functools.partial(bibert_attention, mask=mask)

    @jit
    def passes(q, k, v):
        y, pull = jax.vjp(attention, q, k, v)
        return y, *pull(g)

    theirs: Any = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    heads = [Step.apply(a.transpose(1, 2), -1) for a in theirs]
    scores = heads[0] @ heads[1].transpose(2, 3) / 2  # of 4 signs: 0 and 2 in magnitude, or 1
    scores = scores + (1 - torch.tensor(mask).float()) * -10000
    out = (Step.apply(scores, 0) @ heads[2]).transpose(1, 2)
    out.backward(torch.tensor(g))
    y, *gradients = passes(q, k, v)
    close(y, out.detach())
    assert set(np.unique(y)) <= set(range(-5, 6))
    close(gradients[2], theirs[2].grad)
    # At a score of 1 or -1 their slope is 0 and ours 1: with three of four signs alike.
    wide = functools.partial(attention, scale=0.49)
    queries, keys = jit(lambda q, k: jax.vjp(lambda q, k: wide(q, k, v), q, k)[1](g))(q, k)
    theirs: Any = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    heads = [Step.apply(a.transpose(1, 2), -1) for a in theirs]
    scores = heads[0] @ heads[1].transpose(2, 3) * 0.49
    scores = scores + (1 - torch.tensor(mask).float()) * -10000
    (Step.apply(scores, 0) @ heads[2]).transpose(1, 2).backward(torch.tensor(g))
    close(queries, theirs[0].grad)
    close(keys, theirs[1].grad)
    assert np.any(queries)

    counts = count(bibert_attention, q, k, v)
    terms = 2 * (2 * 3 * 5 * 5 * 4)
    assert counts.bit_operations == {"bool": terms} and counts.additions == {"int8": terms}
    assert not counts.other
