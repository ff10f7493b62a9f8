"""Check whether the brackets of Java sources balance, and how deeply each place is nested.

Brackets are (), [] and {}, not <>, which also compare. Those in comments, strings and characters do
not count: `nnlab.sequences.java` says what is code. It also says where comments and literals
without an end stop, so that every place has one reading, even in a text that only resembles Java.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nnlab.errors import InputError
from nnlab.sequences.java import code_only

PAIRS = {"(": ")", "[": "]", "{": "}"}
CLOSING = ")]}"


class Nesting(NamedTuple):
    """The brackets of one source.

    Attributes:
        depths: int32 [characters], how many brackets are open at a character; both brackets of a
            pair lie in it, so the outermost have depth 1. A closing bracket without an opening one
            closes nothing.
        closing: bool [characters], whether a character is a closing bracket of code.
        balanced: every bracket has its partner, of the same kind and in the right order.
    """

    depths: np.ndarray
    closing: np.ndarray
    balanced: bool


def nesting(source: str) -> Nesting:
    """Compute the depths of a source and whether its brackets balance."""
    depths = np.zeros(len(source), np.int32)
    closing = np.zeros(len(source), bool)
    awaited: list[str] = []
    partners = True
    for place, character in enumerate(code_only(source)):
        if character in PAIRS:
            awaited.append(PAIRS[character])
        depths[place] = len(awaited)
        if character in CLOSING:
            closing[place] = True
            if awaited and awaited[-1] == character:
                awaited.pop()
            else:
                partners = False
    return Nesting(depths, closing, partners and not awaited)


def hits_by_depth(
    depths: np.ndarray, hits: Sequence[np.ndarray], deepest: int
) -> list[tuple[int, int, list[float]]]:
    """Compare predictors by depth.

    Args:
        depths: integers [places], 1 or more.
        hits: for each predictor bool [places].
        deepest: 1 or more; greater depths are counted with it.

    Returns:
        `(depth, places, share of hits of each predictor)` for each depth that occurs.

    Raises:
        InputError: there are not as many hits as places.
    """
    if wrong := [len(each) for each in hits if len(each) != len(depths)]:
        raise InputError(f"{len(depths)} places need as many hits of each, not {wrong[0]}.")
    shown = np.minimum(depths, deepest)
    return [
        (int(depth), int((shown == depth).sum()), [float(h[shown == depth].mean()) for h in hits])
        for depth in np.unique(shown)
    ]
