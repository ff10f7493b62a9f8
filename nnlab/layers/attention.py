r"""Attention with several heads over sequences [batch, time, features], in any arithmetic.

.. math:: y = W_o\,\mathrm{attend}(W_q x,\; W_k x,\; W_v x)                             (1)

.. math:: \mathrm{attend}(q, k, v)_t = \sum_s
          \mathrm{softmax}_s\!\left(q_t \cdot k_s / \sqrt h\right) v_s                  (2)

for each head of size h. The four projections W are layers of the arithmetic; eq. 2 is
`jax.nn.dot_product_attention`, or what the arithmetic has in its place.

**Grouped queries.** With fewer `key_heads` than `heads`, consecutive query heads share one head of
keys and values, which makes a cache smaller by that factor.

**Masks.** A causal layer attends to no later step. `local_window_size` limits how far back and
forth it sees, `lengths` [batch] says how many steps of each sequence count, as in
`nnlab.layers.sequences`, and `mask` is for anything else. A causal layer needs no mask of padding,
because padding comes last.

**Rotary positions** turn pairs of numbers of queries and keys, so that products depend on distances
alone; see `nnlab.layers.rotary`, also for longer texts than a network was trained on.

**The cache** holds keys and values of the steps before, in the Flax collection "cache", so that a
text is read in pieces and written symbol by symbol:

    cache = empty_cache(model, variables, batch=1, capacity=256)
    logits, cache = model.apply(variables | cache, symbols, mutable=["cache"])
    logits, cache = model.apply(variables | cache, next_symbols, mutable=["cache"])

It is a tree of arrays of one shape for all steps: `key` and `value` [batch × key heads, head size,
capacity], in the order in which products take them, and `index` [batch], how many steps of each
text it holds. With `lengths` the texts of a batch differ in length: what is padding in one piece is
overwritten by the next. A piece that finds no room is refused where the index is known, and has
outputs that are NaN under `jax.jit`.

References:
    Vaswani et al., Attention is all you need, 2017, https://arxiv.org/abs/1706.03762, section 3.2.
    Ainslie et al., GQA, 2023, https://arxiv.org/abs/2305.13245, for grouped queries.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype, Initializer
from jax import lax
from jax.core import Tracer
from jax.typing import DTypeLike

from nnlab.errors import InputError
from nnlab.layers.projections import Projection
from nnlab.layers.rotary import Scaling, rotary
from nnlab.layers.sequences import check_sequence


class Attention(nn.Module):
    """Attention of a sequence to itself, [batch, time, m] to [batch, time, m].

    Attributes:
        heads: number of heads of queries.
        key_heads: number of heads of keys and values; by default as many.
        head_size: h; by default m / heads.
        causal: whether a step sees no later one. Only then is there a cache.
        local_window_size: how many steps before and after itself a step sees; one number for both.
        rotary_theta: base of the angles of rotary positions; without them if None.
        rotary_scaling: changes their rates, as `nnlab.layers.rotary` has it.
        interleaved: whether rotary pairs are neighbours.
        use_bias: whether the projections have biases.
        dense: makes the layer of each projection, called as `dense(features, use_bias=…, dtype=…)`.
        attention: what computes eq. 2, with the face of `jax.nn.dot_product_attention`; a class of
            modules is made first. See `nnlab.arithmetics.Arithmetic.attention`.
        norm: whether a LayerNorm follows each projection; see `Arithmetic.needs_norm`.
        sub_norm: makes the normalisation before the output's projection, if there is one.
        dropout: rate of the dropout of attention weights, which only eq. 2 as it stands has.
        kernel_init, output_init: how real weights of queries, keys and values, and those of the
            output, start; by default as `dense` has it.
        dtype: dtype of the computation; the softmax is float32.

    Raises:
        InputError: on the call, for inputs that are not [batch, time, m], lengths that do not fit
            them, heads that do not divide m or `heads`, rotary positions of an odd head size, a
            cache of another batch size or, where its index is known, one without room.
    """

    heads: int
    key_heads: int | None = None
    head_size: int | None = None
    causal: bool = False
    local_window_size: int | tuple[int, int] | None = None
    rotary_theta: float | None = None
    rotary_scaling: Scaling | None = None
    interleaved: bool = False
    use_bias: bool = True
    dense: Callable[..., nn.Module] = nn.Dense
    attention: Callable[..., Any] | None = None
    norm: bool = False
    sub_norm: Callable[..., nn.Module] | None = None
    dropout: float = 0.0
    kernel_init: Initializer | None = None
    output_init: Initializer | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Attend; `mask`, boolean, broadcasts to [batch, heads, time, keys]."""
        check_sequence(x, lengths)
        key_heads, size = self._sizes(x.shape[-1])
        parts: Any = dict(
            dense=self.dense, use_bias=self.use_bias, norm=self.norm, dtype=self.dtype
        )
        query, key, value = (
            Projection(heads * size, kernel_init=self.kernel_init, name=name, **parts)(x).reshape(
                *x.shape[:2], heads, size
            )
            for name, heads in (("query", self.heads), ("key", key_heads), ("value", key_heads))
        )
        positions = (
            next_positions(self, x, lengths) if self.causal else jnp.arange(x.shape[1])[None]
        )
        if self.rotary_theta is not None:
            real = positions
            if lengths is not None:  # a scaling goes by the last position, which no padding has
                real = jnp.minimum(positions, positions[:, :1] + lengths[:, None] - 1)
            turn = functools.partial(
                rotary,
                positions=real,
                theta=self.rotary_theta,
                interleaved=self.interleaved,
                scaling=self.rotary_scaling,
            )
            query, key = turn(query), turn(key)
        before = self.causal and self.has_variable("cache", "key")
        if self.causal:
            key, value = self._kept(key, value, positions)
        options: dict[str, Any] = {}
        if before:
            seen = self._seen(positions, key.shape[1])
            mask = seen if mask is None else mask & seen
        else:
            options = dict(is_causal=self.causal, local_window_size=self._window())
            if lengths is not None and not self.causal:
                real = (jnp.arange(x.shape[1])[None] < lengths[:, None])[:, None, None]
                mask = real if mask is None else mask & real
        y = self._attend(train)(
            query, key.astype(query.dtype), value.astype(query.dtype), mask=mask, **options
        )
        if before:  # the last position without room; nothing else says so in a compiled program
            full = positions[:, -1:] >= key.shape[1]
            y = jnp.where(full[..., None, None], jnp.nan, y).astype(y.dtype)
        y = y.reshape(*x.shape[:2], self.heads * size)
        if self.sub_norm is not None:
            y = self.sub_norm(dtype=self.dtype, name="sub_norm")(y)
        return Projection(x.shape[-1], kernel_init=self.output_init, name="output", **parts)(y)

    @property
    def idle_parameters(self) -> tuple[str, ...]:
        """What has no gradient, for `nnlab.training.diagnose`.

        A bias of all keys adds one number to all scores of a query, which eq. 2 takes out again;
        not so where positions turn the keys.
        """
        alike = self.attention is None and self.rotary_theta is None
        return ("key/bias", "key/output_norm/bias") if alike else ()

    def _sizes(self, features: int) -> tuple[int, int]:
        """The number of key heads and the size of a head."""
        if self.head_size is None and features % self.heads:
            raise InputError(f"{self.heads} heads do not divide {features} features.")
        key_heads = self.heads if self.key_heads is None else self.key_heads
        if not key_heads or self.heads % key_heads:
            raise InputError(f"{key_heads} heads of keys do not divide {self.heads} of queries.")
        return key_heads, self.head_size or features // self.heads

    def _window(self) -> tuple[int, int] | None:
        window = self.local_window_size
        return (window, window) if isinstance(window, int) else window

    def _kept(
        self, key: jax.Array, value: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """All keys and values so far, of which those of this call come into the cache."""
        heads, size = key.shape[2:]
        kept = {
            name: jnp.moveaxis(new, 1, 3).reshape(new.shape[0] * heads, size, new.shape[1])
            for name, new in (("key", key), ("value", value))
        }
        if self.has_variable("cache", "key"):
            held: dict[str, Any] = {name: self.get_variable("cache", name) for name in kept}
            capacity = _check_room(held["key"], kept["key"], positions)
            start = jnp.repeat(jnp.minimum(positions[:, 0], capacity - key.shape[1]), heads)
            kept = {
                name: _put(held[name], new.astype(held[name].dtype), start, key.shape[0])
                for name, new in kept.items()
            }
        if _moves_on(self):
            for name, array in kept.items():
                self.put_variable("cache", name, array)
        each = (kept[name].reshape(key.shape[0], heads, size, -1) for name in ("key", "value"))
        all_keys, all_values = (jnp.moveaxis(array, 3, 1) for array in each)
        return all_keys, all_values

    def _seen(self, positions: jax.Array, capacity: int) -> jax.Array:
        """Which places [batch, 1, time, capacity] of the cache each step sees."""
        places, at = jnp.arange(capacity)[None, None], positions[..., None]
        seen = places <= at
        if (window := self._window()) is not None:
            seen &= places >= at - window[0]
        return seen[:, None]

    def _attend(self, train: bool) -> Callable[..., jax.Array]:
        if self.attention is not None:
            kind = getattr(self.attention, "func", self.attention)  # of a partial
            is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
            return self.attention() if is_module else self.attention
        if self.dropout and train:
            return functools.partial(_with_dropout, self.make_rng("dropout"), self.dropout)
        return jax.nn.dot_product_attention


def next_positions(module: nn.Module, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Positions, int32 [batch or 1, time], of steps that go on from the module's cache.

    If the collection "cache" is mutable, the `index` [batch] in it moves on, by `lengths` if given.

    Args:
        module: whose cache it is.
        x: [batch, time, …].
        lengths: how many steps of each sequence count; all if None.

    Raises:
        InputError: the cache is of another number of sequences.
    """
    steps = jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    before = module.has_variable("cache", "index")
    start = module.get_variable("cache", "index") if before else None
    if start is not None and start.shape != x.shape[:1]:
        raise InputError(f"the cache is of {len(start)} texts, expected one of {len(x)}.")
    if _moves_on(module):
        added = jnp.full(x.shape[:1], x.shape[1], jnp.int32) if lengths is None else lengths
        after = added if start is None else start + added
        module.put_variable("cache", "index", after.astype(jnp.int32))
    return steps if start is None else start[:, None] + steps


def empty_cache(
    model: nn.Module, variables: Any, batch: int, capacity: int, *, dtype: DTypeLike | None = None
) -> dict[str, Any]:
    """{"cache": zeros} for texts that `model` has not begun to read; {} if it keeps none.

    Args:
        model, variables: called as `model.apply(variables, symbols)`, symbols [batch, time].
        batch: number of texts.
        capacity: most symbols of a text, those of the prompt included.
        dtype: dtype of keys and values; by default that of the computation.

    Raises:
        InputError: the model has fewer positions than `capacity`.
    """

    def apply(variables: Any, symbols: Any) -> Any:
        return model.apply(variables, symbols, mutable=["cache"])[1]

    symbols = jax.ShapeDtypeStruct((batch, capacity), jnp.int32)

    def zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        floats = dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.zeros(leaf.shape, dtype if floats else leaf.dtype)

    return jax.tree.map(zeros, dict(jax.eval_shape(apply, variables, symbols)))


def _moves_on(module: nn.Module) -> bool:
    return module.is_mutable_collection("cache") and not module.is_initializing()


def _put(into: jax.Array, new: jax.Array, start: jax.Array, texts: int) -> jax.Array:
    """`into` [rows, size, capacity] with `new` from the places `start` [rows] on."""
    if texts == 1:  # in place, where rows of their own places make a loop
        return lax.dynamic_update_slice(into, new, (0, 0, start[0]))
    put = jax.vmap(lambda into, new, at: lax.dynamic_update_slice(into, new, (0, at)))
    return put(into, new, start)


def _check_room(held: jax.Array, key: jax.Array, positions: jax.Array) -> int:
    """The capacity of a cache, which fits and, as far as is known, has room."""
    capacity = held.shape[2]
    if held.shape[:2] != key.shape[:2] or key.shape[2] > capacity:
        raise InputError(
            f"the cache is {list(held.shape)}, which has no room for keys {list(key.shape)}."
        )
    if not isinstance(positions, Tracer) and np.max(positions, initial=-1) >= capacity:
        taken = int(np.max(np.asarray(positions)[:, 0]))
        raise InputError(
            f"the cache is full: it holds {taken} of {capacity} steps, expected room for "
            f"{key.shape[2]} more."
        )
    return capacity


def _with_dropout(
    rng: jax.Array,
    rate: float,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    local_window_size: tuple[int, int] | None = None,
) -> jax.Array:
    """Eq. 2 with a dropout of its weights, drawn for every weight."""
    groups = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(each, groups, axis=2) for each in (key, value))
    ahead = jnp.arange(key.shape[1])[None] - jnp.arange(query.shape[1])[:, None]
    masks = [mask, (ahead <= 0)[None, None] if is_causal else None]
    if local_window_size is not None:
        back, forth = local_window_size
        masks.append(((ahead >= -back) & (ahead <= forth))[None, None])
    return nn.dot_product_attention(
        query,
        key,
        value,
        mask=nn.combine_masks(*masks, dtype=bool),
        broadcast_dropout=False,
        dropout_rng=rng,
        dropout_rate=rate,
    )
