"""YOLO v1: an image at once to the boxes and classes of 7×7 cells.

24 convolutions, of which two have stride 2, and four maxima make 7×7 cells of an image of 448
pixels a side. The paper has a layer of 4,096 after them; the network that was released has a 3×3
convolution of other weights at each position instead (`LocalConv`). Dropout and a linear layer give
all cells' values. Fast YOLO, or tiny YOLO, has eight convolutions.

==================  ===========  ================================
network             parameters
==================  ===========  ================================
`YOLOv1`            197,301,875  20 classes, 3 boxes, as released
`yolo_v1_paper`     271,716,734  20 classes, 2 boxes
`yolo_v1_tiny`       27,095,374  20 classes, 2 boxes
==================  ===========  ================================

Convolutions are those of `nnlab.vision.darknet`. `nnlab.vision.detection.yolo_v1_loss` says what a
cell's values are.

References:
    Redmon et al., You only look once, CVPR 2016, https://arxiv.org/abs/1506.02640, figure 3;
    darknet (yolov1.cfg, yolov1-tiny.cfg and local_layer.c at f6afaab).
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.layers.activations import leaky
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.normalization import batch_norm
from nnlab.networks import Count, Network
from nnlab.vision.darknet import Layers, darknet_max
from nnlab.vision.detection.yolo import check_multiple

# Of each stage, between maxima: (channels, window), or of stride 2 (channels, window, 2).
_TWICE = ((512, 1), (1024, 3)) * 2
RELEASED = (
    ((64, 7, 2),),
    ((192, 3),),
    ((128, 1), (256, 3), (256, 1), (512, 3)),
    (*((256, 1), (512, 3)) * 4, (512, 1), (1024, 3)),
    (*_TWICE, (1024, 3), (1024, 3, 2), (1024, 3), (1024, 3)),
)
TINY = (*(((width, 3),) for width in (16, 32, 64, 128, 256, 512)), ((1024, 3), (256, 3)))


class LocalConv(nn.Module):
    """A 3×3 convolution with weights of its own at each position: [batch, h, w, in] to [… out].

    The positions are groups of a 1×1 convolution of windows (channels, rows, columns).
    """

    features: int
    arithmetic: Arithmetic
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, height, width, _ = x.shape
        wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = [(row, column) for row in range(3) for column in range(3)]
        taps = [wide[:, row : row + height, column : column + width] for row, column in shifts]
        windows = jnp.stack(taps, axis=-1).reshape(n, 1, 1, -1)
        places = height * width
        y = GroupedConv(
            self.arithmetic.conv,
            places,
            places * self.features,
            (1, 1),
            padding="VALID",
            use_bias=True,
            dtype=self.dtype,
        )(windows)
        return y.reshape(n, height, width, self.features)


class YOLOv1(Network):
    """Map images [batch, H, W, channels] to cells [batch, H/s, W/s, classes + 5 boxes].

    The weights fit one size of images. `stages` are the convolutions between maxima, of channels,
    window and stride; that of all together, s, is 64 by default. Layers before the last use
    `arithmetic`, except the first convolution, which uses `first`; the last uses `classifier` (both
    float by default). The layer before the last is local with 256 channels; dense with so many
    outputs as `connected`; or with `connected=0` there is none, and no dropout. With `norm`
    BatchNorm follows it, too, as adders need it. `features` is the width of the first convolution,
    to which all others are in proportion, and `published` what it is for `stages` and `connected`
    as they are given. `dtype` and `axis_name` are those of `nnlab.vision.detection.yolo.YOLOv2`.

    Raises:
        InputError: the sides of the images are no multiples of s.
    """

    classes: int = 20
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    boxes: int = 3
    stages: tuple[tuple[tuple[int, ...], ...], ...] = RELEASED
    connected: Count | None = None
    features: int = 64
    published: int = 64
    norm: bool = False
    dropout: float = 0.5
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        strides = [layer[2] for stage in self.stages for layer in stage if len(layer) > 2]
        check_multiple(x, math.prod(strides) * 2 ** (len(self.stages) - 1))
        layers = Layers(self, train, self.published)
        for number, stage in enumerate(self.stages):
            x = darknet_max(x) if number else x
            for layer in stage:
                x = layers(x, *layer)
        n, down, across, _ = x.shape
        if self.connected != 0:
            number = layers.number = layers.number + 1
            if self.connected is None:
                x = LocalConv(
                    layers.width(256), self.arithmetic, self.dtype, name=f"local{number}"
                )(x)
            else:
                dense = self.arithmetic.dense(
                    layers.width(self.connected),
                    use_bias=True,
                    dtype=self.dtype,
                    name=f"connected{number}",
                )
                x = dense(_flat(x))
            if self.norm:
                x = batch_norm(train, self.dtype, self.axis_name)(x)
            x = leaky(self.arithmetic.activation, 0.1)(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = self.classifier.dense(
            down * across * (self.classes + 5 * self.boxes),
            use_bias=True,
            dtype=self.dtype,
            name=f"connected{layers.number + 1}",
        )(_flat(x))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        # Darknet writes the classes of all cells, then all confidences, then all boxes.
        classes, confidences, boxes = jnp.split(
            x, [down * across * part for part in (self.classes, self.classes + self.boxes)], axis=1
        )
        parts = (part.reshape(n, down, across, -1) for part in (classes, confidences, boxes))
        return jnp.concatenate(list(parts), axis=-1)


yolo_v1_paper = functools.partial(YOLOv1, boxes=2, connected=4096)
yolo_v1_tiny = functools.partial(
    YOLOv1, boxes=2, stages=TINY, connected=0, features=16, published=16
)


def _flat(x: jax.Array) -> jax.Array:
    """Return images [batch, h, w, c] as darknet's connected layers see them, [batch, c · h · w]."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1) if x.ndim == 4 else x
