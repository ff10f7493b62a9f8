r"""Own terms whose sums are convolutions: a sum or a product of a function of x and one of w.

A rule such as x - w needs no loop over its terms,

.. math:: \sum_p g_{po}\,(u(x_{pk}) + v(w_{ko}))
    = \sum_p g_{po}\,u(x_{pk}) + v(w_{ko}) \sum_p g_{po},

and with :math:`u(x)\,v(w)` a layer multiplies, after a function of each operand. So the sums take
as long as those of a float layer, on every platform. A difference of large sums loses digits where
x and w share an offset much larger than their spread, as AdderNet's own rule does.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nnlab.kernels.convolution import (
    convolve,
    convolve_filter_gradient,
    convolve_input_gradient,
)
from nnlab.kernels.term_programs import Place, Program, needed
from nnlab.kernels.window import Window


class Parts(NamedTuple):
    """Functions of x and of w alone, and whether a term is their product or else their sum.

    A function that there is not would be 0 in a sum; in a product there are both.
    """

    is_product: bool
    of_x: Callable[[jax.Array], jax.Array] | None
    of_w: Callable[[jax.Array], jax.Array] | None
    pads_with_zeros: bool  # whether the function of x is x itself


def parts_of(program: Program) -> Parts | None:
    """Take a term apart, if that can be done."""
    for is_product in (True, False):
        leaves = list(_leaves(program, program.result, is_product, 1))
        needs = [_needs(program, place) for _, place in leaves]
        if any(len(each) == 2 for each in needs):
            continue
        of_x, of_w = (
            [leaf for leaf, each in zip(leaves, needs, strict=True) if (1 in each) == side]
            for side in (False, True)
        )
        if is_product and not (of_x and of_w):
            continue
        u, v = (_function(program, part, is_product) for part in (of_x, of_w))
        return Parts(is_product, u, v, of_x == [(1, 0)])
    return None


def _leaves(program: Program, place: Place, is_product: bool, sign: int):
    """The factors, or else the summands, of a place, as (sign, place)."""
    step = program.steps[place - 2] if isinstance(place, int) and place > 1 else None
    name = step.primitive.name if step else ""
    if step and name == "neg":
        yield from _leaves(program, step.operands[0], is_product, -sign)
    elif step and name in (("mul",) if is_product else ("add", "add_any", "sub")):
        first, second = step.operands
        of_second = 1 if is_product else -sign if name == "sub" else sign
        yield from _leaves(program, first, is_product, sign)
        yield from _leaves(program, second, is_product, of_second)
    else:
        yield sign, place


def _needs(program: Program, place: Place) -> frozenset[int]:
    if not isinstance(place, int):
        return frozenset()
    if place < 2:
        return frozenset([place])
    return frozenset().union(*(_needs(program, p) for p in program.steps[place - 2].operands))


def _function(program: Program, leaves: list[tuple[int, Place]], is_product: bool):
    if not leaves:
        return None
    join = operator.mul if is_product else operator.add
    programs = [(sign, needed(program.steps, place)) for sign, place in leaves]

    def of_scalar(number: jax.Array) -> jax.Array:
        values = (run(number, number) for _, run in programs)
        signed = [v if sign == 1 else -v for v, (sign, _) in zip(values, programs, strict=True)]
        return functools.reduce(join, signed).astype(number.dtype)

    def of_array(array: jax.Array) -> jax.Array:
        return jax.vmap(of_scalar)(array.ravel()).reshape(array.shape)

    return of_array


def conv(parts: Parts, x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """`sum_k u(x_k) v(w_k)` of every window."""
    assert parts.is_product and parts.of_x and parts.of_w
    x, window = _padded(parts, x, window)
    return convolve(parts.of_x(x), parts.of_w(kernel), window)


def conv_input_gradient(
    parts: Parts, g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """`sum_o g_o (u(x) + v(w_o))`, or of their product, over the windows that hold a pixel."""
    weighted = convolve_input_gradient(g, x, parts.of_w(kernel), window) if parts.of_w else None
    if parts.of_x is None:
        return jnp.zeros_like(x) if weighted is None else weighted
    if parts.is_product and weighted is not None:
        return parts.of_x(x) * weighted
    ones, pixels = jnp.ones((*kernel.shape[:2], 1, 1), x.dtype), jnp.zeros_like(x[..., :1])
    seen = convolve_input_gradient(g.sum(axis=3, keepdims=True), pixels, ones, window)
    alone = parts.of_x(x) * seen
    return alone if weighted is None else alone + weighted


def conv_filter_gradient(
    parts: Parts, g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """`sum_p g_p (u(x_p) + v(w))`, or of their product, over all positions."""
    alone = parts.of_w(kernel) if parts.of_w else None
    if parts.of_x is None:
        return jnp.zeros_like(kernel) if alone is None else alone * _total(g)
    x, window = _padded(parts, x, window)
    weighted = convolve_filter_gradient(g, parts.of_x(x), kernel, window)
    if alone is None:
        return weighted
    return alone * weighted if parts.is_product else weighted + alone * _total(g)


def _total(g: jax.Array) -> jax.Array:
    return g.sum(axis=(0, 1, 2), keepdims=True)


def _padded(parts: Parts, x: jax.Array, window: Window) -> tuple[jax.Array, Window]:
    """The images with their padding, of which the function of x may not be 0."""
    if parts.pads_with_zeros or window.padding == ((0, 0), (0, 0)):
        return x, window
    sides = ((0, 0), *window.padding, (0, 0))
    return jnp.pad(x, sides), window._replace(padding=((0, 0), (0, 0)))
