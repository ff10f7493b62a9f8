"""What heads of dense detectors share: a tower of convolutions, and layers that predict."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import Arithmetic
from nnlab.layers.normalization import group_norm


class Tower(nn.Module):
    """3×3 convolutions of `features`, each followed by GroupNorm, if any, and the activation.

    `groups` are those of GroupNorm, or 0 for none; there are `count` convolutions, of the
    arithmetic and with biases.
    """

    arithmetic: Arithmetic
    features: int
    count: int = 4
    groups: int = 32
    dtype: Dtype | None = None

    def setup(self) -> None:
        conv = functools.partial(self.arithmetic.conv, self.features, (3, 3), padding=1)
        conv = functools.partial(conv, use_bias=True, dtype=self.dtype)
        self.convs = [conv(name=f"conv{number}") for number in range(self.count)]
        if self.groups:
            groups = math.gcd(self.groups, self.features)
            self.norms = [
                group_norm(groups, self.dtype, name=f"norm{number}") for number in range(self.count)
            ]

    def __call__(self, x: jax.Array) -> jax.Array:
        for number, conv in enumerate(self.convs):
            x = conv(x)
            x = self.norms[number](x) if self.groups else x
            x = self.arithmetic.activation(x)
        return x


class Predicted(nn.Module):
    """The last layer of a head: float32 [batch, height, width, features], with a bias.

    The window has `taps` pixels a side. Weights of an arithmetic that needs no normalisation start
    as N(0, 0.01²), the bias at `bias`.
    """

    arithmetic: Arithmetic
    features: int
    taps: int = 3
    bias: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options: Any = {"padding": self.taps // 2, "dtype": self.dtype, "name": "conv"}
        if not self.arithmetic.needs_norm:
            options["kernel_init"] = nn.initializers.normal(0.01)
        y = self.arithmetic.conv(self.features, (self.taps, self.taps), **options)(x)
        start = nn.initializers.constant(self.bias)
        bias = self.param("bias", start, (self.features,), jnp.float32)
        return y.astype(jnp.promote_types(y.dtype, jnp.float32)) + lax.broadcast_to_rank(bias, 4)


def predicted_names(here: str, there: str) -> dict[str, str]:
    """Return names of the arrays of a `Predicted`, for `nnlab.files.borrow`."""
    return {f"{here}/conv": there, f"{here}/bias": f"{there}.bias"}


def tower_names(
    here: str, there: str, count: int, *, norm: bool, nested: bool = False
) -> dict[str, str]:
    """Return names of the layers of a `Tower`, which in torchvision is a sequence `there`.

    With `nested` each convolution is in a sequence of its own there.
    """
    names = {}
    for number in range(count):
        place = f"{there}.{number}.0" if nested else f"{there}.{number * (3 if norm else 2)}"
        names[f"{here}/conv{number}"] = place
        if norm:
            names[f"{here}/norm{number}"] = f"{there}.{number * 3 + 1}"
    return names


def flattened(x: jax.Array, channels: int) -> jax.Array:
    """Return predictions [batch, height, width, n · channels] as [batch, places · n, channels].

    This is the order of `nnlab.vision.detection.grid_anchors`.
    """
    return x.reshape(len(x), math.prod(x.shape[1:]) // channels, channels)
