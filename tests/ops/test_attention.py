"""Masks and heads as JAX has them, and adder attention: distances, rules, ranks, own tokens."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.ops.adder_attention import adder_attention
from nnlab.ops.attention import head_products, heads_first, masked_softmax, pairs_allowed
from nnlab.ops.bibert import bibert_attention
from nnlab.ops.convolution import conv
from nnlab.testing import check_gradient_rule

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)


def normal(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dots(query, key, value, *, mask=None, is_causal=False, local_window_size=None):
    """Dot-product attention, of the parts that other attentions are made of."""
    allowed = pairs_allowed(query, key, mask, is_causal, local_window_size)
    queries, keys, values = heads_first(query, key, value)
    scores = head_products(conv, queries, keys) / math.sqrt(query.shape[-1])
    return head_products(conv, masked_softmax(scores, allowed), values).swapaxes(1, 2)


def test_masks_and_groups_are_those_of_jax():
    q, k, v = normal(0, 2, 5, 6, 4), normal(1, 2, 7, 3, 4), normal(2, 2, 7, 3, 4)
    mask: Any = np.random.default_rng(0).random((2, 1, 5, 7)) < 0.7
    cases: Any = [
        {},
        {"is_causal": True},
        {"local_window_size": (2, 1), "mask": mask[:, :, :1]},
        {"local_window_size": 1, "is_causal": True, "mask": mask[:1]},
    ]

    @jit
    def both(q, k, v):
        theirs = functools.partial(jax.nn.dot_product_attention, q, k, v)
        return [(dots(q, k, v, **case), theirs(**case)) for case in cases]

    for ours, theirs in both(q, k, v):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bad_shapes_and_masks():
    q, k = jnp.ones((2, 5, 6, 4)), jnp.ones((2, 7, 3, 4))
    for args, said in [
        ((q, k, k[..., :2]), r"^an attention expects query \[batch"),
        ((q, k[:, :, :2][..., :3], k[:, :, :2][..., :3]), "of one batch and head size"),
        ((q[:, :, :5], k, k), "heads that those of key divide"),
    ]:
        with pytest.raises(InputError, match=said):
            adder_attention(*args)
    with pytest.raises(InputError, match=r"must be boolean and broadcast.*float32"):
        bibert_attention(q, k, k, mask=jnp.ones((1, 1, 5, 7)))


def reference(q, k, v, own):
    """Adder attention in float64, from all distances."""
    q, k, v = (np.asarray(a, np.float64).swapaxes(1, 2) for a in (q, k, v))
    distances = np.abs(q[..., :, None, :] - k[..., None, :, :]).sum(-1)
    scores = -distances / math.sqrt(q.shape[-1] * (2 - 4 / math.pi))
    seen = np.exp(scores - scores.max(-1, keepdims=True))
    return ((seen / seen.sum(-1, keepdims=True) + own) @ v).swapaxes(1, 2)


def test_adder_attention_in_float64():
    q, k, v = (normal(seed, 2, 6, 2, 5) for seed in range(3))
    y = jit(adder_attention)(q, k, v)
    np.testing.assert_allclose(y, reference(q, k, v, np.eye(6)), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_query_with_a_cache_of_keys_is_what_it_is_without():
    q, k, v = (normal(seed, 1, 6, 2, 4) for seed in range(3))
    whole = jit(functools.partial(adder_attention, is_causal=True))(q, k, v)
    cache: Any = np.arange(6)[None, None, None] <= np.array([3, 4])[:, None]
    part = jit(functools.partial(adder_attention, mask=cache))(q[:, 3:5], k, v)
    np.testing.assert_allclose(part, whole[:, 3:5], rtol=1e-5, atol=1e-6)


def effective_rank(matrix):
    """The exponential of the entropy of singular values."""
    values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    share = values / values.sum()
    return np.exp(-(share * np.log(share)).sum())


def test_the_identity_restores_the_rank_of_the_map():
    """The values are unit vectors, so that the output is the map; figures as found elsewhere."""
    q, k = normal(0, 1, 65, 1, 64), normal(1, 1, 65, 1, 64)
    distances = np.abs(q[0, :, None, 0] - k[0, None, :, 0]).sum(-1)
    assert distances.mean() == pytest.approx(2 * 64 / math.sqrt(math.pi), rel=0.01)
    assert distances.std() == pytest.approx(6.820, rel=0.05)
    keys = [np.eye(65, dtype=np.float32)[None, :, None, i : i + 64] for i in (0, 1)]

    @jit
    def maps(q, k):
        by_root = functools.partial(adder_attention, q, k, scale=1 / 8)
        of = [
            lambda v: jax.nn.dot_product_attention(q, k, v),
            functools.partial(by_root, identity=False),
            by_root,
            lambda v: adder_attention(q, k, v, identity=False),
        ]
        return [jnp.concatenate([f(keys[0]), f(keys[1])[..., -1:]], -1)[0, :, 0] for f in of]

    dot, adder, with_identity, own_scale = map(effective_rank, maps(q, k))
    raw = effective_rank(-distances)
    assert raw < adder < dot < with_identity
    expected = pytest.approx([5.1, 31.2, 38.7, 64.4], rel=0.2)
    assert [raw, adder, dot, with_identity] == expected
    assert adder < own_scale < with_identity  # a steeper softmax


@pytest.mark.slow
def test_rules_of_adder_attention():
    q, k = normal(0, 1, 4, 1, 3), normal(1, 1, 5, 1, 3)

    def scores(q, k):
        """The weights of attention: values that are unit vectors leave them as they are."""
        v = np.eye(5, 3, dtype=np.float32)[None, :, None]
        return adder_attention(q, k, jnp.asarray(v), scale=1.0, identity=False)

    def value(q, k):
        distances = jnp.abs(q[0, :, None, 0] - k[0, None, :, 0]).sum(-1)
        return jax.nn.softmax(-distances, -1)[None, :, None, :3]

    def potential(q, k):
        d = q[0, :, None, 0] - k[0, None, :, 0]
        huber = jnp.where(jnp.abs(d) <= 1, d * d / 2, jnp.abs(d) - 0.5).sum(-1)
        exact = jax.lax.stop_gradient(jnp.abs(d).sum(-1) - huber)  # values are those of distances
        return jax.nn.softmax(-huber - exact, -1)[None, :, None, :3]

    check_gradient_rule(scores, [q, k], value=value, potentials=[potential] * 2, thorough=False)
