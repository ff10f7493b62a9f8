r"""Products of 8-bit inputs and packed ternary weights, for the inference of BitNet b1.58.

.. math:: y_{po} = \gamma_o \Big(\sum_k q_{pk}\, t_{ko}\Big) s_p                        (1)

    q = \mathrm{clip}(\mathrm{round}(127\, x / m_p), -128, 127), \qquad
    s_p = m_p / 127, \qquad m_p = \max(\max_k |x_{pk}|, 10^{-5})                        (2)

with weights t of -1, 0 and 1 and one scale for all of them or one for each output. Inputs have a
step for each token; they round to the nearest even. The sums are exact in int32 for up to 2^24
inputs, whatever they are, and become float32 by one rounding (by none for up to 131,072 inputs);
each product of (1) rounds once, first that by the scale. So y is to the bit what such a layer
computes in training by floats, where their sums are exact.

Weights take 2 bits or 1.6 and lie as `nnlab.kernels.ternary` reads them. They have no gradient, nor
has their scale; that of x is straight-through, dL/dx = g (gamma t)', the true gradient of the
potential x (gamma t).

References:
    Ma et al., The Era of 1-bit LLMs, 2024, https://arxiv.org/abs/2402.17764, and its training tips,
    code and FAQ (https://github.com/microsoft/unilm/tree/master/bitnet) for (1) and (2).
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from nnlab.errors import InputError
from nnlab.kernels import ternary as kernels
from nnlab.kernels.batch import auto_sharded
from nnlab.kernels.derivatives import reverse_rule
from nnlab.ops.bitnet import int8_by_example
from nnlab.ops.scaled import by_filter

_MOST = 2**24 - 1  # inputs, each at most 128 in magnitude


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedTernary:
    """Ternary weights [inputs, features] with their scale, which is never derived again from them.

    Attributes:
        packed: uint8 [ceil(features / 16), ceil(inputs / (4 per_byte)), 64], as `pack_ternary`
            makes it.
        scale: float32, [] or [features]; a weight is this times -1, 0 or 1.
        inputs, features: numbers of rows and columns.
        per_byte: weights in a byte, 4 (2 bits each) or 5 (1.6 bits).
    """

    packed: jax.Array
    scale: jax.Array
    inputs: int = dataclasses.field(metadata={"static": True})
    features: int = dataclasses.field(metadata={"static": True})
    per_byte: int = dataclasses.field(default=5, metadata={"static": True})


def pack_ternary(
    codes: jax.Array | np.ndarray, scale: ArrayLike = 1.0, *, per_byte: Literal[4, 5] = 5
) -> PackedTernary:
    """Pack ternary weights by 2 bits or 1.6.

    Args:
        codes: -1, 0 and 1 [in, out], int8; sizes need not divide by anything.
        scale: what they stand for, [] or [out].
        per_byte: weights in a byte: 4 unpack faster, 5 take less memory.

    Raises:
        InputError: a shape, the dtype, `per_byte`, or a value that is known does not fit.
    """
    if codes.ndim != 2 or codes.dtype != jnp.int8:
        raise InputError(
            f"pack_ternary expects codes [in, out] in int8, not {codes.dtype} {codes.shape}."
        )
    if per_byte not in (4, 5):
        raise InputError(f"pack_ternary packs 4 or 5 weights in a byte, not {per_byte}.")
    if codes.shape[0] > _MOST:
        raise InputError(f"pack_ternary takes at most {_MOST} inputs, not {codes.shape[0]}.")
    scale = jnp.asarray(scale, jnp.float32)
    if scale.shape not in ((), codes.shape[1:]):
        raise InputError(
            f"pack_ternary expects one scale or {codes.shape[1]} of them, not shape {scale.shape}."
        )
    known = codes.size and not isinstance(codes, Tracer)
    if known and (codes.min() < -1 or codes.max() > 1):
        raise InputError(f"pack_ternary packs -1, 0 and 1, not {codes.min()} to {codes.max()}.")
    inputs, features = codes.shape
    packed = kernels.pack(jnp.asarray(codes), per_byte)
    return PackedTernary(packed, scale, inputs, features, per_byte)


def packed_shape(inputs: int, features: int, per_byte: int) -> tuple[int, int, int]:
    """The shape of packed weights [inputs, features]."""
    return kernels.packed_shape(inputs, features, per_byte)


def unpack_ternary(weights: PackedTernary) -> jax.Array:
    """Return the codes -1, 0 and 1 [in, out], int8, of packed weights."""
    return kernels.unpack(weights.packed, weights.inputs, weights.features, weights.per_byte)


def ternary_dense_int8(x: jax.Array, weights: PackedTernary) -> jax.Array:
    """Multiply vectors of integers by ternary weights, without their scale.

    Args:
        x: [..., in], int8.
        weights: [in, out].

    Returns:
        [..., out], int32, exact.

    Raises:
        InputError: `x` has other inputs or another dtype.
    """
    if x.dtype != jnp.int8:
        raise InputError(f"ternary_dense_int8 expects an int8 x, not {x.dtype}.")
    _check_inputs("ternary_dense_int8", x, weights)
    return auto_sharded(lambda x, packed: _sums(x, packed, weights), x, weights.packed)


def ternary_dense_packed(x: jax.Array, weights: PackedTernary) -> jax.Array:
    """Multiply vectors, rounded to 8 bits a token, by ternary weights (1).

    Args:
        x: [..., in], floating; a token is a vector.
        weights: [in, out], without gradient.

    Returns:
        [..., out], dtype of `x`.

    Raises:
        InputError: `x` has other inputs or is not floating.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"ternary_dense_packed expects a floating x, not {x.dtype}.")
    _check_inputs("ternary_dense_packed", x, weights)

    def dense(x, packed, scale):
        return _ternary_dense_packed(x, dataclasses.replace(weights, packed=packed, scale=scale))

    return auto_sharded(dense, x, weights.packed, weights.scale)


@reverse_rule
def _ternary_dense_packed(x: jax.Array, weights: PackedTernary) -> jax.Array:
    rows = x.reshape(math.prod(x.shape[:-1]), weights.inputs)
    codes, step = int8_by_example(rows)  # (2)
    sums = _sums(codes.astype(jnp.int8), weights.packed, weights).astype(step.dtype)
    scale = by_filter(weights.scale.astype(step.dtype), sums)
    y = scale * sums * step  # (1)
    return y.astype(x.dtype).reshape(*x.shape[:-1], weights.features)


def _ternary_dense_packed_bwd(weights, g):
    codes = unpack_ternary(weights).astype(jnp.float32)
    w = by_filter(weights.scale, codes) * codes
    return g @ w.T.astype(g.dtype), None


_ternary_dense_packed.defvjp(
    lambda x, weights: (_ternary_dense_packed(x, weights), weights), _ternary_dense_packed_bwd
)


def _sums(x: jax.Array, packed: jax.Array, weights: PackedTernary) -> jax.Array:
    rows = x.reshape(math.prod(x.shape[:-1]), weights.inputs)
    y = kernels.ternary_dense_packed(
        rows, packed, features=weights.features, digits=weights.per_byte
    )
    return y.reshape(*x.shape[:-1], weights.features)


def _check_inputs(name: str, x: jax.Array, weights: PackedTernary) -> None:
    if x.ndim < 1 or x.shape[-1] != weights.inputs:
        raise InputError(
            f"{name} expects x [..., {weights.inputs}] for weights "
            f"[{weights.inputs}, {weights.features}], not shape {x.shape}."
        )
