r"""Real affine functions of integers, computed in 32-bit integers.

A real y = a x + b of integers x from l to h becomes

.. math:: y \approx o + \lfloor ((x - c) m + 2^{s-1}) / 2^s \rfloor                   (1)

with the integer c nearest to the x of which y is 0, as far as that lies in [l, h]: so the error of
the multiplier m, the integer nearest to 2^s a, is small where y is small, however far x is from 0,
as adder sums are. The shift s is the largest up to 30 for which

.. math:: |m| \max(h - c, c - l) + 2^{s-1} \le 2^{31} - 1,                            (2)

so (1) cannot leave int32. Rounding to the integers m and o leaves an error of at most
|x - c| 2^(-s-1) + 1, half of the 1 from o and half from the rounding of the result.
"""

from typing import NamedTuple

import numpy as np

from nnlab.deployment.bounds import Bounds
from nnlab.errors import InputError

_LARGEST = 2**31 - 1


class FixedPoint(NamedTuple):
    """The constants of (1) a channel, int32: the arrays of the node `requantize`."""

    center: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    offset: np.ndarray


def fixed_point(scale: np.ndarray, offset: np.ndarray, bounds: Bounds) -> FixedPoint:
    """Constants of (1) for y = scale x + offset a channel, x within `bounds`.

    Args:
        scale, offset: float64 [channels].
        bounds: of x.

    Raises:
        InputError: a scale is so large that (2) holds for no shift, or a number is not finite.
    """
    scale, offset = np.broadcast_arrays(np.float64(scale), np.float64(offset))
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise InputError("a scale or an offset is not finite, so the network has no integers.")
    zero = np.divide(-offset, scale, out=np.zeros_like(scale), where=scale != 0)
    center = np.clip(np.rint(zero), bounds.low, bounds.high)
    reach = np.maximum(bounds.high - center, center - bounds.low)
    shift = np.full(scale.shape, -1)
    for candidate in range(31):
        largest = abs(np.rint(scale * 2.0**candidate)) * reach + 2.0**candidate / 2
        shift[largest <= _LARGEST] = candidate
    rest = np.rint(offset + scale * center)
    if shift.min(initial=0) < 0 or abs(rest).max(initial=0) > _LARGEST:
        raise InputError(
            f"numbers up to {reach.max():.0f} times {abs(scale).max():.3g} do not fit in int32."
        )
    multiplier = np.rint(scale * 2.0**shift)
    return FixedPoint(*(np.int32(numbers) for numbers in (center, multiplier, shift, rest)))
