"""The Inception cell: parallel branches whose outputs are concatenated along the channels.

A branch is a chain of poolings and of convolutions, each followed by BatchNorm and the activation.
The cell of "Going deeper with convolutions", on 192 channels, is

    InceptionCell(
        branches=(
            (Unit("conv1x1", 64),),
            (Unit("reduce3x3", 96), Unit("conv3x3", 128, 3)),
            (Unit("reduce5x5", 16), Unit("conv5x5", 32, 5)),
            (functools.partial(max_pool, window=3, strides=1, padding=1), Unit("project", 32)),
        ),
        arithmetic=ADDER,
    )

and has 256 channels in its output.

References:
    Szegedy et al., Going deeper with convolutions, CVPR 2015, https://arxiv.org/abs/1409.4842,
    figure 2; Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR 2016,
    https://arxiv.org/abs/1512.00567, figures 5 to 7 and 10.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.windows import Padding

EPSILON = 1e-3  # of BatchNorm in both networks, as they came from TensorFlow


class Outputs(NamedTuple):
    """What a network with auxiliary heads returns in training.

    Attributes:
        logits: [batch, classes], from the classifier at the end.
        auxiliary: the logits of the heads, each [batch, classes], the one nearest the image first.
    """

    logits: jax.Array
    auxiliary: tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A convolution with what follows it; kernel, strides and padding as for an arithmetic's."""

    name: str
    features: int
    kernel_size: int | Sequence[int] = 1
    strides: int = 1
    padding: Padding = "SAME"


# A chain: units, units side by side on one input, and functions of images such as a pooling.
Branch = Sequence[Unit | tuple[Unit, ...] | Callable[[jax.Array], jax.Array]]


class ConvUnit(nn.Module):
    """Convolution by `conv`, BatchNorm or else a bias, activation: […, in] to […, features]."""

    unit: Unit
    conv: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]
    norm: bool = True
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = self.conv(
            self.unit.features,
            self.unit.kernel_size,
            strides=self.unit.strides,
            padding=self.unit.padding,
            use_bias=not self.norm,
            dtype=self.dtype,
            name="conv",
        )(x)
        if self.norm:
            x = batch_norm(train, self.dtype, self.axis_name, epsilon=EPSILON, name="bn")(x)
        return self.activation(x)


class InceptionCell(Network):
    """Map [batch, height, width, in] to [batch, out height, out width, sum of branches' features].

    Every unit is a `ConvUnit` under its name, which is unique within the cell. Without `norm` it
    has a bias in place of BatchNorm; adders need BatchNorm, as their outputs lie near minus the
    number of their terms. `dtype` and `axis_name` are as in the models.

    Raises:
        InputError: there is no branch, or branches give images of different sizes.
    """

    branches: Sequence[Branch]
    arithmetic: Arithmetic = FLOAT
    norm: bool = True
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if not self.branches:
            raise InputError("an InceptionCell needs at least one branch, not none.")
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                if callable(step):
                    y = step(y)
                else:
                    units = [step] if isinstance(step, Unit) else step
                    y = jnp.concatenate([self._unit(unit)(y, train) for unit in units], axis=-1)
            outputs.append(y)
        sizes = [y.shape[1:3] for y in outputs]
        if len(set(sizes)) > 1:
            raise InputError(f"branches must give images of one size, not of {sizes}.")
        return jnp.concatenate(outputs, axis=-1)

    def _unit(self, unit: Unit) -> ConvUnit:
        return ConvUnit(
            unit,
            self.arithmetic.conv,
            self.arithmetic.activation,
            self.norm,
            self.dtype,
            self.axis_name,
            name=unit.name,
        )


def units(branches: Sequence[Branch]) -> Iterator[Unit]:
    """Yield the units of a cell in their order."""
    for branch in branches:
        for step in branch:
            if not callable(step):
                yield from [step] if isinstance(step, Unit) else step


def check_dropout(name: str, rate: float) -> None:
    """Raise `InputError` unless `rate` is in [0, 1)."""
    if not 0 <= rate < 1:
        raise InputError(f"{name} must be from 0 to below 1, not {rate}.")
