r"""Text, or other symbols, from a network that gives the logits of the next one.

.. math:: P(s) \propto e^{z_s / T}                                                   (1)

for the logits z and the temperature T: 1 is what the network believes, less is more cautious, and
towards 0 the likeliest symbol is taken always. With `top_k` only the k largest logits count.

The functions are pure: a `Position` is all there is to know about a text so far, and symbol n of a
text is drawn with the key folded with n, so that a text in pieces of any lengths is the same text.

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


class Position(NamedTuple):
    """Where texts stand.

    Attributes:
        carry: the Flax collection of what the recurrent layers hold.
        logits: [texts, symbols], of the next symbol of each.
        count: how many symbols have been drawn, int32.
    """

    carry: Any
    logits: jax.Array
    count: jax.Array


def begin(model: nn.Module, variables: Any, prompts: jax.Array) -> Position:
    """The position behind prompts of symbols [texts, time], time at least 1.

    Args:
        model: [texts, time] to logits [texts, time, symbols], such as `nnlab.models.LanguageModel`.
        variables: its parameters.
        prompts: integers; the network reads them from a state of zeros.

    Raises:
        InputError: the prompts are not [texts, time] or have no symbol.
    """
    if prompts.ndim != 2 or not prompts.shape[1]:
        raise InputError(f"prompts must be [texts, time] symbols, not {list(prompts.shape)}.")
    logits, after = model.apply(variables, prompts, mutable=["carry"])
    return Position(after["carry"], logits[:, -1], jnp.zeros((), jnp.int32))


def proceed(
    model: nn.Module,
    variables: Any,
    key: jax.Array,
    position: Position,
    count: int,
    *,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
) -> tuple[Position, jax.Array]:
    """`count` more symbols of each text, int32 [texts, count], and the position behind them.

    Args:
        model, variables: as of `begin`.
        key: of the texts; the same for all pieces of them.
        position: from `begin` or an earlier call.
        count: steps of the loop that this compiles to.
        temperature: T of eq. 1, above 0.
        top_k: by default all symbols count.
    """

    def step(position: Position, _: None) -> tuple[Position, jax.Array]:
        of_step = jax.random.fold_in(key, position.count)
        drawn = draw(of_step, position.logits, temperature=temperature, top_k=top_k)
        going_on = {**variables, "carry": position.carry}
        logits, after = model.apply(going_on, drawn[:, None], mutable=["carry"])
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
    """A symbol, int32 [...], by eq. 1 of logits [..., symbols]."""
    if top_k is not None and top_k < logits.shape[-1]:
        least = lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    # The largest is 0 at any temperature, however small.
    below = logits - logits.max(-1, keepdims=True)
    return jax.random.categorical(key, below / temperature).astype(jnp.int32)
