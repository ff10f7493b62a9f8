"""Symbols of texts as transformers take them: an array, or one with lengths and types."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nnlab.errors import InputError


class Tokens(NamedTuple):
    """A batch of texts, padded at their ends, for a training to take as inputs.

    Attributes:
        symbols: integers [batch, time].
        lengths: int32 [batch], how many symbols of each text count; all if None.
        types: integers [batch, time], which of two texts a symbol is of, for `Bert`; 0 if None.
    """

    symbols: Any
    lengths: Any = None
    types: Any = None


def tokens_of(
    inputs: Any, lengths: jax.Array | None, known: int, positions: int | None = None
) -> Tokens:
    """`inputs`, an array of symbols or `Tokens`, as `Tokens`.

    Args:
        inputs, lengths: as a model is given them; lengths of `Tokens` come first.
        known: size of the vocabulary.
        positions: how many symbols a text may have; any number if None.

    Raises:
        InputError: the symbols are no integers [batch, time], more than `positions` or, where they
            are known, not below `known`.
    """
    tokens = inputs if isinstance(inputs, Tokens) else Tokens(inputs)
    if tokens.lengths is None:
        tokens = tokens._replace(lengths=lengths)
    symbols = tokens.symbols
    if symbols.ndim != 2 or not jnp.issubdtype(symbols.dtype, jnp.integer):
        raise InputError(
            "a text is integers [batch, time], not "
            f"{jnp.dtype(symbols.dtype).name}{list(symbols.shape)}."
        )
    if positions is not None and symbols.shape[1] > positions:
        raise InputError(
            f"a text has {symbols.shape[1]} symbols, expected at most the {positions} positions of "
            "the network."
        )
    if not isinstance(symbols, Tracer):
        found = np.asarray(symbols)
        if found.size and not 0 <= found.min() <= found.max() < known:
            raise InputError(
                f"symbols must be from 0 to {known - 1}, not from {found.min()} to {found.max()}."
            )
    return tokens


def last_step(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """The last step [batch, 1, ...] of each text of x [batch, time, ...] that is no padding."""
    if lengths is None:
        return x[:, -1:]
    return jnp.take_along_axis(x, (lengths - 1).reshape(-1, *[1] * (x.ndim - 1)), axis=1)
