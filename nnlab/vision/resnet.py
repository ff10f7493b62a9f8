"""Residual networks for ImageNet, and those with grouped convolutions (ResNeXt).

A 7×7 convolution of stride 2 and a 3×3 maximum of stride 2, four stages of blocks, each but the
first with half the height and width and twice the channels, the mean over positions, and a
classifier. Every convolution is followed by BatchNorm. In a bottleneck the 3×3 convolution has the
stride, as in most published weights, not the first 1×1 convolution as in the paper. Where the shape
changes, the shortcut is a 1×1 convolution with BatchNorm, in the block's arithmetic. With 1,000
classes and 224×224 images:

================  ===========  ==============
network           parameters   multiply-adds
================  ===========  ==============
ResNet-18          11,689,512   1,814,073,344
ResNet-34          21,797,672   3,663,761,408
ResNet-50          25,557,032   4,089,184,256
ResNet-101         44,549,160   7,801,405,440
ResNet-152         60,192,808  11,513,626,624
ResNeXt-50 32×4    25,028,904   4,230,479,872
ResNeXt-101 32×8   88,791,336  16,414,015,488
ResNeXt-101 64×4   83,455,272  15,460,270,080
================  ===========  ==============

References:
    He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385, table 1.
    Xie et al., ResNeXt, CVPR 2017, https://arxiv.org/abs/1611.05431, table 1.
    torchvision (resnet.py), whose weights give the same logits here (`torch_names`).
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, and its code (resnet50.py).
    Chen et al., A Simple Framework for Contrastive Learning, ICML 2020,
    https://arxiv.org/abs/2002.05709, appendix B.9, for the stem of 32×32 images.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.files.borrowing import names_of
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.normalization import FrozenBatchNorm, batch_norm
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool


def _norm(network: Any, train: bool) -> Callable[..., nn.Module]:
    if network.frozen_norm:
        return functools.partial(FrozenBatchNorm, dtype=network.dtype)
    return functools.partial(batch_norm, train, dtype=network.dtype, axis_name=network.axis_name)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: [batch, h, w, in] to [batch, h/s, w/s, features]."""

    features: int
    strides: int
    arithmetic: Arithmetic
    dtype: Dtype | None
    axis_name: str | None
    frozen_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(self.arithmetic.conv, self.features, dtype=self.dtype)
        norm = _norm(self, train)
        activation = self.arithmetic.activation
        y = conv((3, 3), strides=self.strides, padding=1, name="conv1")(x)
        y = activation(norm(name="bn1")(y))
        y = conv((3, 3), padding=1, name="conv2")(y)
        y = norm(name="bn2")(y)
        if x.shape != y.shape:
            x = conv((1, 1), strides=self.strides, padding="VALID", name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x)
        return activation(x + y)


class Bottleneck(nn.Module):
    """1×1, grouped 3×3 and 1×1 with a shortcut: [batch, h, w, in] to [batch, h/s, w/s, features].

    `width` is that of the first two convolutions, over all `groups`.
    """

    features: int
    width: int
    groups: int
    strides: int
    arithmetic: Arithmetic
    dtype: Dtype | None
    axis_name: str | None
    frozen_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(self.arithmetic.conv, dtype=self.dtype)
        grouped = conv
        if self.groups > 1:
            grouped = functools.partial(
                GroupedConv, self.arithmetic.conv, self.groups, dtype=self.dtype
            )
        norm = _norm(self, train)
        activation = self.arithmetic.activation
        y = conv(self.width, (1, 1), name="conv1")(x)
        y = activation(norm(name="bn1")(y))
        y = grouped(self.width, (3, 3), strides=self.strides, padding=1, name="conv2")(y)
        y = activation(norm(name="bn2")(y))
        y = conv(self.features, (1, 1), name="conv3")(y)
        y = norm(name="bn3")(y)
        if x.shape != y.shape:
            options: Any = {"padding": "VALID", "name": "downsample_conv"}
            x = conv(self.features, (1, 1), strides=self.strides, **options)(x)
            x = norm(name="downsample_bn")(x)
        return activation(x + y)


