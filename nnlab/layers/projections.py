"""A dense layer of any arithmetic in a network of attention: how it starts and what follows it."""

from collections.abc import Callable

import flax.linen as nn
import jax
from flax.typing import Dtype, Initializer

from nnlab.errors import check_maker


class Projection(nn.Module):
    """Map [..., in] to [..., features] with `dense`; its parameters are those of that layer.

    Attributes:
        features: number of outputs.
        dense: makes the layer, called as `dense(features, use_bias=…, dtype=…)`.
        use_bias: whether there is a bias.
        norm: whether a LayerNorm, `output_norm`, follows, which then has the bias; outputs of
            adders need it, see `nnlab.arithmetics.Arithmetic.needs_norm`.
        kernel_init: how weights that are called `kernel`, real factors, start; others start as
            their layer has it.
        dtype: dtype of the computation; by default that of inputs and parameters together.
    """

    features: int
    dense: Callable[..., nn.Module] = nn.Dense
    use_bias: bool = True
    norm: bool = False
    kernel_init: Initializer | None = None
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_maker("dense", self.dense, "nnlab.arithmetics.ADDER.dense")
        super().__post_init__()

    def setup(self):
        bias = self.use_bias and not self.norm
        layer = self.dense(self.features, use_bias=bias, dtype=self.dtype)
        real = hasattr(layer, "kernel_init") and getattr(layer, "kernel_name", "kernel") == "kernel"
        if self.kernel_init and real:
            layer = layer.clone(kernel_init=self.kernel_init)
        self.layer = layer
        nn.share_scope(self, self.layer)
        if self.norm:
            self.output_norm = nn.LayerNorm(
                use_bias=self.use_bias, use_fast_variance=False, dtype=self.dtype
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        # One axis of tokens: over two, XLA's CPU backend transposes number by number before the
        # gradient of the weights, and a step of a float GPT takes 1.4 times as long.
        y = self.layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.features)
        return self.output_norm(y) if self.norm else y
