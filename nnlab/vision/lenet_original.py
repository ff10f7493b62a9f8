"""LeNet-5 of 1998: sparse connections, trainable subsampling, and codes of digits at the end.

=====  ================================================================  ==========
layer  what it is                                                        parameters
=====  ================================================================  ==========
C1     convolution to 6 maps of 28×28                                           156
S2     sums of 2×2 pixels, times a coefficient, plus a bias, of the map          12
C3     convolution to 16 maps of 10×10, each of some maps of S2               1,516
S4     as S2                                                                     32
C5     convolution to 120 maps of 1×1                                        48,120
F6     dense, 84 units                                                       10,164
out    minus the squared distance of F6 to a fixed code of each class             0
=====  ================================================================  ==========

Convolutions are 5×5 without padding; they and F6 have biases. The activation after each layer but
the last is 1.7159 tanh(2 x / 3). Together there are 60,000 parameters, and 325,680 multiply-adds in
C1, C3, C5 and F6. A map of C3 sees three neighbouring maps of S2, or four neighbouring ones, or two
pairs of neighbours, or all (table 1 of the paper).

A code is a bitmap of 7×12 pixels, -1 or 1: 84 bits, as many as F6 has units. The paper draws ASCII
characters in such bitmaps; the ten digits here are our own drawings in the same manner. For any
other number of classes, at most 84, the codes are rows of a Hadamard matrix of order 84 (Paley's
construction), any two of which differ in 42 bits.

The softmax of minus the distances with cross-entropy is the paper's criterion (eq. 9) without its
constant e^-j. The paper's pixels are -0.1 for white and 1.175 for black. Weights start as the
arithmetic has it.

`full_lenet5` is the network that most code calls LeNet-5: C3 sees all maps, subsampling is the mean
of 2×2 pixels without parameters, and the last layer is dense with a bias. It has 61,706 parameters,
and 416,520 multiply-adds in its convolutions and dense layers.

References:
    LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition,
    Proceedings of the IEEE, 1998, sections II.B and II.C.
    Paley, On orthogonal matrices, Journal of Mathematics and Physics, 1933.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Network

# The maps of S2 that each of the 16 maps of C3 sees, by their number: table 1.
_THREE = tuple(tuple((i + j) % 6 for j in range(3)) for i in range(6))
_FOUR = (
    *(tuple((i + j) % 6 for j in range(4)) for i in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
)


class Subsampling(nn.Module):
    """Map [batch, h, w, maps] to [batch, h/2, w/2, maps], as S2 above; it starts as the mean."""

    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        maps = x.shape[-1:]
        quarter, zeros = nn.initializers.constant(0.25), nn.initializers.zeros
        coefficient = self.param("coefficient", quarter, maps, jnp.float32)
        bias = self.param("bias", zeros, maps, jnp.float32)
        x, coefficient, bias = promote_dtype(x, coefficient, bias, dtype=self.dtype)
        coefficient, bias = (lax.broadcast_to_rank(a, x.ndim) for a in (coefficient, bias))
        return 4 * nn.avg_pool(x, (2, 2), (2, 2)) * coefficient + bias


class OriginalLeNet5(Network):
    """Map images [batch, 32, 32, channels] to logits [batch, classes].

    All layers use `arithmetic`, except the first convolution, which uses `first`, and the dense
    classifier of a `full` network, which uses `classifier` (both float by default). Coefficients of
    subsampling and distances to codes multiply in any arithmetic, and the activation is always the
    paper's.

    `norm` replaces the bias of each convolution and dense layer by BatchNorm. Adders need it: their
    outputs lie near minus the number of their terms, where the activation is flat.

    `dtype` is the dtype of the computation, by default that of images and parameters together;
    parameters, running statistics and logits are always float32. With `axis_name`, BatchNorm takes
    the batches of all devices along that mapped axis as one; by default each device normalises its
    own.

    Intermediates: "stage1" [batch, 14, 14, 6] after S2, "stage2" [batch, 5, 5, 16] after S4, and
    "features" [batch, 84] after F6.

    Raises:
        InputError: images are not 32×32, or there are more than 84 classes without `full`.
    """

    classes: int = 10
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    full: bool = False
    norm: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if x.ndim != 4 or x.shape[1:3] != (32, 32):
            raise InputError(f"LeNet-5 takes images [batch, 32, 32, channels], not {x.shape}.")
        dtype = self.dtype
        norm = functools.partial(batch_norm, train, dtype=dtype, axis_name=self.axis_name)
        options = {"use_bias": not self.norm, "dtype": dtype}
        window = {"kernel_size": (5, 5), "padding": "VALID", **options}

        def squash(x: jax.Array, layer: str) -> jax.Array:
            return 1.7159 * jnp.tanh(2 / 3 * (norm(name=f"{layer}_bn")(x) if self.norm else x))

        def subsample(x: jax.Array, layer: str) -> jax.Array:
            if self.full:
                x = nn.avg_pool(x, (2, 2), (2, 2))
            else:
                x = 1.7159 * jnp.tanh(2 / 3 * Subsampling(dtype, name=layer)(x))
            self.sow("intermediates", {"s2": "stage1", "s4": "stage2"}[layer], x)
            return x

        x = squash(self.first.conv(6, **window, name="c1")(x), "c1")
        x = subsample(x, "s2")
        conv = self.arithmetic.conv
        if self.full:
            x = conv(16, **window, name="c3")(x)
        else:
            parts = [
                GroupedConv(conv, len(maps), len(maps), **window, name=f"c3_{name}")(
                    x[..., np.ravel(maps)]
                )
                for name, maps in (("three", _THREE), ("four", _FOUR))
            ]
            x = jnp.concatenate([*parts, conv(1, **window, name="c3_six")(x)], axis=-1)
        x = subsample(squash(x, "c3"), "s4")
        x = squash(conv(120, **window, name="c5")(x), "c5")
        x = lax.collapse(x, 1)
        x = squash(self.arithmetic.dense(84, **options, name="f6")(x), "f6")
        self.sow("intermediates", "features", x)

        wide = jnp.promote_types(x.dtype, jnp.float32)
        if not self.full:
            return -jnp.square(x.astype(wide)[:, None] - codes(self.classes)[None]).sum(axis=-1)
        x = self.classifier.dense(self.classes, **options, name="output")(x)
        return (norm(name="output_bn")(x) if self.norm else x).astype(wide)


full_lenet5 = functools.partial(OriginalLeNet5, full=True)


def codes(classes: int) -> np.ndarray:
    """Return the target of F6 for each class: [classes, 84], float32, -1 or 1.

    Raises:
        InputError: there are more than 84 classes, or none.
    """
    if not 1 <= classes <= 84:
        raise InputError(f"LeNet-5 has codes for 1 to 84 classes, not {classes}.")
    if classes == 10:
        rows = [line.split() for line in _DIGITS.strip().splitlines()]
        pixels = np.array([[list(part) for part in row] for row in rows])  # [12, 10, 7]
        return np.where(pixels == "#", 1, -1).swapaxes(0, 1).reshape(10, 84).astype(np.float32)
    squares = [i * i % 83 for i in range(83)]
    differences = np.subtract.outer(np.arange(83), np.arange(83)) % 83
    matrix = np.ones((84, 84), np.float32)
    matrix[1:, 0] = -1
    matrix[1:, 1:] = np.where(np.isin(differences, squares), 1, -1)
    return matrix[:classes]


_DIGITS = """
..###.. ...#... .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.#####. ..##... ####### ####### ...###. ####### .###### ####### ####### #######
##...## .###... ##...## ##...## ...###. ##..... ##..... .....## ##...## ##...##
##...## ####... .....## .....## ..####. ##..... ##..... ....##. ##...## ##...##
##...## ..##... .....## .....## ..#.##. ##..... ##..... ....##. ##...## ##...##
##...## ..##... ....##. ..####. .##.##. ######. ######. ...##.. .#####. #######
##...## ..##... ...##.. ..####. .#..##. ####### ####### ...##.. .#####. .######
##...## ..##... ..##... .....## ##..##. .....## ##...## ..##... ##...## .....##
##...## ..##... .##.... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ..##... ##..... ##...## ####### ##...## ##...## .##.... ##...## .....##
.#####. ######. ####### ####### ....##. ####### ####### .##.... ####### ######.
..###.. ######. ####### .#####. ....##. .#####. .#####. .##.... .#####. .####..
"""
