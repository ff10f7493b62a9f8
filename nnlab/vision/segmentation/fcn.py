r"""Fully convolutional networks: VGG-16 with its dense layers as convolutions, and skips.

The network's stride is 32. FCN-32 enlarges its scores by that at once; FCN-16 doubles them, adds
scores of the fourth maximum and enlarges by 16; FCN-8 adds those of the third as well. Enlarging by
s is bilinear, a transposed convolution with the fixed kernel of 2s − s mod 2 taps

.. math:: k_i = 1 - |i - c| / f, \quad f = \lceil s \rceil, \; c = f - 1/2 - (s \bmod 2)/2, (1)

along each axis. The first convolution pads by 100 pixels, so that an image of any size has a score,
and results are cropped, as in the first release. With 21 classes:

=======  ===========  ===============================
network  parameters   bilinear ones, which are fixed
=======  ===========  ===============================
FCN-32   134,346,581  1,806,336
FCN-16   134,357,354  458,640
FCN-8    134,362,751  127,008
=======  ===========  ===============================

The fixed ones are no variables here: each class is enlarged by itself.

Reference:
    Long et al., Fully convolutional networks for semantic segmentation, CVPR 2015,
    https://arxiv.org/abs/1411.4038; its models (fcn.berkeleyvision.org).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool

_COUNTS = (2, 2, 3, 3, 3)
_CROPS = {32: 19, 16: 27, 8: 31}  # of the enlarged scores


def enlarge(x: jax.Array, stride: int) -> jax.Array:
    """Enlarge images [batch, h, w, channels] by (1), to (h + 1) · stride − stride mod 2 rows.

    Raises:
        InputError: the images have not four axes, or the stride is below 1.
    """
    if x.ndim != 4 or stride < 1:
        raise InputError(f"enlarge takes [batch, h, w, channels], not {x.shape} by {stride}.")
    taps = 2 * stride - stride % 2
    middle = stride - 0.5 - (stride % 2) / 2
    line = 1 - np.abs(np.arange(taps) - middle) / stride  # (1)
    kernel = jnp.asarray(np.outer(line, line), x.dtype)[:, :, None, None]
    kernel = jnp.broadcast_to(kernel, (taps, taps, 1, x.shape[-1]))
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(taps - 1, taps - 1)] * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


class FCN(Network):
    """Map images [batch, height, width, channels] to logits [batch, height, width, classes].

    All layers use `arithmetic`, except the first convolution and those of scores, which use `first`
    and `classifier` (float by default). `stride` is 32, 16 or 8. Scores of the skips are multiplied
    by `skip_scales`, those of the fourth maximum first; (0.01, 0.0001) is the variant that is
    trained at once. `norm` adds BatchNorm after each convolution but those of scores, which adders
    need. Dropout of rate `dropout` follows the two convolutions that were dense layers; in
    training, `apply` takes `rngs={"dropout": key}`. `dtype` and `axis_name` are those of
    `nnlab.models.VGG`.

    Raises:
        InputError: `stride` is none of these.
    """

    classes: int = 21
    stride: int = 8
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    skip_scales: tuple[float, float] = (1.0, 1.0)
    dropout: float = 0.5
    norm: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if self.stride not in _CROPS:
            raise InputError(f"stride must be 32, 16 or 8, not {self.stride}.")
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        height, width = x.shape[1:3]

        def block(x, arithmetic, features, taps, padding: Any, name, drop=False):
            layer = functools.partial(arithmetic.conv, dtype=self.dtype, use_bias=True)
            x = layer(features, (taps, taps), padding=padding, name=name)(x)
            x = norm(name=f"bn_{name}")(x) if self.norm else x
            x = self.arithmetic.activation(x)
            return nn.Dropout(self.dropout, deterministic=not train)(x) if drop else x

        pooled = []
        for stage, (count, features) in enumerate(zip(_COUNTS, self.widths, strict=True), 1):
            for layer in range(1, count + 1):
                is_first = stage == layer == 1
                arithmetic, padding = (self.first, 100) if is_first else (self.arithmetic, 1)
                x = block(x, arithmetic, features, 3, padding, f"conv{stage}_{layer}")
            x = max_pool(x, padding="CEIL")
            pooled.append(x)
        x = block(x, self.arithmetic, self.hidden, 7, "VALID", "fc6", drop=True)
        x = block(x, self.arithmetic, self.hidden, 1, "VALID", "fc7", drop=True)
        x = self._score(x, "score_fr")
        if self.stride <= 16:
            skip = self._score(self.skip_scales[0] * pooled[3], "score_pool4")
            x = enlarge(x, 2)
            x = x + _crop(skip, 5, x.shape)
        if self.stride == 8:
            skip = self._score(self.skip_scales[1] * pooled[2], "score_pool3")
            x = enlarge(x, 2)
            x = x + _crop(skip, 9, x.shape)
        x = enlarge(x, self.stride)
        return _crop(x, _CROPS[self.stride], (0, height, width))

    def _score(self, x: jax.Array, name: str) -> jax.Array:
        layer = functools.partial(self.classifier.conv, use_bias=True, dtype=self.dtype)
        x = layer(self.classes, (1, 1), name=name)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _crop(x: jax.Array, offset: int, shape: tuple[int, ...]) -> jax.Array:
    return x[:, offset : offset + shape[1], offset : offset + shape[2]]


fcn32 = functools.partial(FCN, stride=32)
fcn16 = functools.partial(FCN, stride=16)
fcn8 = functools.partial(FCN, stride=8)
