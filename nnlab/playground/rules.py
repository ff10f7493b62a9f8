"""What the page's panel says of each arithmetic: its product, its rules and their potentials.

A rule is the gradient of a potential (`nnlab.ops`). `of_w` is a term of the potential that the rule
of w derives from, as a function of one input and one weight, and `of_x` that of the rule of x; the
panel differentiates them numerically at the unit that is pointed at, with x and w as they are
rounded. For ternary layers, where rounding depends on the whole layer, the panel hands over rounded
weights.
"""
# ruff: noqa: RUF001

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nnlab.ops.binary import sign_ste
from nnlab.ops.formats import posit
from nnlab.ops.shift import shift_q_weights

Potential = Callable[[jax.Array, jax.Array], jax.Array]


class Rule(NamedTuple):
    """What is shown of an arithmetic.

    Attributes:
        forward: the product of a layer.
        to_w, to_x: the rules that training follows.
        potential_w, potential_x: what these are the true gradients of, a term.
        of_w, of_x: the same to compute with.
        note: what else is to be said of the rules.
    """

    forward: str
    to_w: str
    potential_w: str
    to_x: str
    potential_x: str
    of_w: Potential
    of_x: Potential
    note: str


def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    return x * w


def _half_square(x: jax.Array, w: jax.Array) -> jax.Array:
    return -((x - w) ** 2) / 2


def _huber(x: jax.Array, w: jax.Array) -> jax.Array:
    d = jnp.abs(x - w)
    return -jnp.where(d <= 1, d * d / 2, d - 0.5)


_posit = posit(8, 1).round

RULES: dict[str, Rule] = {
    "float": Rule(
        *("y = Σ x w", "∂w = x g", "x w", "∂x = Σ w g", "x w"),
        *(_product, _product),
        "the gradient itself",
    ),
    "adder": Rule(
        *("y = −Σ |x − w|", "∂w = (x − w) g", "−(x − w)² / 2"),
        *("∂x = Σ clip(w − x, −1, 1) g", "−huber(x − w)"),
        *(_half_square, _huber),
        "its equations 5 and 6; the layer's gradient is then rescaled",
    ),
    "binary": Rule(
        *("y = Σ sgn x · sgn w", "∂w = 1[|w| ≤ 1] sgn x · g", "sgn x · clip(w, −1, 1)"),
        *("∂x = Σ 1[|x| ≤ 1] sgn w · g", "clip(x, −1, 1) · sgn w"),
        lambda x, w: sign_ste(x) * jnp.clip(w, -1, 1),
        lambda x, w: jnp.clip(x, -1, 1) * sign_ste(w),
        "straight through where |·| ≤ 1",
    ),
    "ternary": Rule(
        *("y = Σ x α t(w), t ∈ {−1, 0, 1}", "∂w = x g", "x w"),
        *("∂x = Σ α t(w) g", "x α t(w)"),
        *(_product, _product),
        "α and the threshold 0.7 mean |w| are the layer's",
    ),
    "shift": Rule(
        *("y = Σ x · ±2^round(log₂|w|)", "∂w = x g", "x w"),
        *("∂x = Σ 2ˢ g, the rounded weights", "x · ±2ˢ"),
        _product,
        lambda x, w: x * shift_q_weights(w),
        "rounding is straight through",
    ),
    "posit8": Rule(
        *("y = Σ p(x) p(w), 8-bit posits", "∂w = p(x) p(g)", "p(x) w"),
        *("∂x = Σ p(w) p(g)", "x p(w)"),
        lambda x, w: _posit(x) * w,
        _product,
        "weights and gradients are rounded at a scale of the layer",
    ),
}
