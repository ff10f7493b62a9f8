"""A dense layer of `nnlab.ops.packed_ternary`, for inference.

`nnlab.deployment.pack` makes such layers of trained ones. Codes and their scale are parameters, so
that a file holds both and nothing derives one from the other.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.ops.front import over_rows
from nnlab.ops.packed_ternary import (
    PackedTernary,
    packed_shape,
    ternary_dense_packed,
    unpack_ternary,
)
from nnlab.ops.products import signed_conv


class PackedTernaryDense(nn.Module):
    """Map [..., in] to [..., features] by packed ternary weights; it has no gradient of them.

    The parameters are `packed`, uint8 as `nnlab.ops.packed_ternary` has it, and `scale`, float32
    []; with options, `bias` and the weights of `input_norm`. The result is to the bit that of the
    layer that they come from, in float32.

    Attributes:
        features: number of outputs.
        use_bias: whether to add a bias.
        per_byte: weights in a byte, 4 or 5.
        rounded: whether inputs are rounded to eight bits a token, as in BitNet. If not, weights are
            unpacked for a product of floats: the file is small, the product as fast as that.
        norm: whether an RMSNorm of the inputs comes first.
        norm_epsilon: added to its mean square.
        dtype: dtype of the computation; by default that of the inputs, float32 at least.

    Raises:
        InputError: on the call, for inputs that are not floating or of another size.
    """

    features: int
    use_bias: bool = False
    per_byte: Literal[4, 5] = 5
    rounded: bool = True
    norm: bool = False
    norm_epsilon: float = 1e-6
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        zeros, shape = nn.initializers.zeros, packed_shape(inputs, self.features, self.per_byte)
        packed = self.param("packed", zeros, shape, jnp.uint8)
        scale = self.param("scale", zeros, (), jnp.float32)
        x = x.astype(self.dtype or jnp.promote_types(x.dtype, jnp.float32))
        if self.norm:
            x = nn.RMSNorm(self.norm_epsilon, dtype=x.dtype, name="input_norm")(x)
        weights = PackedTernary(packed, scale, inputs, self.features, self.per_byte)
        if self.rounded:
            y = ternary_dense_packed(x, weights)
        else:
            codes: Any = unpack_ternary(weights).astype(x.dtype)
            y = scale.astype(x.dtype) * over_rows(signed_conv, x, codes)
        if not self.use_bias:
            return y
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        return y + bias.astype(y.dtype)
