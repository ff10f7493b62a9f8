"""From what a user writes (`strides=2, padding="SAME"`) to an explicit, checked window."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from nnlab.kernels.window import Window

Padding = str | int | Sequence[tuple[int, int]]


def check_operands(
    name: str, x: jax.Array, kernel: jax.Array, dtype: DTypeLike | None = None
) -> None:
    """Raises a ValueError unless x is [batch, height, width, in] and kernel [kh, kw, in, out]."""
    if x.ndim != 4 or kernel.ndim != 4:
        raise ValueError(
            f"{name} expects x [batch, height, width, in] and kernel [kh, kw, in, out], "
            f"not shapes {x.shape} and {kernel.shape}."
        )
    check_inputs(name, x, kernel, dtype)


def check_dense_operands(
    name: str, x: jax.Array, kernel: jax.Array, dtype: DTypeLike | None = None
) -> None:
    """Raises a ValueError unless x is [..., in] and kernel [in, out]."""
    if x.ndim < 1 or kernel.ndim != 2:
        raise ValueError(
            f"{name} expects x [..., in] and kernel [in, out], "
            f"not shapes {x.shape} and {kernel.shape}."
        )
    check_inputs(name, x, kernel, dtype)


def check_inputs(
    name: str, x: jax.Array, kernel: jax.Array, dtype: DTypeLike | None = None
) -> None:
    """Raises where x and kernel differ in `in`, or are not of `dtype`: by default any floating."""
    if x.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"{name} needs as many inputs in x as in kernel, "
            f"not {x.shape[-1]} in x {x.shape} and {kernel.shape[-2]} in kernel {kernel.shape}."
        )
    for argument, array in (("x", x), ("kernel", kernel)):
        fits = jnp.issubdtype(array.dtype, jnp.floating) if dtype is None else array.dtype == dtype
        if not fits:
            wanted = f"a floating {argument}" if dtype is None else f"{argument} in {dtype}"
            raise TypeError(f"{name} expects {wanted}, not {array.dtype}.")


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
    strides = pair("strides", strides)
    dilation = pair("kernel_dilation", kernel_dilation)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel_shape[:2], dilation, strict=True)]
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID", "SAME_LOWER", "FULL"):
            raise ValueError(
                'padding must be "SAME", "VALID", "SAME_LOWER", "FULL", an integer or two pairs of '
                f"integers, not {padding!r}."
            )
        if padding.upper() == "FULL":
            padding = [(extent - 1, extent - 1) for extent in extents]
        else:
            padding = lax.padtype_to_pads(shape[1:3], extents, strides, padding.upper())
    (top, bottom), (left, right) = _pads(padding)
    for axis, size, extent in (
        ("height", shape[1] + top + bottom, extents[0]),
        ("width", shape[2] + left + right, extents[1]),
    ):
        if size < extent:
            raise ValueError(
                f"the window spans {extent} pixels of {axis}, but the padded image has {size}."
            )
    return Window(strides, ((top, bottom), (left, right)), dilation)


def pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """One positive integer twice, or two; anything else is a ValueError that says `name`."""
    try:
        both = [operator.index(v) for v in (value if np.iterable(value) else (value, value))]
    except TypeError:
        both = []
    if len(both) != 2 or min(both) < 1:
        raise ValueError(f"{name} must be one or two positive integers, not {value!r}.")
    return both[0], both[1]


def _pads(padding: int | Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    sides = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    try:
        pads = [(operator.index(low), operator.index(high)) for low, high in sides]
    except (TypeError, ValueError):
        pads = []
    if len(pads) != 2 or min(min(pair) for pair in pads) < 0:
        raise ValueError(
            f"padding must be an integer or two pairs of integers, none negative, not {padding!r}."
        )
    return pads
