"""From what a user writes (`strides=2, padding="SAME"`) to an explicit, checked window."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from nnlab.kernels.window import Window

Padding = str | int | Sequence[tuple[int, int]]


class Moves(NamedTuple):
    """How a kernel moves along one axis or several: an entry of each field for each axis."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def plane(self) -> Window:
        """Along the last two axes; where there is but one, it is the width, and the height is 1."""
        down, across = (1, *self.strides)[-2:]
        rows, columns = ((0, 0), *self.padding)[-2:]
        dh, dw = (1, *self.dilation)[-2:]
        return Window((down, across), (rows, columns), (dh, dw))


_NUMBERS = ("no", "one", "two", "three")
_AXES = {  # as a sentence names them
    1: ("steps of time",),
    2: ("pixels of height", "pixels of width"),
    3: ("pixels of depth", "pixels of height", "pixels of width"),
}


def window_of(
    shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    kernel_dilation: int | Sequence[int],
) -> Window:
    """The explicit window of a kernel [kh, kw, …] on images [batch, height, width, …].

    Raises:
        ValueError: something is not positive, padding is negative or unknown, or the dilated
            kernel is larger than the padded image.
    """
    return moves_of(shape[1:3], kernel_shape[:2], strides, padding, kernel_dilation).plane


def moves_of(
    sizes: Sequence[int],
    taps: Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    kernel_dilation: int | Sequence[int],
) -> Moves:
    """How a kernel of so many `taps` moves along axes of these `sizes`, one to three of them.

    Raises:
        ValueError: as of `window_of`.
    """
    axes = len(sizes)
    strides = per_axis("strides", strides, axes)
    dilation = per_axis("kernel_dilation", kernel_dilation, axes)
    extents = [(k - 1) * d + 1 for k, d in zip(taps, dilation, strict=True)]
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID", "SAME_LOWER", "FULL"):
            raise ValueError(
                f'padding must be "SAME", "VALID", "SAME_LOWER", "FULL", an integer or '
                f"{_pairs(axes)} of integers, not {padding!r}."
            )
        if padding.upper() == "FULL":
            padding = [(extent - 1, extent - 1) for extent in extents]
        else:
            padding = lax.padtype_to_pads(sizes, extents, strides, padding.upper())
    pads = _pads(padding, axes)
    for name, size, (low, high), extent in zip(_AXES[axes], sizes, pads, extents, strict=True):
        if size + low + high < extent:
            thing = "sequence" if axes == 1 else "image"
            raise ValueError(
                f"the window spans {extent} {name}, but the padded {thing} has {size + low + high}."
            )
    return Moves(strides, pads, dilation)


def pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """One positive integer twice, or two; anything else is a ValueError that says `name`."""
    first, second = per_axis(name, value, 2)
    return first, second


def per_axis(name: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """A positive integer for each of one to three axes, or one for all; else a ValueError."""
    numbers = _integers(value if np.iterable(value) else (value,) * axes)
    if len(numbers) != axes or min(numbers) < 1:
        many = "one positive integer" if axes == 1 else f"one or {_NUMBERS[axes]} positive integers"
        raise ValueError(f"{name} must be {many}, not {value!r}.")
    return numbers


def kernel_axes(kernel_size: int | Sequence[int]) -> tuple[int, ...]:
    """Taps of a kernel along each axis: one integer is a square one, of two axes.

    Raises:
        ValueError: it is neither a positive integer nor one to three of them.
    """
    taps = _integers(kernel_size if np.iterable(kernel_size) else (kernel_size,) * 2)
    if len(taps) not in (1, 2, 3) or min(taps) < 1:
        raise ValueError(
            "kernel_size must be one positive integer, for images, or one for each of one to "
            f"three axes, not {kernel_size!r}."
        )
    return taps


def _integers(values: Any) -> tuple[int, ...]:
    """Empty if one is none."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        return ()


def _pads(padding: int | Sequence[tuple[int, int]], axes: int) -> tuple[tuple[int, int], ...]:
    sides = ((padding, padding),) * axes if isinstance(padding, int) else padding
    try:
        pads = tuple((operator.index(low), operator.index(high)) for low, high in sides)
    except (TypeError, ValueError):
        pads = ()
    if len(pads) != axes or min(min(pair) for pair in pads) < 0:
        raise ValueError(
            f"padding must be an integer or {_pairs(axes)} of integers, none negative, "
            f"not {padding!r}."
        )
    return pads


def _pairs(axes: int) -> str:
    return f"{_NUMBERS[axes]} pair{'s' if axes > 1 else ''}"
