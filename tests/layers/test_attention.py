"""Attention against PyTorch's layers and brute force, and what masks and a cache promise."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.files import borrow
from nnlab.files.borrowing import Part
from nnlab.layers import Attention
from nnlab.layers.attention import empty_cache

RNG = np.random.default_rng(0)
BATCH, TIME, FEATURES, HEADS = 2, 7, 12, 6
X: Any = RNG.normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
LENGTHS: Any = np.array([4, 7], np.int32)
WRONG: Any = "adder"
MAKE = functools.partial(Attention, HEADS)


def variables_of(layer, scale=0.5):
    shapes = jax.eval_shape(layer.init, jax.random.key(0), X)
    return jax.tree.map(lambda s: scale * RNG.normal(size=s.shape).astype(s.dtype), shapes)


def reference(layer, variables, x, seen):
    """The layer in float64, step by step and head by head; `seen(t, s)` says what counts."""
    w = jax.tree.map(np.float64, variables["params"])
    size, groups = FEATURES // HEADS, HEADS // (layer.key_heads or HEADS)
    q, k, v = (x @ w[n]["kernel"] + w[n]["bias"] for n in ("query", "key", "value"))
    y = np.zeros(x.shape)
    for b in range(len(x)):
        for head in range(HEADS):
            at = slice(head * size, (head + 1) * size)
            of = slice(head // groups * size, (head // groups + 1) * size)
            for t in range(x.shape[1]):
                steps = [s for s in range(x.shape[1]) if seen(b, t, s)]
                scores = np.exp(k[b, steps, of] @ q[b, t, at] / np.sqrt(size))
                y[b, t, at] = scores @ v[b, steps, of] / scores.sum()
    return y @ w["output"]["kernel"] + w["output"]["bias"]


@pytest.mark.parametrize(
    ("options", "lengths", "seen"),
    [
        ({"key_heads": 2}, LENGTHS, lambda b, t, s: True),
        ({"causal": True, "local_window_size": 2}, None, lambda b, t, s: t - 2 <= s <= t),
        pytest.param({}, None, lambda b, t, s: True, marks=pytest.mark.slow),
        pytest.param(
            *({"key_heads": 3, "causal": True}, None, lambda b, t, s: s <= t),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *({"local_window_size": (3, 1)}, LENGTHS, lambda b, t, s: -3 <= s - t <= 1),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_against_a_loop_in_float64(options, lengths, seen):
    layer = MAKE(**options)
    variables = variables_of(layer)
    of_all = seen if lengths is None else lambda b, t, s: seen(b, t, s) and s < lengths[b]
    y = jax.jit(layer.apply)(variables, X, lengths=lengths)
    real = np.arange(TIME) < (LENGTHS if lengths is not None else np.array([TIME] * 2))[:, None]
    expected = reference(layer, variables, X, of_all) if lengths is None else None
    if expected is None:  # steps of padding may see nothing
        expected = reference(layer, variables, X, lambda b, t, s: of_all(b, t, s) or s == t)
    np.testing.assert_allclose(np.asarray(y)[real], expected[real], atol=2e-5)


def test_pytorch_gives_the_same():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(FEATURES, HEADS, batch_first=True).eval()
    torch.nn.init.normal_(theirs.in_proj_bias)
    names = {"output": "out_proj"}
    names |= {n: Part("in_proj", i, 3) for i, n in enumerate(("query", "key", "value"))}
    arrays = {
        name.replace("proj_", "proj."): array.detach().numpy()
        for name, array in theirs.named_parameters()
    }
    shapes = jax.eval_shape(MAKE().init, jax.random.key(0), X)
    variables = jax.device_get(borrow(shapes, arrays, names))
    for causal in (False, True):
        mask = torch.ones(TIME, TIME).triu(1).bool() if causal else None
        x = torch.from_numpy(X)
        expected = theirs(x, x, x, attn_mask=mask, need_weights=False)[0].detach()
        y = jax.jit(MAKE(causal=causal).apply)(variables, X)
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_grouped_queries_are_repeated_heads():
    grouped = MAKE(key_heads=2)
    variables: Any = variables_of(grouped)
    size = FEATURES // HEADS

    def repeated(w):
        heads = w.reshape(*w.shape[:-1], 2, size)
        return np.repeat(heads, HEADS // 2, axis=-2).reshape(*w.shape[:-1], FEATURES)

    params = dict(variables["params"])
    for name in ("key", "value"):
        params[name] = jax.tree.map(repeated, params[name])
    every = jax.jit(MAKE(key_heads=HEADS).apply)({"params": params}, X)
    np.testing.assert_allclose(jax.jit(grouped.apply)(variables, X), every, atol=1e-5)


ROTARY = MAKE(key_heads=3, causal=True, rotary_theta=1e4)


def test_later_steps_change_nothing_to_the_bit():
    variables = variables_of(ROTARY)
    apply = jax.jit(ROTARY.apply)
    other = X.copy()
    other[:, 4] += 1
    y, z = apply(variables, X), apply(variables, other)
    np.testing.assert_array_equal(y[:, :4], z[:, :4])
    assert np.all(np.any(y[:, 4:] != z[:, 4:], axis=-1))


TABLE: Any = RNG.normal(size=(9, FEATURES)).astype(np.float32)


class Reader(nn.Module):
    """Symbols to vectors of fixed numbers, then attention: what `empty_cache` takes."""

    attention: nn.Module

    @nn.compact
    def __call__(self, symbols, lengths=None):
        table = jnp.asarray(TABLE)
        return self.attention(table[symbols], lengths=lengths)


@pytest.mark.parametrize("window", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_a_cache_gives_what_the_whole_text_gives(window):
    """Pieces of 3, 1 and 1, of texts of unequal length; the cache is larger than both."""
    model = Reader(MAKE(key_heads=2, causal=True, rotary_theta=1e4, local_window_size=window))
    symbols: Any = RNG.integers(0, 9, (2, 5)).astype(np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), symbols)
    assert shapes.keys() == {"params"}
    variables = jax.tree.map(lambda s: RNG.normal(size=s.shape).astype(s.dtype), shapes)
    whole = np.asarray(jax.jit(model.apply)(variables, symbols))

    step = jax.jit(functools.partial(model.apply, mutable=["cache"]))
    cache: Any = empty_cache(model, variables, 2, 6)
    first: Any = np.array([3, 2], np.int32)
    y, cache = step(variables | cache, symbols[:, :3], lengths=first)
    np.testing.assert_allclose(y[0], whole[0, :3], atol=1e-5)
    np.testing.assert_allclose(y[1, :2], whole[1, :2], atol=1e-5)
    for more in range(2):
        at = first + more
        y, cache = step(variables | cache, symbols[[0, 1], at][:, None])
        np.testing.assert_allclose(y[:, 0], whole[[0, 1], at], atol=1e-5)
    np.testing.assert_array_equal(cache["cache"]["attention"]["index"], [5, 4])

    # One more fits, then it is full.
    y, cache = step(variables | cache, symbols[:, :1])
    assert np.isfinite(y).all()
    y, _ = step(variables | cache, symbols[:, :1])
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()
    if window is not None:  # what is not compiled takes long
        return
    with pytest.raises(InputError, match="the cache is full: it holds 6 of 6 steps"):
        model.apply(variables | cache, symbols[:, :1], mutable=["cache"])
    with pytest.raises(InputError, match="the cache is of 2 texts, expected one of 1"):
        model.apply(variables | cache, symbols[:1], mutable=["cache"])


def test_a_narrow_cache():
    model = Reader(MAKE(causal=True))
    cache: Any = empty_cache(model, variables_of_reader(model), 1, 4, dtype=jnp.bfloat16)
    kept = cache["cache"]["attention"]
    assert kept["key"].dtype == jnp.bfloat16 and kept["index"].dtype == jnp.int32


def variables_of_reader(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))


@pytest.mark.slow
def test_dropout_of_weights_keeps_their_mean():
    """With values of one, each output is the sum of the kept weights over the rate."""
    layer: Any = MAKE(key_heads=2, causal=True, dropout=0.5, use_bias=False)
    variables: Any = variables_of(layer)
    variables["params"]["value"]["kernel"] = np.zeros((FEATURES, 4), np.float32)
    variables["params"]["value"]["kernel"][0] = 1
    variables["params"]["output"]["kernel"] = np.eye(FEATURES, dtype=np.float32)
    x = np.tile(X, (100, 1, 1))
    x[..., 0] = 1
    y = layer.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})
    assert set(np.unique(np.round(y[:, 0], 5))) == {0.0, 2.0}  # the first step sees itself alone
    np.testing.assert_allclose(y.mean((0, 2)), 1, atol=0.1)
    np.testing.assert_allclose(layer.apply(variables, x), 1, atol=1e-5)


def test_an_arithmetic_attends_in_its_own_way():
    class Uniform(nn.Module):
        """Weights that are all alike, times a parameter."""

        @nn.compact
        def __call__(self, query, key, value, *, mask=None, is_causal=False, **_):
            assert mask is None and not is_causal
            scale = self.param("scale", nn.initializers.constant(2.0), ())
            return scale * jnp.broadcast_to(value.mean(1, keepdims=True), query.shape)

    layer: Any = MAKE(dense=ADDER.dense, norm=ADDER.needs_norm, attention=Uniform)
    variables: Any = variables_of(layer)
    assert variables["params"]["Uniform_0"].keys() == {"scale"}
    assert variables["params"]["query"].keys() == {"adder_kernel", "output_norm"}
    y = np.asarray(jax.jit(layer.apply)(variables, X))
    np.testing.assert_allclose(y, np.repeat(y[:, :1], TIME, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Attention(5), "5 heads do not divide 12 features"),
        (lambda: Attention(6, 4), "4 heads of keys do not divide 6 of queries"),
        (lambda: Attention(4, rotary_theta=1e4), "heads of 3 numbers"),
        (lambda: Attention(4, dense=WRONG), "'adder', expected what makes a layer"),
    ],
)
def test_sizes_that_do_not_fit(make, said):
    with pytest.raises(InputError, match=said):
        jax.eval_shape(make().init, jax.random.key(0), X)
