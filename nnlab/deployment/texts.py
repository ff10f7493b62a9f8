"""What an integer network is given by name: images, or texts with their lengths and types.

A network calls its input "images", whatever it is. Of texts (`nnlab.sequences.tokens.Tokens`) these
are the symbols, and there may be their "lengths" and "types" beside them.
"""

from typing import Any, NamedTuple

import jax

from nnlab.sequences.tokens import Tokens


class Symbols(NamedTuple):
    """Integers that an embedding takes, by the name of the input."""

    name: str


class Lengths(NamedTuple):
    """What depends on the lengths of texts alone: a mask."""


def inputs_of(images: Any) -> dict[str, Any]:
    """Return arrays by name, of an array or of `Tokens`."""
    if not isinstance(images, Tokens):
        return {"images": images}
    named = {"images": images.symbols, "lengths": images.lengths, "types": images.types}
    return {name: array for name, array in named.items() if array is not None}


def first_of(images: Any, start: int, stop: int) -> Any:
    """Return some of the images or texts."""
    return jax.tree.map(lambda array: array[start:stop], images)
