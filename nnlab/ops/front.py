"""The one front door of all products: what stands between a user's call and an op's equations.

A product is a function `op(x, kernel, strides=…, padding=…, kernel_dilation=…)`. What it sums over
each window is its own business. What all have in common happens here, in this order:

1. Shapes and dtypes are checked, before any work starts.
2. Strides, padding and dilation become explicit numbers for each axis (`nnlab.ops.windows`).
3. Both operands take their promoted dtype; inside `jax.shard_map` they also vary alike.
4. Sequences and volumes become images (`nnlab.ops.dimensions`), vectors become rows of a matrix.
5. On a mesh with explicit axes the result is split over the batch as `x` is.

An op's body therefore sees images, filters of one dtype, and a `Window`, and nothing else:

    body(x [batch, height, width, in], kernel [kh, kw, in, out], *others, window)

A dense product has no axes to move along, so it is the case of one pixel; the kernels take that as
a product of matrices [rows, in] and [in, out] (`nnlab.kernels.convolution`).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nnlab.kernels.batch import auto_sharded, match_varying
from nnlab.ops.dimensions import in_space
from nnlab.ops.windows import Padding, moves_of

Body = Callable[..., Any]
Product = Callable[..., jax.Array]


def over_windows(
    name: str,
    body: Body,
    x: jax.Array,
    kernel: jax.Array,
    *others: jax.Array,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    dtype: DTypeLike | None = None,
    widen: bool = False,
) -> jax.Array:
    """Apply `body` to every window of images, sequences or volumes.

    Args:
        name: the op's name, for error messages.
        body: function of images, filters, `others` and a window, as described above. Its value and
            its cotangents must be sums with one term for each input of a window.
        x: [batch, height, width, in], [batch, time, in] or [batch, depth, height, width, in].
        kernel: [kh, kw, in, out], [k, in, out] or [kd, kh, kw, in, out].
        *others: further arrays that `body` takes as they are, such as a scalar.
        strides, padding, kernel_dilation: see `nnlab.ops.adder.adder_conv`.
        dtype: dtype that both operands must have; by default any floating one. Volumes must be
            floating, because their padding is zero.
        widen: whether `body` gets float32 at least, and its result is rounded afterwards.

    Returns:
        [batch, *out sizes, out].

    Raises:
        ValueError: ranks, sizes or options do not fit.
        TypeError: an operand has another dtype.
    """
    check_operands(name, x, kernel, dtype)
    moves = moves_of(x.shape[1:-1], kernel.shape[:-2], strides, padding, kernel_dilation)
    x, kernel, *rest = match_varying(x, kernel, *others)
    promoted = jnp.promote_types(x.dtype, kernel.dtype)
    inner = jnp.promote_types(promoted, jnp.float32) if widen else promoted
    op = functools.partial(in_space, body, moves)
    y = auto_sharded(op, x.astype(inner), kernel.astype(inner), *rest)
    return y.astype(promoted) if widen else y


def over_rows(op: Product, x: jax.Array, *operands: jax.Array) -> jax.Array:
    """Apply `op` as a dense product, one of vectors and matrices.

    Args:
        op: any product, even one that knows images only, called as `op(x, *operands)`.
        x: vectors [..., in].
        *operands: matrices [in, out], which become filters of one pixel; others as they are.

    Returns:
        [..., out].
    """

    def dense(x: jax.Array, *operands: jax.Array) -> jax.Array:
        rows = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
        y = op(rows, *(w[None, None] if w.ndim == 2 else w for w in operands))
        return y.reshape(*x.shape[:-1], y.shape[-1])

    return auto_sharded(dense, x, *operands)


def check_operands(
    name: str, x: jax.Array, kernel: jax.Array, dtype: DTypeLike | None = None
) -> None:
    """Raise unless x and kernel have the shapes and dtypes that `over_windows` takes."""
    ranks = (3, 4, 5) if dtype is None else (3, 4)
    if x.ndim != kernel.ndim or x.ndim not in ranks:
        more = "one or three axes" if 5 in ranks else "one axis"
        raise ValueError(
            f"{name} expects x [batch, height, width, in] and kernel [kh, kw, in, out], or {more} "
            f"in place of the two, not shapes {x.shape} and {kernel.shape}."
        )
    _check_inputs(name, x, kernel, dtype)


def check_dense_operands(
    name: str, x: jax.Array, kernel: jax.Array, dtype: DTypeLike | None = None
) -> None:
    """Raise unless x is [..., in], kernel is [in, out] and both are floating, or of `dtype`."""
    if x.ndim < 1 or kernel.ndim != 2:
        raise ValueError(
            f"{name} expects x [..., in] and kernel [in, out], "
            f"not shapes {x.shape} and {kernel.shape}."
        )
    _check_inputs(name, x, kernel, dtype)


def _check_inputs(name: str, x: jax.Array, kernel: jax.Array, dtype: DTypeLike | None) -> None:
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