class ResNet(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution and the classifier, which use `first`
    and `classifier` (float by default). `dtype` is the dtype of the computation, by default that of
    images and parameters together; parameters, running statistics and logits are always float32.
    With `axis_name`, BatchNorm takes the batches of all devices along that mapped axis as one; by
    default each device normalises its own. The classifier has a bias, and with `normalize_logits`
    BatchNorm after it, as in AdderNet's code.

    `frozen_norm` makes `FrozenBatchNorm` of it, which a detector may take over from others.

    `stage_sizes` are the numbers of blocks: basic blocks, or with `bottleneck` those that return
    four times as many channels. `features` is the width of the first convolution and of the first
    stage; each further stage has twice the width of the one before. The 3×3 convolution of a
    bottleneck has `groups` groups, of `width_per_group` channels each in a stage of 64 features and
    in proportion in others. `stem` is "imagenet", or "cifar" for small images: a 3×3 convolution of
    stride 1 and no maximum. `remat` is that of `nnlab.models.CifarResNet`.

    Intermediates: "stage1" and so on, the outputs of the stages, and "features", the mean over
    positions.

    Raises:
        InputError: a stage has no block, an option has another value than those above, or basic
            blocks are to have groups or another width.
    """

    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    groups: int = 1
    width_per_group: int = 64
    features: int = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"
    remat: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None
    normalize_logits: bool = False
    frozen_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = _norm(self, train)
        x = self._stages(x, train)[-1].mean(axis=(1, 2))
        self.sow("intermediates", "features", x)
        x = self.classifier.dense(self.classes, use_bias=True, dtype=self.dtype, name="fc")(x)
        if self.normalize_logits:
            return norm(dtype=None, name="bn2")(x)  # of float32 statistics, hence float32
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def _stages(self, x: jax.Array, train: bool) -> list[jax.Array]:
        self._check()
        norm = _norm(self, train)
        conv = functools.partial(self.first.conv, self.features, dtype=self.dtype, name="conv1")
        if self.stem == "imagenet":
            x = conv((7, 7), strides=2, padding=3)(x)
        else:
            x = conv((3, 3), padding=1)(x)
        x = self.arithmetic.activation(norm(name="bn1")(x))
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2, 1)
        stages = []
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                x = self._block(stage, strides, f"stage{stage + 1}_block{block}")(x, train)
            self.sow("intermediates", f"stage{stage + 1}", x)
            stages.append(x)
        return stages

    def _block(self, stage: int, strides: int, name: str) -> nn.Module:
        kind: Any = Bottleneck if self.bottleneck else BasicBlock
        kind = nn.remat(kind, static_argnums=2) if self.remat else kind  # 2 is train
        features = self.features * 2**stage
        options = strides, self.arithmetic, self.dtype, self.axis_name, self.frozen_norm
        if not self.bottleneck:
            return kind(features, *options, name=name)
        width = features * self.width_per_group // 64 * self.groups
        return kind(4 * features, width, self.groups, *options, name=name)

    def _check(self) -> None:
        if not self.stage_sizes or min(self.stage_sizes) < 1:
            raise InputError(f"stage_sizes must be at least 1 each, not {self.stage_sizes}.")
        if self.stem not in ("imagenet", "cifar"):
            raise InputError(f'stem must be "imagenet" or "cifar", not {self.stem!r}.')
        if self.groups < 1 or self.features * self.width_per_group < 64:
            raise InputError(
                "groups must be at least 1, of at least one channel each, not "
                f"groups={self.groups} and width_per_group={self.width_per_group} with "
                f"features={self.features}."
            )
        if not self.bottleneck and (self.groups, self.width_per_group) != (1, 64):
            raise InputError(
                "basic blocks have groups=1 and width_per_group=64, not "
                f"{self.groups} and {self.width_per_group}."
            )


class ResNetStages(ResNet):
    """A `ResNet` without its classifier: map images to the outputs of all stages, the first first.

    The options of the classifier do nothing here.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> list[jax.Array]:
        return self._stages(x, train)


@names_of(ResNet)
def torch_names(model: ResNet) -> dict[str, str]:
    """Return torchvision's and AdderNet's name of every layer, for `nnlab.files.borrow`."""
    names = {"conv1": "conv1", "bn1": "bn1", "fc": "fc"}
    if model.normalize_logits:
        names["bn2"] = "bn2"
    for stage, blocks in enumerate(model.stage_sizes, start=1):
        for block in range(blocks):
            here, there = f"stage{stage}_block{block}/", f"layer{stage}.{block}."
            for number in range(1, 4 if model.bottleneck else 3):
                names[f"{here}conv{number}"] = f"{there}conv{number}"
                names[f"{here}bn{number}"] = f"{there}bn{number}"
            if block == 0 and (stage > 1 or model.bottleneck):
                names[f"{here}downsample_conv"] = f"{there}downsample.0"
                names[f"{here}downsample_bn"] = f"{there}downsample.1"
    return names


resnet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False)
resnet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False)
resnet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3))
resnet152 = functools.partial(ResNet, stage_sizes=(3, 8, 36, 3))
resnext50_32x4d = functools.partial(resnet50, groups=32, width_per_group=4)
resnext101_32x8d = functools.partial(resnet101, groups=32, width_per_group=8)
resnext101_64x4d = functools.partial(resnet101, groups=64, width_per_group=4)
