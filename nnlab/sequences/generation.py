r"""Generate text, or other symbols, with a network that outputs the logits of the next one.

.. math:: P(s) \propto e^{z_s / T}                                                   (1)

for the logits z and the temperature T: 1 samples from the network's own distribution, less is more
cautious, and towards 0 the likeliest symbol always wins. With `top_k` only the k largest logits
count.

The functions are pure: a `Position` is all that is known of a text so far, and symbol n of a text
is drawn with the key folded with n, so that pieces of any lengths make the same text.

References:
    Ackley, Hinton & Sejnowski, A learning algorithm for Boltzmann machines, 1985, for eq. 1;
    Fan et al., Hierarchical neural story generation, 2018, https://arxiv.org/abs/1805.04833,
    section 5.3, for top-k.
"""

import inspect
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.layers.attention import empty_cache
from nnlab.ops.keys import check_key
from nnlab.sequences.tokens import last_step


class Position(NamedTuple):
    """The state of texts between two symbols.

    Attributes:
        carry: the Flax collections of what the layers hold: "carry" of recurrent ones, "cache" of
            attention.
        logits: logits [texts, symbols] of the next symbol of each text.
        count: how many symbols have been drawn, int32.
    """

    carry: Any
    logits: jax.Array
    count: jax.Array


def prefill(
    model: nn.Module,
    variables: Any,
    prompts: jax.Array,
    *,
    room: int | None = None,
    lengths: jax.Array | None = None,
) -> Position:
    """Read prompts of symbols [texts, time], time at least 1, from their beginning.

    Args:
        model: maps symbols [texts, time] to logits [texts, time, symbols], as
            `nnlab.models.LanguageModel`, `GPT2`, `Llama` and `MatMulFreeLM` do; where its call
            takes `last_only`, to those of the last symbol alone, which cost less.
        variables: its parameters.
        prompts: integers; the network reads them from a state of zeros.
        room: how many symbols will follow at most, for a network with a cache.
        lengths: symbols of each prompt, int32 [texts], from 1 on; the rest is padding.

    Raises:
        InputError: the prompts are not [texts, time] or have no symbol, there is no `room` for a
            network with a cache, or more than it has positions.
    """
    cache = {}
    if room is not None and prompts.ndim == 2:
        cache = empty_cache(model, variables, len(prompts), prompts.shape[1] + room)
    zero = jnp.zeros((), jnp.int32)
    position = read(model, variables, Position(cache, jnp.zeros(()), zero), prompts, lengths)
    if room is None and position.carry.get("cache"):
        raise InputError(
            f"{type(model).__name__} keeps what it has read in a cache; expected room= for the "
            "symbols that follow."
        )
    return position


def read(
    model: nn.Module,
    variables: Any,
    position: Position,
    symbols: jax.Array,
    lengths: jax.Array | None = None,
) -> Position:
    """Read the next symbols [texts, time] of texts, time at least 1, such as a prompt's next part.

    Args:
        model, variables, lengths: as in `prefill`.
        position: from `prefill` or an earlier call, with room for them.
        symbols: integers.

    Raises:
        InputError: the symbols are not [texts, time] or none.
    """
    if symbols.ndim != 2 or not symbols.shape[1]:
        raise InputError(f"prompts must be [texts, time] symbols, not {list(symbols.shape)}.")
    before = {**variables, **position.carry}
    options: Any = {} if lengths is None else {"lengths": lengths}
    if last_only := "last_only" in inspect.signature(type(model).__call__).parameters:
        options["last_only"] = True
    logits, after = model.apply(before, symbols, mutable=["carry", "cache"], **options)
    last = logits if last_only else last_step(logits, lengths)
    return Position(dict(after), last[:, 0], position.count)


def decode(
    model: nn.Module,
    variables: Any,
    key: jax.Array,
    position: Position,
    count: int,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
) -> tuple[Position, jax.Array]:
    """Draw `count` more symbols of each text.

    Args:
        model, variables: as in `prefill`.
        key: the same for all pieces of the texts.
        position: from `prefill` or an earlier call; with a cache, `count` of its places are free.
        count: steps of the loop that this compiles to.
        temperature: T of eq. 1, above 0.
        top_k: how many of the largest logits count; all if None.

    Returns:
        The position after the symbols, and the symbols, int32 [texts, count].

    Raises:
        InputError: a cache has no room for them. Where its index is not known, under `jax.jit`,
            the logits become NaN.
    """
    check_key(key)
    _check_room(position.carry.get("cache", {}), count)

    def step(position: Position, _: None) -> tuple[Position, jax.Array]:
        step_key = jax.random.fold_in(key, position.count)
        drawn = draw(step_key, position.logits, temperature=temperature, top_k=top_k)
        after = read(model, variables, position, drawn[:, None])
        return after._replace(count=position.count + 1), drawn

    position, symbols = lax.scan(step, position, length=count)
    return position, symbols.T


def generate(
    model: nn.Module,
    variables: Any,
    key: jax.Array,
    prompts: jax.Array,
    count: int,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """Draw `count` symbols, int32 [texts, count], after prompts: `prefill`, then `decode`.

    Args:
        model, variables, prompts, lengths: as in `prefill`.
        key, count, temperature, top_k: as in `decode`; `top_k=1` takes the likeliest symbol.

    Raises:
        InputError: as in `prefill`.
    """
    position = prefill(model, variables, prompts, room=count, lengths=lengths)
    options: Any = dict(temperature=temperature, top_k=top_k)
    return decode(model, variables, key, position, count, **options)[1]


def draw(
    key: jax.Array,
    logits: jax.Array,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
) -> jax.Array:
    """Draw a symbol, int32 [...], by eq. 1 from logits [..., symbols]."""
    check_key(key)
    if top_k is not None and top_k < logits.shape[-1]:
        least = lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    # The largest is 0 at any temperature, however small.
    below = logits - logits.max(-1, keepdims=True)
    return jax.random.categorical(key, below / temperature).astype(jnp.int32)


def _check_room(cache: Any, count: int) -> None:
    held: dict[Any, Any] = flatten_dict(cache)
    for path, keys in held.items():
        if path[-1] != "key":
            continue
        index = held[*path[:-1], "index"]
        taken = 0 if isinstance(index, Tracer) else int(jnp.max(index))
        if taken + count > keys.shape[2]:
            raise InputError(
                f"the cache holds {taken} of {keys.shape[2]} symbols, expected room for {count} "
                "more."
            )
        return
