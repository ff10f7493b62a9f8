"""ResNets for 32×32 images, as in AdderNet's code and as published by He et al.

A 3×3 convolution to 16 channels, three stages of (depth - 2) / 6 basic blocks with 16, 32 and 64
channels, the mean over positions, and a classifier. In AdderNet's networks, `resnet20` and
`resnet32`, BatchNorm follows the classifier; in those of He et al., `he_resnet20` to
`he_resnet110`, the classifier has a bias. Where the shape changes, the shortcut is either a 1×1
convolution with BatchNorm in the block's arithmetic (option B, and AdderNet's), or every second
pixel with channels of zeros added (option A, which He et al. use for CIFAR). Parameters with 10
classes; AdderNet's with 100 classes have 278,424 and 472,856:

=====  =========  =========  =========
depth  AdderNet   option A   option B
=====  =========  =========  =========
20       272,484    269,722    272,474
32       466,916    464,154    466,906
44       661,348    658,586    661,338
56       855,780    853,018    855,770
110    1,730,724  1,727,962  1,730,714
=====  =========  =========  =========

References:
    He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385, section 4.2;
    Idelbayev, https://github.com/akamaster/pytorch_resnet_cifar10, and Chen,
    https://github.com/chenyaofo/pytorch-cifar-models, for names of `torch_names`.
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, and its code (resnet20.py).
    Song et al., AdderSR, CVPR 2021, https://arxiv.org/abs/2009.08891, and Liu et al., Bi-Real Net,
    ECCV 2018, https://arxiv.org/abs/1808.00278, section 3.2, for shortcuts of every convolution.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.files.borrowing import names_of
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: [batch, h, w, in] to [batch, h/s, w/s, features].

    Where the shape changes, the shortcut is a 1×1 convolution with BatchNorm; without `projection`
    it is every s-th pixel, with channels of zeros on both sides.
    """

    features: int
    strides: int
    arithmetic: Arithmetic
    dtype: Dtype | None
    axis_name: str | None
    projection: bool = True

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
        if x.shape != y.shape and self.projection:
            x = conv((1, 1), strides=self.strides, padding="VALID")(x)
            x = norm()(x)
        elif x.shape != y.shape:
            zeros = (self.features - x.shape[-1]) // 2
            x = x[:, :: self.strides, :: self.strides]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (zeros, zeros)))
        return activation(x + y)


