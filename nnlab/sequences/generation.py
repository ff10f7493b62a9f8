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

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.ops.keys import check_key


class Position(NamedTuple):
    """The state of texts between two symbols.

    Attributes:
        carry: the Flax collection of what the recurrent layers hold.
        logits: logits [texts, symbols] of the next symbol of each text.
        count: how many symbols have been drawn, int32.
    """

    carry: Any
    logits: jax.Array
    count: jax.Array


def prefill(model: nn.Module, variables: Any, prompts: jax.Array) -> Position:
    """Read prompts of symbols [texts, time], time at least 1.

    Args:
        model: maps symbols [texts, time] to logits [texts, time, symbols], as
            `nnlab.models.LanguageModel` does.
        variables: its parameters.
        prompts: integers; the network reads them from a state of zeros.

    Raises:
        InputError: the prompts are not [texts, time] or have no symbol.
    """
    if prompts.ndim != 2 or not prompts.shape[1]:
        raise InputError(f"prompts must be [texts, time] symbols, not {list(prompts.shape)}.")
    logits, after = model.apply(variables, prompts, mutable=["carry"])
    return Position(after["carry"], logits[:, -1], jnp.zeros((), jnp.int32))


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
        position: from `prefill` or an earlier call.
        count: steps of the loop that this compiles to.
        temperature: T of eq. 1, above 0.
        top_k: how many of the largest logits count; all if None.

    Returns:
        The position after the symbols, and the symbols, int32 [texts, count].
    """
    check_key(key)

    def step(position: Position, _: None) -> tuple[Position, jax.Array]:
        step_key = jax.random.fold_in(key, position.count)
        drawn = draw(step_key, position.logits, temperature=temperature, top_k=top_k)
        carried = {**variables, "carry": position.carry}
        logits, after = model.apply(carried, drawn[:, None], mutable=["carry"])
        return Position(after["carry"], logits[:, 0], position.count + 1), drawn

    position, symbols = lax.scan(step, position, length=count)
    return position, symbols.T


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
