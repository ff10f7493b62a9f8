"""Whether the brackets of Java sources balance, and how deep each place of a source lies in them.

Brackets are (), [] and {}, not <>, which also compare. Those in comments, strings and characters
are none: `nnlab.sequences.java` says what is code. Comments and literals without an end are as
there, so that of a text that only resembles Java every place has one reading.
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
        closing: bool [characters], where a closing bracket of code stands.
        balanced: every bracket has its partner, of the same kind and in the right order.
    """

    depths: np.ndarray
    closing: np.ndarray
    balanced: bool


def nesting(source: str) -> Nesting:
    """The depths of a source and whether its brackets balance."""
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
    """`(depth, places, share of hits of each)` for depths 1 to `deepest`, all deeper in the last.

    Args:
        depths: integers [places], 1 or more.
        hits: bool [places] each, of predictors that are to be compared.
        deepest: 1 or more.

    Returns:
        Rows of the depths that there are.

    Raises:
        InputError: a predictor has not as many hits as there are places.
    """
    if wrong := [len(each) for each in hits if len(each) != len(depths)]:
        raise InputError(f"{len(depths)} places need as many hits of each, not {wrong[0]}.")
    shown = np.minimum(depths, deepest)
    return [
        (int(depth), int((shown == depth).sum()), [float(h[shown == depth].mean()) for h in hits])
        for depth in np.unique(shown)
    ]
