"""GoogLeNet for images of 224×224 pixels: nine Inception cells.

A 7×7 convolution to 64 channels with stride 2, a 1×1 to 64 and a 3×3 to 192, cells 3a and 3b, 4a to
4e, 5a and 5b up to 1,024 channels, the mean over positions, dropout and a classifier. A maximum
with stride 2 comes before and after the second and third convolution and between cells of different
numbers. Two auxiliary heads, after cells 4a and 4d, are optional in training. With 1,000 classes:

===============  ==========================================  ============  =============
                 differences                                 parameters    and two heads
===============  ==========================================  ============  =============
`GoogLeNet`      BatchNorm; 3×3 convolutions for 5×5         6,624,904     13,004,888
`googlenet_v1`   biases, response normalisation, as in the   6,998,552     13,378,280
                 paper
===============  ==========================================  ============  =============

Without the heads they take 1,498.4 M and 1,582.7 M multiply-adds, or as many adder terms.

References:
    Szegedy et al., Going deeper with convolutions, CVPR 2015, https://arxiv.org/abs/1409.4842,
    table 1 and section 5. `GoogLeNet` is torchvision's, whose trained weights came from TensorFlow.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.files.borrowing import Flattened, names_of
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.adaptive_pooling import adaptive_avg_pool
from nnlab.ops.pooling import max_pool
from nnlab.ops.response_normalization import local_response_norm
from nnlab.vision.inception import (
    Branch,
    ConvUnit,
    InceptionCell,
    Outputs,
    Unit,
    check_dropout,
    units,
)

# Table 1: 1×1; reduction and 3×3; reduction and 5×5; projection after the pooling.
_CELLS = {
    "inception3a": (64, (96, 128), (16, 32), 32),
    "inception3b": (128, (128, 192), (32, 96), 64),
    "inception4a": (192, (96, 208), (16, 48), 64),
    "inception4b": (160, (112, 224), (24, 64), 64),
    "inception4c": (128, (128, 256), (24, 64), 64),
    "inception4d": (112, (144, 288), (32, 64), 64),
    "inception4e": (256, (160, 320), (32, 128), 128),
    "inception5a": (256, (160, 320), (32, 128), 128),
    "inception5b": (384, (192, 384), (48, 128), 128),
}
_HEADS = {"inception4a": "aux1", "inception4d": "aux2"}
_STAGES = {"inception3b": "stage3", "inception4e": "stage4", "inception5b": "stage5"}


def branches(
    one: int, three: tuple[int, int], five: tuple[int, int], project: int, kernel_size: int = 5
) -> tuple[Branch, ...]:
    """Return the branches of figure 2b by their widths; `kernel_size` replaces the 5×5."""
    return (
        (Unit("conv1x1", one),),
        (Unit("reduce3x3", three[0]), Unit("conv3x3", three[1], 3)),
        (Unit("reduce5x5", five[0]), Unit("conv5x5", five[1], kernel_size)),
        (functools.partial(max_pool, window=3, strides=1, padding=1), Unit("project", project)),
    )


class AuxiliaryHead(nn.Module):
    """Map [batch, height, width, in] to logits [batch, classes], by way of 4×4 means."""

    classes: int
    arithmetic: Arithmetic
    classifier: Arithmetic
    norm: bool
    norm_hidden: bool
    dropout: float
    dtype: Dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, activation = self.arithmetic.conv, self.arithmetic.activation
        shared = self.norm, self.dtype, self.axis_name
        x = adaptive_avg_pool(x, 4)
        x = ConvUnit(Unit("conv", 128), conv, activation, *shared, name="conv")(x, train)
        x = lax.collapse(x, 1)
        x = self.classifier.dense(1024, use_bias=True, dtype=self.dtype, name="fc1")(x)
        if self.norm_hidden:
            x = batch_norm(train, self.dtype, self.axis_name, name="bn1")(x)
        x = nn.Dropout(self.dropout)(activation(x), deterministic=not train)
        x = self.classifier.dense(self.classes, use_bias=True, dtype=self.dtype, name="fc2")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class GoogLeNet(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution, which uses `first`, and the
    classifier and the dense layers of the heads, which use `classifier` (both float by default).
    `dtype` is the dtype of the computation, by default that of images and parameters together;
    parameters, running statistics and logits are always float32. With `axis_name`, BatchNorm takes
    the batches of all devices along that mapped axis as one; by default each device normalises its
    own.

    `original` is the paper's network: 5×5 convolutions, which later became 3×3; response
    normalisation around the second and third convolution (the paper does not give its constants;
    here they are AlexNet's); and a fourth maximum of 3×3 pixels, not 2×2. Without `norm`,
    convolutions have biases in place of BatchNorm; adders need BatchNorm, as their outputs lie near
    minus the number of their terms. `norm_hidden` puts one between the dense layers of the heads,
    for a `classifier` of adders.

    With `auxiliary`, a call with `train` returns `nnlab.vision.inception.Outputs` with the logits
    of both heads, for `nnlab.training.with_auxiliary`; otherwise the heads are not used. They
    average images of any size into 4×4 bins, where the paper averages 5×5 pixels at every third, to
    the same 4×4 at 224 pixels. `dropout` and `auxiliary_dropout` are rates.

    Intermediates: "stage1" and "stage2" after the first and third convolution, "stage3" to "stage5"
    after cells 3b, 4e and 5b, each of half the height and width of the one before; "features",
    [batch, 1024].

    Raises:
        InputError: a dropout rate is not in [0, 1).
    """

    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    original: bool = False
    norm: bool = True
    norm_hidden: bool = False
    auxiliary: bool = False
    dropout: float = 0.2
    auxiliary_dropout: float = 0.7
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array | Outputs:
        check_dropout("dropout", self.dropout)
        check_dropout("auxiliary_dropout", self.auxiliary_dropout)
        shared = self.norm, self.dtype, self.axis_name
        conv, activation = self.arithmetic.conv, self.arithmetic.activation
        respond = local_response_norm if self.original else lambda x: x
        pool = functools.partial(max_pool, window=3, strides=2, padding="CEIL")

        unit = Unit("conv1", 64, 7, 2, 3)
        x = ConvUnit(unit, self.first.conv, activation, *shared, name="conv1")(x, train)
        self.sow("intermediates", "stage1", x)
        x = respond(pool(x))
        for unit in (Unit("conv2", 64), Unit("conv3", 192, 3)):
            x = ConvUnit(unit, conv, activation, *shared, name=unit.name)(x, train)
        self.sow("intermediates", "stage2", x)
        x = pool(respond(x))

        auxiliary = []
        for name, widths in _CELLS.items():
            if name == "inception4a":
                x = pool(x)
            elif name == "inception5a":
                x = pool(x) if self.original else max_pool(x, 2, padding="CEIL")
            cell = branches(*widths, kernel_size=5 if self.original else 3)
            x = InceptionCell(cell, self.arithmetic, *shared, name=name)(x, train)
            if name in _STAGES:
                self.sow("intermediates", _STAGES[name], x)
            if name in _HEADS and self.auxiliary and (train or self.is_initializing()):
                auxiliary.append(self._head(_HEADS[name])(x, train))
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        x = self.classifier.dense(self.classes, use_bias=True, dtype=self.dtype, name="fc")(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return Outputs(x, tuple(auxiliary)) if self.auxiliary and train else x

    def _head(self, name: str) -> AuxiliaryHead:
        return AuxiliaryHead(
            self.classes,
            self.arithmetic,
            self.classifier,
            self.norm,
            self.norm_hidden,
            self.auxiliary_dropout,
            self.dtype,
            self.axis_name,
            name=name,
        )


@names_of(GoogLeNet)
def torch_names(model: GoogLeNet) -> dict[str, str | Flattened]:
    """Return torchvision's names of the layers of its `googlenet`, for `borrow`.

    Its trained weights take images from -1 to 1 in every channel (`transform_input` there), and
    their file includes the heads, untrained, so `model` needs `auxiliary=True`.
    """
    names: dict[str, str | Flattened] = {"fc": "fc"}
    there = dict(
        conv1x1="branch1",
        reduce3x3="branch2.0",
        conv3x3="branch2.1",
        reduce5x5="branch3.0",
        conv5x5="branch3.1",
        project="branch4.1",
    )
    place = {name: name for name in ("conv1", "conv2", "conv3")}
    for cell, widths in _CELLS.items():
        place |= {f"{cell}/{u.name}": f"{cell}.{there[u.name]}" for u in units(branches(*widths))}
    for head in _HEADS.values() if model.auxiliary else ():
        place[f"{head}/conv"] = f"{head}.conv"
        names[f"{head}/fc1"] = Flattened(f"{head}.fc1", 128, 4, 4)
        names[f"{head}/fc2"] = f"{head}.fc2"
    for unit, name in place.items():
        names |= {f"{unit}/conv": f"{name}.conv", f"{unit}/bn": f"{name}.bn"}
    return names


googlenet_v1 = functools.partial(GoogLeNet, original=True, norm=False, dropout=0.4)
