"""Grouped convolution in any arithmetic.

The channels are cut into groups that follow one another; each has a convolution of its own, and
their outputs follow one another again. The parameters are those of one such layer with an axis of
groups in front, so `[groups, kh, kw, in / groups, features / groups]` for a kernel.

References:
    Krizhevsky et al., ImageNet classification with deep convolutional neural networks, NeurIPS
    2012, section 3.5; Xie et al., ResNeXt, CVPR 2017, https://arxiv.org/abs/1611.05431.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
from flax.typing import Dtype

from nnlab.errors import InputError, check_maker
from nnlab.ops.windows import Padding


class GroupedConv(nn.Module):
    """Convolution of [batch, height, width, in] in `groups` groups, each by a layer of `conv`.

    Where `conv` takes one or three entries of `kernel_size`, so does it.

    `conv` is that of an arithmetic, called as `conv(features, kernel_size, strides=…, padding=…,
    kernel_dilation=…, use_bias=…, dtype=…)`. The groups are mapped by `flax.linen.vmap`, and are as
    one program whatever their number.

    Raises:
        InputError: `groups` does not divide the inputs and `features`.
    """

    conv: Callable[..., nn.Module]
    groups: int
    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = False
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_maker("conv", self.conv, "nnlab.arithmetics.ADDER.conv")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups, inputs = self.groups, x.shape[-1]
        if groups < 1 or inputs % groups or self.features % groups:
            raise InputError(
                f"groups must divide {inputs} inputs and {self.features} features, not {groups}."
            )

        def of_group(module: nn.Module, x: jax.Array) -> jax.Array:
            return self.conv(
                self.features // groups,
                self.kernel_size,
                strides=self.strides,
                padding=self.padding,
                kernel_dilation=self.kernel_dilation,
                use_bias=self.use_bias,
                dtype=self.dtype,
            )(x)

        every = nn.vmap(
            of_group,
            in_axes=-2,
            out_axes=-2,
            variable_axes={True: 0},
            split_rngs={True: True},
        )
        y = every(self, x.reshape(*x.shape[:-1], groups, inputs // groups))
        return y.reshape(*y.shape[:-2], self.features)
