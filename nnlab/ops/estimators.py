r"""Straight-through estimators, by the names that users of larq know.

An estimator is a value and, in place of a derivative that is 0 almost everywhere, a slope: the
cotangent of x is g times it. The slope is the true derivative of the potential beside it.

====================  ======================  ================================  ===================
estimator             value                   slope                             potential
====================  ======================  ================================  ===================
no_op                 x                       1                                 x
ste_sign              sgn x              (1)  1[abs(x) <= c]               (2)  clip(x, -c, c)
approx_sign           sgn x              (1)  2 max(0, 1 - abs(x))         (3)  2 y - y abs(y)
swish_sign            sgn x              (1)  b (2 - bx tanh(bx / 2))      (4)  2 s (1 + bx (1 - s))
                                              / (1 + cosh bx)                   - 1
ste_heaviside         1[x > 0]           (5)  1[abs(x) <= c]               (2)  clip(x, -c, c)
ste_tern              1[x>=t] - 1[x<=-t] (6)  1[abs(x) <= c]               (2)  clip(x, -c, c)
magnitude_aware_sign  m sgn x            (7)  m 1[abs(x) <= c]             (8)  m clip(x, -c, c)
dorefa_quantizer
  of activations      r(clip(x, 0, 1))   (9)  1[0 <= x <= 1]              (10)  clip(x, 0, 1)
  of weights          2 r(u) - 1        (11)  that of the potential       (12)  2 u - 1
  of weights, 1 bit   e sgn x           (13)  1                           (14)  x
====================  ======================  ================================  ===================

Here sgn 0 = +1; c is the argument `clip_value`, where None makes (2) 1 everywhere, as with larq;
y = clip(x, -1, 1); s is the logistic function of bx; m is the mean of abs(x) over all axes but the
last, held; e is the mean of abs(x) over all; r(u) = round(n u) / n to the nearest
even, with n = 2^k - 1; u = tanh(x) / (2 max abs(tanh(x))) + 1/2. Both edges of a slope of 1 are
inside, as with larq; XNOR-Net's code has them outside. A NaN stays a NaN.

`ste_sign`, `approx_sign` and `swish_sign` of weights are stored in one bit, `magnitude_aware_sign`
in one bit and a number a filter, as `nnlab.costs.stored_bytes` finds. larq's constraint
`weight_clip` is `nnlab.optim.clip_latent_weights`. Of DoReFa's weights, larq has (11) for one bit,
too, so that they are -1 and +1 without the scale e, and holds the maximum in (12); here both are as
in the paper's code.

References:
    Hubara et al., Binarized Neural Networks, 2016, https://arxiv.org/abs/1602.02830, for (1), (2).
    Liu et al., Bi-Real Net, ECCV 2018, https://arxiv.org/abs/1808.00278, for (3), (7) and (8).
    Darabi et al., BNN+, 2018, https://arxiv.org/abs/1812.11800, for (4).
    Li et al., Ternary Weight Networks, 2016, https://arxiv.org/abs/1605.04711, for (6).
    Zhou et al., DoReFa-Net, 2016, https://arxiv.org/abs/1606.06160, for (9) to (14).
    Geiger & Team, Larq, JOSS 2020, and its quantizers.py.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.binary import sign_ste
from nnlab.ops.scaled import by_filter, signs_by_filter, signs_by_layer
from nnlab.ops.straight_through import stored_in, straight_through

Mode = Literal["activations", "weights"]


@functools.partial(reverse_rule, nondiff_argnums=(0, 1))
def _estimator(slope: Callable[..., jax.Array], option: float | None, value, x) -> jax.Array:
    """`value`, whose cotangent times `slope(x, option)` goes to x."""
    return value


def _estimator_bwd(slope, option, x, g):
    return None, (_widened(g) * slope(_widened(x), option)).astype(x.dtype)


def _estimator_fwd(slope, option, value, x):
    return _estimator(slope, option, value, x), x


_estimator.defvjp(_estimator_fwd, _estimator_bwd)


def _widened(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _inside(x, clip_value):
    if clip_value is None:
        return jnp.ones_like(x)
    return (jnp.abs(x) <= clip_value).astype(x.dtype)  # (2)


def _triangle(x, _):
    return 2 * jnp.maximum(0, 1 - jnp.abs(x))  # (3)


def _swish(x, beta):
    bx = jnp.clip(beta * x, -80, 80)  # beyond, the slope is below 1e-32, and cosh would overflow
    return beta * (2 - bx * jnp.tanh(bx / 2)) / (1 + jnp.cosh(bx))  # (4)


def _inside_unit(x, _):
    return ((x >= 0) & (x <= 1)).astype(x.dtype)  # (10)


def no_op(x: jax.Array) -> jax.Array:
    """`x` itself, where an estimator is asked for and none is wanted."""
    return x


def ste_sign(x: jax.Array, clip_value: float | None = 1.0) -> jax.Array:
    """Sign (1) of `x` (any shape, floating), slope (2); the default is `binary.sign_ste`."""
    if clip_value == 1:
        return sign_ste(x)
    return _estimator(_inside, clip_value, sign_ste(lax.stop_gradient(x)), x)


def approx_sign(x: jax.Array) -> jax.Array:
    """Sign (1) of `x` (any shape, floating), slope (3)."""
    return _estimator(_triangle, 1.0, sign_ste(lax.stop_gradient(x)), x)


def swish_sign(x: jax.Array, beta: float = 5.0) -> jax.Array:
    """Sign (1) of `x` (any shape, floating), slope (4), which is negative past abs(bx) = 2.4."""
    return _estimator(_swish, beta, sign_ste(lax.stop_gradient(x)), x)


def ste_heaviside(x: jax.Array, clip_value: float | None = 1.0) -> jax.Array:
    """Step (5) of `x` (any shape, floating), 0 at 0; slope (2)."""
    held = lax.stop_gradient(x)
    step = jnp.where(jnp.isnan(held), held, (held > 0).astype(x.dtype))  # (5)
    return _estimator(_inside, clip_value, step, x)


def ste_tern(
    x: jax.Array,
    threshold_value: float = 0.05,
    ternary_weight_networks: bool = False,
    clip_value: float | None = 1.0,
) -> jax.Array:
    """Ternary values (6) of `x` (any shape, floating), slope (2).

    The threshold t is `threshold_value`, or with `ternary_weight_networks` that of `ternarize`.
    """
    held = lax.stop_gradient(x)
    threshold = ternary_threshold(held) if ternary_weight_networks else threshold_value
    return _estimator(_inside, clip_value, ternarize(held, threshold), x)


def ternary_threshold(w: jax.Array) -> jax.Array:
    """0.7 times the mean of abs(w), a scalar of float32 or wider.

    For a normal distribution it is near the threshold that comes closest to the weights.
    """
    return 0.7 * jnp.mean(jnp.abs(_widened(w)))


def ternarize(w: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """-1, 0 and +1 by (6), of any shape; not differentiable."""
    wide = _widened(w)
    above, below = (wide >= threshold).astype(w.dtype), (wide <= -threshold).astype(w.dtype)
    return jnp.where(jnp.isnan(w), w, above - below)  # (6)


def magnitude_aware_sign(x: jax.Array, clip_value: float | None = 1.0) -> jax.Array:
    """Scaled signs (7) of weights `x` [..., out], floating, slope (8).

    `nnlab.ops.bireal` multiplies by the scale after the product, for the same value.
    """
    signs, scale = signs_by_filter(lax.stop_gradient(x))
    estimated: Any = _estimator(_inside, clip_value, signs, x)
    return by_filter(scale, x) * estimated


def dorefa_quantizer(x: jax.Array, k_bit: int = 2, mode: Mode = "activations") -> jax.Array:
    """DoReFa's numbers of `k_bit` bits: (9), or in the mode "weights" (11), and (13) for one bit.

    Args:
        x: any shape, floating.
        k_bit: from 1 to 8.
        mode: what `x` is.

    Raises:
        ValueError: of `k_bit` or `mode`.
    """
    if k_bit not in range(1, 9):
        raise ValueError(f"k_bit must be an integer from 1 to 8, not {k_bit!r}.")
    if mode == "activations":
        value = _round(jnp.clip(_widened(lax.stop_gradient(x)), 0, 1), k_bit)  # (9)
        return _estimator(_inside_unit, 1.0, value.astype(x.dtype), x)
    if mode != "weights":
        raise ValueError(f'mode must be "activations" or "weights", not {mode!r}.')
    if k_bit == 1:
        signs, scale = signs_by_layer(lax.stop_gradient(x))
        return straight_through(scale * signs, x)  # (13), (14)
    return _dorefa_weights(x, k_bit)


def _round(u, bits):
    n = 2**bits - 1
    return jnp.round(u * n) / n


def _centred_tanh(w):
    tanh = jnp.tanh(w)
    largest = jnp.max(jnp.abs(tanh))
    return tanh / jnp.where(largest == 0, 1, largest)  # 2 u - 1


@functools.cache
def _stored_dorefa(bits):
    def quantizer(w):
        u = (_centred_tanh(_widened(w)) + 1) / 2
        return (2 * _round(u, bits) - 1).astype(w.dtype)  # (11)

    return stored_in(bits, quantizer)


@functools.partial(reverse_rule, nondiff_argnums=(1,))
def _dorefa_weights(w, bits):
    return _stored_dorefa(bits)(w)


_dorefa_weights.defvjp(
    lambda w, bits: (_dorefa_weights(w, bits), w),
    lambda bits, w, g: jax.vjp(lambda w: _centred_tanh(_widened(w)), w)[1](_widened(g)),  # (12)
)
