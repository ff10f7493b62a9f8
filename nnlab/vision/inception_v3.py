"""Inception v3 for images of 299×299 pixels.

Five convolutions and two maxima down to 35×35×192, then five kinds of cells: A on 35×35 pixels
(mixed5b to 5d), B down to 17×17 (mixed6a), C with convolutions of 1×7 and 7×1 (mixed6b to 6e), D
down to 8×8 (mixed7a) and E (mixed7b, 7c) up to 2,048 channels; the mean over positions, dropout and
a classifier. BatchNorm follows every convolution. An auxiliary head after mixed6e is optional in
training. With 1,000 classes there are 23,834,568 parameters, 27,161,264 with the head, and 5,713.2
M multiply-adds without the head, or as many adder terms.

References:
    Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR 2016,
    https://arxiv.org/abs/1512.00567, table 1; numbers of filters from TensorFlow's code, which
    torchvision's follows.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.files.borrowing import names_of
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool
from nnlab.vision.inception import (
    Branch,
    ConvUnit,
    InceptionCell,
    Outputs,
    Unit,
    check_dropout,
    units,
)

_max_pool = functools.partial(max_pool, window=3, strides=2)
_mean = functools.partial(nn.avg_pool, window_shape=(3, 3), padding="SAME")


def cell_a(project: int) -> tuple[Branch, ...]:
    """Figure 5: a 5×5 convolution beside two 3×3; the pooled branch has `project` features."""
    return (
        (Unit("branch1x1", 64),),
        (Unit("branch5x5_1", 48), Unit("branch5x5_2", 64, 5)),
        (
            Unit("branch3x3dbl_1", 64),
            Unit("branch3x3dbl_2", 96, 3),
            Unit("branch3x3dbl_3", 96, 3),
        ),
        (_mean, Unit("branch_pool", project)),
    )


def cell_b() -> tuple[Branch, ...]:
    """Figure 10, to half the height and width."""
    return (
        (Unit("branch3x3", 384, 3, 2, "VALID"),),
        (
            Unit("branch3x3dbl_1", 64),
            Unit("branch3x3dbl_2", 96, 3),
            Unit("branch3x3dbl_3", 96, 3, 2, "VALID"),
        ),
        (_max_pool,),
    )


def cell_c(features: int) -> tuple[Branch, ...]:
    """Figure 6 with n = 7; the inner convolutions have `features` features."""
    return (
        (Unit("branch1x1", 192),),
        (
            Unit("branch7x7_1", features),
            Unit("branch7x7_2", features, (1, 7)),
            Unit("branch7x7_3", 192, (7, 1)),
        ),
        (
            Unit("branch7x7dbl_1", features),
            Unit("branch7x7dbl_2", features, (7, 1)),
            Unit("branch7x7dbl_3", features, (1, 7)),
            Unit("branch7x7dbl_4", features, (7, 1)),
            Unit("branch7x7dbl_5", 192, (1, 7)),
        ),
        (_mean, Unit("branch_pool", 192)),
    )


def cell_d() -> tuple[Branch, ...]:
    """A cell to half the height and width, with a 7×7 convolution in two."""
    return (
        (Unit("branch3x3_1", 192), Unit("branch3x3_2", 320, 3, 2, "VALID")),
        (
            Unit("branch7x7x3_1", 192),
            Unit("branch7x7x3_2", 192, (1, 7)),
            Unit("branch7x7x3_3", 192, (7, 1)),
            Unit("branch7x7x3_4", 192, 3, 2, "VALID"),
        ),
        (_max_pool,),
    )


def cell_e() -> tuple[Branch, ...]:
    """Figure 7, with 1×3 and 3×1 convolutions side by side."""
    return (
        (Unit("branch1x1", 320),),
        (
            Unit("branch3x3_1", 384),
            (Unit("branch3x3_2a", 384, (1, 3)), Unit("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Unit("branch3x3dbl_1", 448),
            Unit("branch3x3dbl_2", 384, 3),
            (Unit("branch3x3dbl_3a", 384, (1, 3)), Unit("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (_mean, Unit("branch_pool", 192)),
    )


# Convolutions and the names that torchvision has for them.
_STEM = {
    Unit("conv1a", 32, 3, 2, "VALID"): "Conv2d_1a_3x3",
    Unit("conv2a", 32, 3, 1, "VALID"): "Conv2d_2a_3x3",
    Unit("conv2b", 64, 3): "Conv2d_2b_3x3",
    Unit("conv3b", 80): "Conv2d_3b_1x1",
    Unit("conv4a", 192, 3, 1, "VALID"): "Conv2d_4a_3x3",
}
_CELLS = {
    "mixed5b": cell_a(32),
    "mixed5c": cell_a(64),
    "mixed5d": cell_a(64),
    "mixed6a": cell_b(),
    "mixed6b": cell_c(128),
    "mixed6c": cell_c(160),
    "mixed6d": cell_c(160),
    "mixed6e": cell_c(192),
    "mixed7a": cell_d(),
    "mixed7b": cell_e(),
    "mixed7c": cell_e(),
}
_STAGES = {
    "conv2b": "stage1",
    "conv4a": "stage2",
    "mixed5d": "stage3",
    "mixed6e": "stage4",
    "mixed7c": "stage5",
}


class AuxiliaryHead(nn.Module):
    """Map [batch, height, width, in], at least 17×17 pixels, to logits [batch, classes]."""

    classes: int
    arithmetic: Arithmetic
    classifier: Arithmetic
    dtype: Dtype | None
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, activation = self.arithmetic.conv, self.arithmetic.activation
        shared = True, self.dtype, self.axis_name
        x = nn.avg_pool(x, (5, 5), (3, 3))
        for unit in (Unit("conv0", 128), Unit("conv1", 768, 5, 1, "VALID")):
            x = ConvUnit(unit, conv, activation, *shared, name=unit.name)(x, train)
        x = x.mean(axis=(1, 2))
        x = self.classifier.dense(self.classes, use_bias=True, dtype=self.dtype, name="fc")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class InceptionV3(Network):
    """Map images [batch, height, width, channels], at least 75×75, to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution, which uses `first`, and the
    classifier and that of the head, which use `classifier` (both float by default). `dtype` is the
    dtype of the computation, by default that of images and parameters together; parameters, running
    statistics and logits are always float32. With `axis_name`, BatchNorm takes the batches of all
    devices along that mapped axis as one; by default each device normalises its own.

    With `auxiliary`, a call with `train` returns `nnlab.vision.inception.Outputs` with the logits
    of the head, for `nnlab.training.with_auxiliary(weight=0.4)`; otherwise the head is not used. It
    needs images of at least 299×299 pixels. `dropout` is the rate before the classifier.

    Intermediates: "stage1" after the third convolution, "stage2" after the fifth, "stage3" to
    "stage5" after mixed5d, 6e and 7c, each of about half the height and width of the one before;
    "features", [batch, 2048].

    Raises:
        InputError: the images are too small, or the dropout rate is not in [0, 1).
    """

    classes: int = 1000
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    auxiliary: bool = False
    dropout: float = 0.5
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array | Outputs:
        check_dropout("dropout", self.dropout)
        head = self.auxiliary and (train or self.is_initializing())
        least = 299 if head else 75
        if x.ndim != 4 or min(x.shape[1:3]) < least:
            raise InputError(
                f"InceptionV3{' with its auxiliary head' if head else ''} takes images [batch, "
                f"height, width, channels] of at least {least} by {least} pixels, not {x.shape}."
            )
        shared = True, self.dtype, self.axis_name
        auxiliary = []
        for unit in _STEM:
            conv = (self.first if unit.name == "conv1a" else self.arithmetic).conv
            activation = self.arithmetic.activation
            x = ConvUnit(unit, conv, activation, *shared, name=unit.name)(x, train)
            if unit.name in _STAGES:
                self.sow("intermediates", _STAGES[unit.name], x)
                x = _max_pool(x)
        for name, cell in _CELLS.items():
            x = InceptionCell(cell, self.arithmetic, *shared, name=name)(x, train)
            if name in _STAGES:
                self.sow("intermediates", _STAGES[name], x)
            if name == "mixed6e" and head:
                options = self.classes, self.arithmetic, self.classifier
                layer = AuxiliaryHead(*options, self.dtype, self.axis_name, name="aux")
                auxiliary.append(layer(x, train))
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        x = self.classifier.dense(self.classes, use_bias=True, dtype=self.dtype, name="fc")(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return Outputs(x, tuple(auxiliary)) if self.auxiliary and train else x


@names_of(InceptionV3)
def torch_names(model: InceptionV3) -> dict[str, str]:
    """Return torchvision's names of the layers of its `inception_v3`, for `borrow`.

    Its trained weights take images from -1 to 1 in every channel (`transform_input` there), and
    their file includes the head, so `model` needs `auxiliary=True`.
    """
    names = {"fc": "fc"}
    place = {unit.name: name for unit, name in _STEM.items()}
    for cell, branches in _CELLS.items():
        for unit in units(branches):
            place[f"{cell}/{unit.name}"] = f"Mixed_{cell.removeprefix('mixed')}.{unit.name}"
    if model.auxiliary:
        names["aux/fc"] = "AuxLogits.fc"
        place |= {f"aux/{name}": f"AuxLogits.{name}" for name in ("conv0", "conv1")}
    for unit, name in place.items():
        names |= {f"{unit}/conv": f"{name}.conv", f"{unit}/bn": f"{name}.bn"}
    return names
