"""SqueezeNet 1.0 and 1.1: AlexNet's accuracy with a fiftieth of its parameters.

A fire module squeezes its input into a few channels by 1×1 convolutions, and expands them by 1×1
and 3×3 convolutions in parallel. The network is a convolution, eight fire modules with three 3×3
maxima of stride 2 among them, and a 1×1 convolution to `classes` channels, whose means over
positions are the logits. Version 1.1 has a smaller first convolution and earlier maxima. With 1,000
classes and 224×224 images:

=======  ==========  =============
version  parameters  multiply-adds
=======  ==========  =============
1.0       1,248,424    818,924,576
1.1       1,235,496    349,151,936
=======  ==========  =============

Windows of the maxima that reach beyond the image on the right and below count, as in Caffe. Weights
start as the arithmetic has it.

References:
    Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model
    size, 2016, https://arxiv.org/abs/1602.07360, table 1 and, for 1.1, its code
    https://github.com/forresti/SqueezeNet. torchvision (squeezenet.py).
"""

import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.files.borrowing import names_of
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool


class _Version(NamedTuple):
    features: int  # features of the first convolution
    size: int  # size of its kernel
    pools: tuple[int, ...]  # fire modules before a maximum


_VERSIONS = {"1.0": _Version(96, 7, (4, 8)), "1.1": _Version(64, 3, (3, 5))}
_SQUEEZES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}  # channels of a fire module


class Fire(nn.Module):
    """Map [batch, height, width, in] to [batch, height, width, 8 · squeeze].

    `norm` replaces the bias of each convolution by BatchNorm.
    """

    squeeze: int
    arithmetic: Arithmetic
    norm: bool
    dtype: Dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)

        def layer(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            conv = functools.partial(self.arithmetic.conv, dtype=self.dtype, name=name)
            x = conv(features, (size, size), padding=size // 2, use_bias=not self.norm)(x)
            if self.norm:
                x = norm(name=f"{name}_bn")(x)
            return self.arithmetic.activation(x)

        x = layer(x, self.squeeze, 1, "squeeze")
        sides = [layer(x, 4 * self.squeeze, size, f"expand{size}x{size}") for size in (1, 3)]
        return jnp.concatenate(sides, axis=-1)


class SqueezeNet(Network):
    """Map images [batch, height, width, channels], at least 7×7, to logits [batch, classes].

    All layers use `arithmetic`, except the first and the last convolution, which use `first` and
    `classifier` (float by default). Dropout of rate `dropout` acts on the input of the last; in
    training, `apply` takes `rngs={"dropout": key}`. An activation follows the last convolution too,
    as published: with ReLU no logit is negative.

    `norm` replaces the bias of each convolution by BatchNorm, the last included. Adders need it:
    their outputs lie near minus the number of their terms, and nothing would pass the activation.
    Even so, seventeen and more adders in a row without a shortcut start with nearly all variance of
    the features in one direction, and gradients shrink accordingly: small images and batches, with
    an adder at the end too, leave none to the first layers.

    `dtype` is the dtype of the computation, by default that of images and parameters together;
    parameters, running statistics and logits are always float32. With `axis_name`, BatchNorm takes
    the batches of all devices along that mapped axis as one; by default each device normalises its
    own.

    Intermediates: "stage1" to "stage3" [batch, height, width, features] before each maximum,
    "stage4" after the last fire module, and "features" [batch, 512], the means of that.

    Raises:
        InputError: `version` is neither "1.0" nor "1.1".
        ValueError: the image is smaller than the first kernel, or has not four axes.
    """

    version: Literal["1.0", "1.1"] = "1.0"
    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    dropout: float = 0.5
    norm: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        features, size, pools = _version(self.version)
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        layer = {"use_bias": not self.norm, "dtype": self.dtype}
        conv = functools.partial(self.first.conv, padding="VALID", name="conv1", **layer)
        x = conv(features, (size, size), strides=2)(x)
        if self.norm:
            x = norm(name="bn1")(x)
        x = self.arithmetic.activation(x)
        self.sow("intermediates", "stage1", x)
        x = max_pool(x, 3, 2, "CEIL")
        for number, squeeze in _SQUEEZES.items():
            options = self.arithmetic, self.norm, self.dtype, self.axis_name
            x = Fire(squeeze, *options, name=f"fire{number}")(x, train)
            if number in pools:
                self.sow("intermediates", f"stage{2 + pools.index(number)}", x)
                x = max_pool(x, 3, 2, "CEIL")
        self.sow("intermediates", "stage4", x)
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "features", x.mean(axis=(1, 2)))

        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        x = self.classifier.conv(self.classes, (1, 1), name="conv10", **layer)(x)
        if self.norm:
            x = norm(name="bn10")(x)
        x = self.classifier.activation(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))


squeezenet1_0 = functools.partial(SqueezeNet, "1.0")
squeezenet1_1 = functools.partial(SqueezeNet, "1.1")


@names_of(SqueezeNet)
def torch_names(model: SqueezeNet) -> dict[str, str]:
    """Return torchvision's names of the layers of `squeezenet1_0` and `squeezenet1_1`."""
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    place = 3  # after convolution, ReLU and maximum
    for number in _SQUEEZES:
        for layer in ("squeeze", "expand1x1", "expand3x3"):
            names[f"fire{number}/{layer}"] = f"features.{place}.{layer}"
        place += 2 if number in _version(model.version).pools else 1
    return names


def _version(version: str) -> _Version:
    if version not in _VERSIONS:
        raise InputError(f'version must be "1.0" or "1.1", not {version!r}.')
    return _VERSIONS[version]
