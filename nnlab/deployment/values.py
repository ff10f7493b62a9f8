r"""Real numbers that integers stand for, with what is still to be done to them.

A `Value` is a node whose integers n stand for the real numbers

.. math:: y = \mathrm{clip}(a n + b, l, h)                                              (1)

a channel. What is linear (a scale, a bias, BatchNorm) changes a and b and the activation l and h:
no node is made until another layer says which integers it needs of them. A maximum over windows
commutes with (1) for the codes of y, and so does the flattening of an image, so both wait as well.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from nnlab.errors import InputError

Pair = tuple[int, int]


class Pool(NamedTuple):
    """A maximum over windows of an image.

    Attributes:
        taps: pixels of the first window, from the corner of the padded image; none as long as the
            image is only padded.
        strides: of the window.
        padding: of the image, by pixels that are never the largest.
        size: height and width of the image.
    """

    taps: frozenset[Pair]
    strides: Pair
    padding: tuple[Pair, Pair]
    size: Pair

    def attributes(self, size: Pair) -> dict[str, Any]:
        """Those of the node that gives an image of `size`; as few as say it all.

        Raises:
            InputError: the pixels are not those of a window.
        """
        first = [min((tap[axis] for tap in self.taps), default=0) for axis in (0, 1)]
        last = [max((tap[axis] for tap in self.taps), default=-1) for axis in (0, 1)]
        window = [high - low + 1 for low, high in zip(first, last, strict=True)]
        if not self.taps or len(self.taps) != math.prod(window):
            raise InputError(
                f"the model takes maxima of {len(self.taps)} pixels that are not a window, "
                "expected all pixels of a rectangle."
            )
        padding = []
        for axis in (0, 1):
            low = self.padding[axis][0] - first[axis]
            reach = (size[axis] - 1) * self.strides[axis] + window[axis]
            high = reach - self.size[axis] - low
            padding.append([low, 0 if -self.strides[axis] < high < 0 else high])
        if padding == [[0, 0], [0, 0]] and list(self.strides) == window:
            return {"window": window}
        return {"window": window, "strides": list(self.strides), "padding": padding}


@dataclasses.dataclass(frozen=True)
class Value:
    """Real numbers (1) of the integers of `node`.

    Attributes:
        node: its name; "" for a sum that is still to be taken.
        scale, offset: a and b, float64 [channels] or [1].
        size: height and width; 1 and 1 of vectors.
        low, high: l and h.
        most: largest abs(y) on record.
        pool: a maximum that is still to be taken.
        flat: whether height, width and channels are still to become one axis.
        terms: what is still to be added up.
        name: of the node of that sum.
        heads: of attention, which the channels are of one after the other; 0 if there are none.
    """

    node: str
    scale: np.ndarray
    offset: np.ndarray
    size: Pair
    low: float = -math.inf
    high: float = math.inf
    most: float = 0.0
    pool: Pool | None = None
    flat: bool = False
    terms: "tuple[Value, Value] | None" = None
    name: str = ""
    heads: int = 0

    @property
    def is_affine(self) -> bool:
        """Whether (1) is `a n + b` and nothing is still to be done."""
        clipped = math.isfinite(self.low) or math.isfinite(self.high)
        return not (clipped or self.pool or self.flat or self.terms)

    def clipped(self, low: float, high: float) -> "Value":
        both = {"low": np.clip(self.low, low, high), "high": np.clip(self.high, low, high)}
        return dataclasses.replace(self, **{end: float(value) for end, value in both.items()})

    def pooled(self, pool: Pool) -> "Value":
        return dataclasses.replace(self, pool=pool)

    def flattened(self) -> "Value":
        return dataclasses.replace(self, flat=True)

    def has_source_of(self, other: "Value") -> bool:
        """Whether both are of the same numbers a n + b, before clip, maximum and flattening."""
        sources = [(v.node, id(v.scale), id(v.offset), id(v.terms)) for v in (self, other)]
        return sources[0] == sources[1]


def power_of_two(most: float) -> float:
    """The smallest that is at least `most`."""
    return 2.0 ** math.ceil(math.log2(most)) if most > 0 else 1.0
