"""ResNets for 32×32 images, as AdderNet's code builds them.

A 3×3 convolution to 16 channels, three stages of (depth - 2) / 6 basic blocks with 16, 32 and 64
channels, the mean over positions, and a classifier followed by BatchNorm. Where the shape changes,
the shortcut is a 1×1 convolution with BatchNorm, in the same arithmetic as the block. Parameters
with 10 and 100 classes: depth 20 272,484 and 278,424; depth 32 466,916 and 472,856.

References:
    He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385, section 4.2.
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, and its code (resnet20.py).
    Song et al., AdderSR, CVPR 2021, https://arxiv.org/abs/2009.08891, and Liu et al., Bi-Real Net,
    ECCV 2018, https://arxiv.org/abs/1808.00278, section 3.2, for shortcuts of every convolution.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.normalization import batch_norm


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: [batch, h, w, in] to [batch, h/s, w/s, features]."""

    features: int
    strides: int
    arithmetic: Arithmetic
    dtype: Dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(self.arithmetic.conv, self.features, dtype=self.dtype)
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        activation = self.arithmetic.activation
        sides = ((1, 1), (1, 1))
        y = conv((3, 3), strides=self.strides, padding=sides)(x)
        y = activation(norm()(y))
        y = conv((3, 3), padding=sides)(y)
        y = norm()(y)
        if x.shape != y.shape:
            x = conv((1, 1), strides=self.strides, padding="VALID")(x)
            x = norm()(x)
        return activation(x + y)


class ConvolutionShortcuts(nn.Module):
    """Two 3×3 convolutions, each with a shortcut of its own; shapes as of `BasicBlock`.

    A convolution, normalisation, plus what went in, activation. Where the shape changes, what went
    in is averaged over 2×2 pixels and goes through a 1×1 convolution of `shortcut` and
    normalisation.
    """

    features: int
    strides: int
    arithmetic: Arithmetic
    shortcut: Arithmetic
    dtype: Dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(self.arithmetic.conv, self.features, dtype=self.dtype)
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        for strides in (self.strides, 1):
            y = conv((3, 3), strides=strides, padding=((1, 1), (1, 1)))(x)
            y = norm()(y)
            if strides > 1:
                window = (strides, strides)
                x = nn.avg_pool(x, window, window, "SAME", count_include_pad=False)
            if x.shape != y.shape:
                x = self.shortcut.conv(self.features, (1, 1), dtype=self.dtype)(x)
                x = norm()(x)
            x = self.arithmetic.activation(x + y)
        return x


class CifarResNet(nn.Module):
    """[batch, height, width, channels] to logits [batch, classes].

    `arithmetic` serves all layers but the first convolution and the classifier, which are float
    unless `first` and `classifier` say otherwise. `depth` is 6 n + 2. `dtype` is that of the
    computation, by default that of images and parameters together; parameters, running statistics
    and logits are float32 in any. `axis_name` is that of a mapped axis along which BatchNorm takes
    the batch of all devices as one; by default each has its own. `shortcuts` go around a "block",
    or around every "convolution" as in AdderSR and Bi-Real Net; the latter, where the shape
    changes, are of the arithmetic `first`. With `remat` a training step
    keeps what goes into each block and computes the inside again for the gradient, with the same
    parameters: less memory for one more forward pass. On a CPU it takes
    `nnlab.training.parallel.compiler_options`, which `nnlab.training.fit` gives.
    """

    depth: int
    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    dtype: Dtype | None = None
    axis_name: str | None = None
    remat: bool = False
    shortcuts: Literal["block", "convolution"] = "block"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        blocks, remainder = divmod(self.depth - 2, 6)
        if remainder or blocks < 1:
            raise ValueError(f"depth must be 6 n + 2 with n at least 1, not {self.depth}.")
        if self.shortcuts not in ("block", "convolution"):
            raise ValueError(f'shortcuts must be "block" or "convolution", not {self.shortcuts!r}.')
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        kinds: Any = BasicBlock, (self.arithmetic,)
        if self.shortcuts == "convolution":
            kinds = ConvolutionShortcuts, (self.arithmetic, self.first)
        kind, arithmetics = kinds
        block_type = nn.remat(kind, static_argnums=2) if self.remat else kind  # 2 is train
        x = self.first.conv(16, (3, 3), dtype=self.dtype)(x)
        x = self.arithmetic.activation(norm()(x))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                name = f"{kind.__name__}_{blocks * stage + block}"  # with remat and without
                options = (features, strides, *arithmetics, self.dtype, self.axis_name)
                x = block_type(*options, name=name)(x, train)
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, dtype=self.dtype)(x)
        return norm(dtype=None)(x)  # of float32 statistics, hence float32


resnet20 = functools.partial(CifarResNet, 20)
resnet32 = functools.partial(CifarResNet, 32)
