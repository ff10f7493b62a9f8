"""U-Net: down by maxima and up again, with each level's features handed across.

Two 3×3 convolutions a level; 2×2 maxima down to `levels` levels; up by 2×2 transposed convolutions
of half the channels, or bilinearly; the encoder's features of the level come beside them. The
paper's does not pad: 572 pixels become 388, and what is handed across is cropped. Padded, the
result has the size of the image; where a level was odd, what comes up is padded with zeros.

========================================  ===========
network                                   parameters
========================================  ===========
paper: 1 channel, 2 classes               31,030,658
padded: 3 channels, 12 classes            31,032,460
with BatchNorm: 3 channels, 2 classes     31,037,698
… bilinear                                17,263,042
… 16 features                             1,942,594
========================================  ===========

With `norm`, BatchNorm follows the 3×3 convolutions, which then have no bias. `norm_up` puts it
after transposed convolutions as well: adders need both. A transposed convolution of adders is one
of the image with zeros between its pixels, which cost |w| as padding does
(`nnlab.layers.transposed`).

References:
    Ronneberger et al., U-Net, MICCAI 2015, https://arxiv.org/abs/1505.04597, figure 1.
    milesial/Pytorch-UNet for BatchNorm and bilinear enlargement, corners aligned.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.layers.transposed import ConvTranspose
from nnlab.networks import Network
from nnlab.ops.pooling import max_pool


class UNet(Network):
    """Map images [batch, height, width, channels] to logits [batch, height, width, classes].

    All layers use `arithmetic`, except the first convolution and the last, which use `first` and
    `classifier` (float by default). `features` is the width of the first level; each further one
    has twice as many. With `padded=False` the result is smaller than the image. `dtype` is the
    dtype of the computation, by default that of images and parameters together; parameters, running
    statistics and logits are always float32. With `axis_name`, BatchNorm takes the batches of all
    devices along that mapped axis as one.

    Intermediates: "level1" and so on, the features that are handed across, and "bottom".

    Raises:
        InputError: an image is too small for the levels.
    """

    classes: int = 2
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    features: int = 64
    levels: int = 4
    padded: bool = True
    norm: bool = True
    norm_up: bool = False
    bilinear: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = functools.partial(batch_norm, train, dtype=self.dtype, axis_name=self.axis_name)
        side, reach = min(x.shape[1:3]), 2**self.levels
        least = reach if self.padded else 12 * reach - 4
        if side < least:
            raise InputError(
                f"images are {x.shape[1]} by {x.shape[2]} pixels, expected at least {least} for "
                f"{self.levels} levels."
            )

        def block(x, features, name, middle=None):
            for number, width in enumerate((middle or features, features), 1):
                is_first = name == "down0" and number == 1
                arithmetic = self.first if is_first else self.arithmetic
                layer = functools.partial(arithmetic.conv, dtype=self.dtype)
                padding = 1 if self.padded else "VALID"
                layer = functools.partial(layer, padding=padding, use_bias=not self.norm)
                x = layer(width, (3, 3), name=f"{name}_conv{number}")(x)
                x = norm(name=f"{name}_bn{number}")(x) if self.norm else x
                x = self.arithmetic.activation(x)
            return x

        across = []
        for level in range(self.levels):
            x = block(x, self.features * 2**level, f"down{level}")
            self.sow("intermediates", f"level{level + 1}", x)
            across.append(x)
            x = max_pool(x)
        bottom = self.features * 2**self.levels
        x = block(x, bottom // 2 if self.bilinear else bottom, f"down{self.levels}")
        self.sow("intermediates", "bottom", x)
        for level in reversed(range(self.levels)):
            width = self.features * 2**level
            if self.bilinear:
                x = _doubled(x)
            else:
                bias = not self.norm_up
                up = ConvTranspose(
                    *(self.arithmetic.conv, width, (2, 2), 2, "VALID"),
                    use_bias=bias,
                    dtype=self.dtype,
                    name=f"up{level}",
                )
                x = up(x) if bias else norm(name=f"up{level}_bn")(up(x))
            x = jnp.concatenate(_of_one_size(across[level], x, self.padded), axis=-1)
            narrower = width // 2 if self.bilinear and level else width
            x = block(x, narrower, f"join{level}", width if self.bilinear else None)
        last = functools.partial(self.classifier.conv, use_bias=True, dtype=self.dtype)
        x = last(self.classes, (1, 1), name="out")(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _of_one_size(skip: jax.Array, x: jax.Array, padded: bool) -> tuple[jax.Array, jax.Array]:
    """Pad what comes up to the size of what is handed across, or crop the latter to it."""
    over = [a - b for a, b in zip(skip.shape[1:3], x.shape[1:3], strict=True)]
    low = [each // 2 for each in over]
    if padded:
        sides = [(each, all_ - each) for each, all_ in zip(low, over, strict=True)]
        return skip, jnp.pad(x, [(0, 0), *sides, (0, 0)])
    (top, left), (height, width) = low, x.shape[1:3]
    return skip[:, top : top + height, left : left + width], x


def _doubled(x: jax.Array) -> jax.Array:
    """Enlarge images twice, bilinearly, with the corners' pixels staying at the corners."""
    rows, columns = (jnp.asarray(_line(size), x.dtype) for size in x.shape[1:3])
    x = jnp.einsum("oh,nhwc->nowc", rows, x)
    return jnp.einsum("pw,nowc->nopc", columns, x)


def _line(size: int) -> np.ndarray:
    at = np.linspace(0, size - 1, 2 * size)[:, None]
    return np.maximum(1 - np.abs(at - np.arange(size)[None]), 0)