class ConvolutionShortcuts(nn.Module):
    """Two 3×3 convolutions, each with its own shortcut; shapes as for `BasicBlock`.

    Each convolution is normalised, its input is added, and the activation follows. Where the shape
    changes, the input is averaged over 2×2 pixels and passes a 1×1 convolution of the arithmetic
    `shortcut` and BatchNorm.
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


class CifarResNet(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution and the classifier, which use `first`
    and `classifier` (float by default). `dtype` is the dtype of the computation, by default that of
    images and parameters together; parameters, running statistics and logits are always float32.
    With `axis_name`, BatchNorm takes the batches of all devices along that mapped axis as one; by
    default each device normalises its own.

    `depth` is 6 n + 2. `projection` chooses option B for shortcuts of blocks, otherwise option A.
    `normalize_logits` puts BatchNorm after the classifier, which otherwise has a bias. `shortcuts`
    go around each "block", or around each "convolution" as in AdderSR and Bi-Real Net, where
    projections use the arithmetic `first`.

    With `remat` a training step keeps only the inputs of the blocks and computes their insides
    again for the gradient: less memory for one more forward pass, with the same parameters. On a
    CPU this needs `nnlab.training.parallel.compiler_options`, which `nnlab.runs.fit` gives.

    Intermediates: "stage1" to "stage3", the outputs of the stages, and "features", the mean over
    positions.

    Raises:
        InputError: an option has another value than those above, or `shortcuts="convolution"` comes
            without projection.
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
    projection: bool = True
    normalize_logits: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        blocks, remainder = divmod(self.depth - 2, 6)
        if remainder or blocks < 1:
            raise InputError(f"depth must be 6 n + 2 with n at least 1, not {self.depth}.")
        if self.shortcuts not in ("block", "convolution"):
            raise InputError(f'shortcuts must be "block" or "convolution", not {self.shortcuts!r}.')
        if self.shortcuts == "convolution" and not self.projection:
            raise InputError('shortcuts="convolution" needs projection=True, not False.')
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        common = self.dtype, self.axis_name
        kinds: Any = BasicBlock, (self.arithmetic, *common, self.projection)
        if self.shortcuts == "convolution":
            kinds = ConvolutionShortcuts, (self.arithmetic, self.first, *common)
        kind, options = kinds
        block_type = nn.remat(kind, static_argnums=2) if self.remat else kind  # 2 is train
        x = self.first.conv(16, (3, 3), dtype=self.dtype)(x)
        x = self.arithmetic.activation(norm()(x))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                name = f"{kind.__name__}_{blocks * stage + block}"  # with remat and without
                x = block_type(features, strides, *options, name=name)(x, train)
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "features", x)
        classify = functools.partial(self.classifier.dense, self.classes, dtype=self.dtype)
        if self.normalize_logits:
            return norm(dtype=None)(classify()(x))  # of float32 statistics, hence float32
        x = classify(use_bias=True)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@names_of(CifarResNet)
def torch_names(
    model: CifarResNet, like: Literal["idelbayev", "torchvision"] | None = None
) -> dict[str, str]:
    """Return the name that published code has for every layer, for `nnlab.files.borrow`.

    Args:
        model: with shortcuts of blocks.
        like: Idelbayev's code has a shortcut and a `linear`. Torchvision's names, a downsample and
            an `fc`, are those of AdderNet's code and of Chen's pytorch-cifar-models (option B). By
            default Idelbayev's where the classifier has a bias, and AdderNet's otherwise.

    Raises:
        InputError: there are no such names, or the shortcuts go around convolutions.
    """
    like = like or ("torchvision" if model.normalize_logits else "idelbayev")
    if like not in ("idelbayev", "torchvision") or model.shortcuts != "block":
        raise InputError(
            'there are PyTorch names like "idelbayev" or "torchvision" for shortcuts="block", not '
            f"{like!r} for {model.shortcuts!r}."
        )
    shortcut, fc = {"idelbayev": ("shortcut", "linear"), "torchvision": ("downsample", "fc")}[like]
    first, conv = (type(each.conv(1, 1)).__name__ for each in (model.first, model.arithmetic))
    dense = type(model.classifier.dense(1)).__name__
    names = {f"{first}_0": "conv1", "BatchNorm_0": "bn1", f"{dense}_0": fc}
    if model.normalize_logits:
        names["BatchNorm_1"] = "bn2"
    blocks = (model.depth - 2) // 6
    for number in range(3 * blocks):
        stage, block = divmod(number, blocks)
        here, there = f"BasicBlock_{number}/", f"layer{stage + 1}.{block}."
        layers = [("conv1", "bn1"), ("conv2", "bn2")]
        if model.projection and stage > 0 and block == 0:
            layers.append((f"{shortcut}.0", f"{shortcut}.1"))
        for place, (name, norm) in enumerate(layers):
            names[f"{here}{conv}_{place}"] = f"{there}{name}"
            names[f"{here}BatchNorm_{place}"] = f"{there}{norm}"
    return names


resnet20 = functools.partial(CifarResNet, 20)
resnet32 = functools.partial(CifarResNet, 32)

# Option A; `projection=True` is option B.
he_resnet20 = functools.partial(CifarResNet, 20, projection=False, normalize_logits=False)
he_resnet32 = functools.partial(CifarResNet, 32, projection=False, normalize_logits=False)
he_resnet44 = functools.partial(CifarResNet, 44, projection=False, normalize_logits=False)
he_resnet56 = functools.partial(CifarResNet, 56, projection=False, normalize_logits=False)
he_resnet110 = functools.partial(CifarResNet, 110, projection=False, normalize_logits=False)
