"""Necks of detectors: feature pyramids that bring all stages of a backbone to one width.

Of the stages C of a backbone, the finest first, a 1×1 convolution makes the lateral features L of
each. What is coarser is enlarged to the nearest pixel, what is finer comes down by a 3×3
convolution of stride 2:

=========  ========================================================================================
kind       levels
=========  ========================================================================================
"fpn"      top-down, T_i = L_i + up(T_{i+1}); P_i = 3×3(T_i)
"pafpn"    FPN, then bottom-up, N_i = P_i + 3×3(N_{i-1}); a 3×3 of each but the finest
"r-pafpn"  bottom-up first, N_i = L_i + 3×3(N_{i-1}); F_i = 3×3(N_i); then top-down,
           T_i = F_i + up(T_{i+1}); a 3×3 of each but the coarsest
=========  ========================================================================================

There is no activation. Further levels come from the coarsest: "pool" takes every second position
of it, "convolutions" are P6 and P7, by 3×3 convolutions of stride 2 with an activation between
them. With `shortcuts` what goes into a 3×3 convolution is added to its result, at stride 2 every
second position of it: adders cannot learn the identity. The adder detection paper states this and
the order of R-PAFPN, and not what joins at stride 2, which is our choice.

With 256 features over ResNet-50 FPN has 3,344,384 parameters from C2 to C5 and 2,688,512 from C3,
P6 and P7 1,180,160, and the second way of PAFPN with three levels 2,360,320.

References:
    Lin et al., Feature pyramid networks, CVPR 2017, https://arxiv.org/abs/1612.03144, section 3.
    Lin et al., RetinaNet, ICCV 2017, https://arxiv.org/abs/1708.02002, for P6 and P7, here from P5
    as in torchvision.
    Liu et al., Path aggregation network, CVPR 2018, https://arxiv.org/abs/1803.01534, section 3.2,
    in the form of MMDetection.
    Chen et al., An empirical study of adder neural networks for object detection, NeurIPS 2021,
    https://arxiv.org/abs/2112.13608: shortcuts, and R-PAFPN.
"""

import functools
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import numpy as np
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network

Kind = Literal["fpn", "pafpn", "r-pafpn"]
Extra = Literal["none", "pool", "convolutions"]


class FeaturePyramid(Network):
    """Map stages [batch, height, width, channels], the finest first, to levels of one width.

    `norm` puts BatchNorm after every convolution, in place of its bias; by default where the
    arithmetic needs one.

    Raises:
        InputError: an option has another value than those above, or there is no stage.
    """

    features: int = 256
    arithmetic: Arithmetic = FLOAT
    kind: Kind = "fpn"
    extra: Extra = "pool"
    shortcuts: bool = False
    norm: bool | None = None
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, stages: list[jax.Array], train: bool = False) -> list[jax.Array]:
        for name, choices in (("kind", Kind), ("extra", Extra)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise InputError(
                    f"{name} is {value!r}, expected one of {', '.join(get_args(choices))}."
                )
        if not stages:
            raise InputError("there is no stage of a backbone, expected at least one.")
        norm = self.arithmetic.needs_norm if self.norm is None else self.norm

        def conv(x: jax.Array, name: str, taps: int = 3, strides: int = 1) -> jax.Array:
            layer = functools.partial(self.arithmetic.conv, self.features, (taps, taps))
            options: Any = {"strides": strides, "padding": taps // 2, "use_bias": not norm}
            y = layer(**options, dtype=self.dtype, name=name)(x)
            if norm:
                y = batch_norm(train, self.dtype, self.axis_name, name=f"{name}_bn")(y)
            if self.shortcuts and taps == 3:
                return y + x[:, ::strides, ::strides]
            return y

        x = [conv(stage, f"lateral{level}", 1) for level, stage in enumerate(stages)]
        x = _bottom_up(x, conv) if self.kind == "r-pafpn" else _top_down(x)
        x = [conv(each, f"output{level}") for level, each in enumerate(x)]
        if self.kind == "pafpn":
            first, *others = _bottom_up(x, conv)
            x = [first, *(conv(each, f"second{level}") for level, each in enumerate(others, 1))]
        elif self.kind == "r-pafpn":
            *others, last = _top_down(x)
            x = [*(conv(each, f"second{level}") for level, each in enumerate(others)), last]
        if self.extra == "pool":
            x.append(x[-1][:, ::2, ::2])
        elif self.extra == "convolutions":
            x.append(conv(x[-1], "p6", strides=2))
            x.append(conv(self.arithmetic.activation(x[-1]), "p7", strides=2))
        return x


def _top_down(x: list[jax.Array]) -> list[jax.Array]:
    levels = [x[-1]]
    for finer in reversed(x[:-1]):
        levels.insert(0, finer + enlarged(levels[0], (finer.shape[1], finer.shape[2])))
    return levels


def _bottom_up(x: list[jax.Array], conv) -> list[jax.Array]:
    levels = [x[0]]
    for level, coarser in enumerate(x[1:]):
        levels.append(coarser + conv(levels[-1], f"down{level}", strides=2))
    return levels


def enlarged(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bring images [batch, height, width, channels] to a larger size by their nearest pixel.

    Pixel i of n comes from ⌊i m / n⌋ of m, as in PyTorch.
    """
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(size, x.shape[1:3], strict=True)
    )
    return x[:, rows][:, :, columns]


def pyramid_names(model: FeaturePyramid, levels: int) -> dict[str, str]:
    """Return torchvision's names of the layers of an FPN without norms, below that of the FPN."""
    names = {}
    for level in range(levels):
        names[f"lateral{level}"] = f"inner_blocks.{level}.0"
        names[f"output{level}"] = f"layer_blocks.{level}.0"
    if model.extra == "convolutions":
        names |= {each: f"extra_blocks.{each}" for each in ("p6", "p7")}
    return names
