r"""Signs in place of numbers: the quantisers of BinaryConnect and of binary networks.

=====================  =========================================  ==============================
function               value                                      cotangent rule
=====================  =========================================  ==============================
sign_ste(x)            sgn x, with sgn 0 = +1                (1)  g 1[abs(x) <= 1]          (2)
binary_weights(w)      sgn w, with sgn 0 = +1                (3)  g                         (4)
stochastic_…(key, w)   +1 with probability hard_sigmoid(w),  (5)  g                         (4)
                       else -1
=====================  =========================================  ==============================

Rule (2), the hard-tanh straight-through estimator, is the true gradient of the potential
clip(x, -1, 1); rule (4) of the potential w. The hard sigmoid is clip((w + 1) / 2, 0, 1), so that
(5) has the mean clip(w, -1, 1). A NaN stays a NaN.

`binary_dense` and `binary_conv` multiply signs: a term is +1 where they agree and -1 where they
do not, which hardware computes with XNOR and a population count. Their gradients are those of the
product and convolution. A pixel of padding is a 0 and adds nothing, as in the published code.

References:
    Courbariaux et al., BinaryConnect, NeurIPS 2015, https://arxiv.org/abs/1511.00363, eqs. 1 to 3
    for (3) to (5). Hubara et al., Binarized Neural Networks, NeurIPS 2016,
    https://arxiv.org/abs/1602.02830, eq. 1 for (1), eq. 4 for (2).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nnlab.kernels import binary as kernels
from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.convolution import conv_cotangents
from nnlab.ops.front import check_dense_operands, over_rows, over_windows
from nnlab.ops.keys import check_key
from nnlab.ops.straight_through import straight_through
from nnlab.ops.windows import Padding


def _sign(x: jax.Array) -> jax.Array:
    one = jnp.ones((), x.dtype)
    return jnp.where(x >= 0, one, jnp.where(x < 0, -one, x))


@reverse_rule
def _sign_ste(x):
    return _sign(x)  # (1)


_sign_ste.defvjp(
    lambda x: (_sign_ste(x), x),
    lambda x, g: (jnp.where(jnp.abs(x) <= 1, g, jnp.zeros((), g.dtype)),),  # (2)
)


@jax.jit  # named, so that `nnlab.costs` sees which weights can be stored in one bit
def sign_ste(x: jax.Array) -> jax.Array:
    """Sign of `x` (any shape, floating) with the straight-through rule (2)."""
    return _sign_ste(x)


def binary_weights(w: jax.Array) -> jax.Array:
    """BinaryConnect's deterministic weights (3) of `w` (any shape, floating), rule (4)."""
    return straight_through(sign_ste(w), w)


def stochastic_binary_weights(key: jax.Array, w: jax.Array) -> jax.Array:
    """BinaryConnect's stochastic weights (5) of `w` (any shape, floating), rule (4)."""
    check_key(key)
    wide = jnp.promote_types(w.dtype, jnp.float32)  # in bfloat16 a 0 would be 1 draw in 128
    probability = jnp.clip((w.astype(wide) + 1) / 2, 0, 1)
    uniform = 1 - jax.random.uniform(key, w.shape, wide)  # in (0, 1], so that 0 never gives +1
    sign = sign_ste(probability - uniform)  # a NaN weight gives a NaN
    return straight_through(sign.astype(w.dtype), w)


def binary_dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply vectors of signs by a matrix of signs.

    Args:
        x: signs [..., in], floating.
        kernel: signs [in, out], floating.

    Returns:
        [..., out], in the promoted dtype of the operands.

    Raises:
        ValueError: ranks or sizes do not fit.
        TypeError: an operand is not floating.
    """
    check_dense_operands("binary_dense", x, kernel)
    return over_rows(binary_conv, x, kernel)


def binary_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Convolve signs; the options are those of `nnlab.ops.adder.adder_conv`.

    Args:
        x: signs [batch, height, width, in], [batch, time, in] or
            [batch, depth, height, width, in], floating.
        kernel: signs [kh, kw, in, out], [k, in, out] or [kd, kh, kw, in, out], floating.

    Returns:
        [batch, out height, out width, out], or with the axes of `x` in place of these two, in the
        promoted dtype of the operands.

    Raises:
        ValueError: ranks, sizes or window do not fit.
        TypeError: an operand is not floating.
    """
    return over_windows(
        "binary_conv",
        _binary_conv,
        x,
        kernel,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
    )


@functools.partial(reverse_rule, nondiff_argnums=(2,))
def _binary_conv(x, kernel, window) -> jax.Array:
    return kernels.binary_conv(x, kernel, window=window)


def _binary_conv_fwd(x, kernel, window):
    return _binary_conv(x, kernel, window), (x, kernel)


_binary_conv.defvjp(_binary_conv_fwd, conv_cotangents)
