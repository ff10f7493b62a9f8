"""Windows: turn what a user writes (`strides=2, padding="SAME"`) into explicit, checked numbers."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from nnlab.kernels.window import Window

Padding = str | int | Sequence[tuple[int, int]]


class Moves(NamedTuple):
    """How a kernel moves along one to three axes: each field has one entry for each axis."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def plane(self) -> Window:
        """The window along the last two axes. A single axis is the width; the height is then 1."""
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
    """Return the explicit window of a kernel [kh, kw, …] on images [batch, height, width, …].

    Raises:
        ValueError: a number is not positive, padding is negative or unknown, or the dilated kernel
            is larger than the padded image.
    """
    return moves_of(shape[1:3], kernel_shape[:2], strides, padding, kernel_dilation).plane


def moves_of(
    sizes: Sequence[int],
    taps: Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    kernel_dilation: int | Sequence[int],
) -> Moves:
    """Return how a kernel with `taps` along each axis moves along axes of these `sizes`.

    Raises:
        ValueError: see `window_of`.
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
    """Return one positive integer twice, or two; raise a ValueError that says `name` otherwise."""
    first, second = per_axis(name, value, 2)
    return first, second


def per_axis(name: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Return a positive integer for each axis, given one for all or one each; raise otherwise."""
    numbers = _integers(value if np.iterable(value) else (value,) * axes)
    if len(numbers) != axes or min(numbers) < 1:
        many = "one positive integer" if axes == 1 else f"one or {_NUMBERS[axes]} positive integers"
        raise ValueError(f"{name} must be {many}, not {value!r}.")
    return numbers


def kernel_axes(kernel_size: int | Sequence[int]) -> tuple[int, ...]:
    """Return a kernel's taps along each axis; a single integer means a square window.

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
    """The values as integers, or () if one of them is not an integer."""
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
