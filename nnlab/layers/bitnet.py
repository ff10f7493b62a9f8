"""Layers of `nnlab.ops.bitnet`: a normalisation, then eight-bit inputs and weights of few values.

Where the normalisation stands is a choice of the publication: inside of each layer (`norm`, as in
BitNet's training tips and in MatMul-free language models), or before some of them as the model
places it. The weights are named `kernel` and learn by the optimiser of float weights.
"""

from typing import Any

import flax.linen as nn
import jax

from nnlab.layers.product import ProductConv, ProductDense
from nnlab.ops.bitnet import bitnet_conv, ternary_by_mean
from nnlab.ops.front import Product
from nnlab.ops.scaled import ScaledQuantizer, export_weights


class _BitNet(nn.Module):
    op: Product = bitnet_conv
    quantizer: ScaledQuantizer = ternary_by_mean
    norm: bool = True
    norm_epsilon: float = 1e-6

    @nn.nowrap
    def export(self: Any, variables: Any) -> tuple[jax.Array, jax.Array]:
        """Return what is stored of the weights: codes, int8, and their scale, float32 [].

        Args:
            variables: those of the layer.
        """
        return export_weights(variables["params"][self.kernel_name], self.quantizer)

    @nn.nowrap
    def _inputs(self: Any, x):
        if not self.norm:
            return x
        return nn.RMSNorm(self.norm_epsilon, dtype=x.dtype, name="input_norm")(x)

    @nn.nowrap
    def _product(self, x, kernel, **window):
        return self.op(x, kernel, quantizer=self.quantizer, **window)


class BitNetConv(_BitNet, ProductConv):
    """BitNet's convolution, whose inputs have one step for each example.

    It has the attributes of `nnlab.layers.ProductConv` too.

    Attributes:
        quantizer: `nnlab.ops.bitnet.ternary_by_mean` (b1.58), or
            `nnlab.ops.scaled.centred_signs_by_layer` (b1).
        norm: whether an RMSNorm over the channels, with a weight for each, comes first.
        norm_epsilon: added to its mean square.
    """


class BitNetDense(_BitNet, ProductDense):
    """BitNet's dense layer, whose inputs have one step for each token; see `BitNetConv`."""
