"""YOLO v2 and v3 and their small forms, from images to what every anchor of every cell says.

v2 is Darknet-19 and three 3×3 convolutions; before the last of them the features of twice the size
come beside, each 2×2 of their pixels as channels, in an order of darknet's own (`reorg`). v3 is
Darknet-53 and three grids, of strides 32, 16 and 8; from one to the next features are enlarged
twice, and the backbone's of that size come beside. The small forms halve by maxima.

===============  ==========  ==========================
network          parameters
===============  ==========  ==========================
YOLO v2          50,655,389  20 classes, 5 anchors
YOLO v2 tiny     15,861,773  the same
YOLO v3          61,949,149  80 classes, 3 anchors a grid
… 20 classes     61,626,049
YOLO v3 tiny      8,852,366  80 classes, 2 grids
===============  ==========  ==========================

What the outputs mean is said in `nnlab.vision.detection.yolo_loss`, and `yolo_detectors` reads
them. Layers are those of `nnlab.vision.darknet`; a grid's last convolution has a bias and no
BatchNorm.

References:
    Redmon and Farhadi, YOLO9000, CVPR 2017, https://arxiv.org/abs/1612.08242; YOLOv3, 2018,
    https://arxiv.org/abs/1804.02767; darknet (yolov2-voc.cfg, yolov2-tiny-voc.cfg, yolov3.cfg,
    yolov3-tiny.cfg and reorg_cpu at f6afaab).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.networks import Network
from nnlab.vision.darknet import Layers, darknet19_layers, darknet53_layers, darknet_max
from nnlab.vision.generation.upsampling import twice


class YOLOv2(Network):
    """Map images [batch, H, W, channels] to [batch, H/32, W/32, anchors, 5 + classes].

    All layers use `arithmetic`, except the first convolution and the last, which use `first` and
    `classifier` (float by default). `features` is the width of the first convolution, to which all
    others are in proportion. `dtype` is the dtype of the computation, by default that of images and
    parameters together; parameters, running statistics and outputs are always float32. With
    `axis_name`, BatchNorm takes the batches of all devices along that mapped axis as one.

    Raises:
        InputError: the sides of the images are no multiples of 32.
    """

    classes: int = 20
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    anchors: int = 5
    features: int = 32
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        check_multiple(x, 32)
        layers = Layers(self, train, 32)
        before, x = darknet19_layers(layers, x)
        x = layers(layers(x, 1024, 3), 1024, 3)
        x = jnp.concatenate([reorg(layers(before, 64, 1)), x], axis=-1)
        return grid(layers, layers(x, 1024, 3), self.anchors, self.classes)


class TinyYOLO(Network):
    """Map images [batch, H, W, channels] to [batch, H/s, W/s, anchors, 5 + classes], s = 2^stages.

    A 3×3 convolution and a maximum of stride 2 for each width of `stages`, then a convolution and a
    maximum of stride 1 for each of `kept`, then a convolution for each of `top`: by default v2's
    small form. Other fields are those of `YOLOv2`.

    Raises:
        InputError: the sides of the images are no multiples of s.
    """

    classes: int = 20
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    anchors: int = 5
    stages: tuple[int, ...] = (16, 32, 64, 128, 256)
    kept: tuple[int, ...] = (512,)
    top: tuple[int, ...] = (1024, 1024)
    features: int = 16
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        check_multiple(x, 2 ** len(self.stages))
        layers = Layers(self, train, 16)
        for strides, widths in ((2, self.stages), (1, self.kept)):
            for width in widths:
                x = darknet_max(layers(x, width, 3), strides)
        for width in self.top:
            x = layers(x, width, 3)
        return grid(layers, x, self.anchors, self.classes)


class YOLOv3(Network):
    """Map images [batch, H, W, channels] to three grids [batch, H/s, W/s, anchors, 5 + classes].

    They are of the strides s = 32, 16 and 8. `anchors` is the number of one grid's, and `blocks`
    that of shortcuts of each stage of the backbone; other fields are those of `YOLOv2`.

    Raises:
        InputError: the sides of the images are no multiples of 32.
    """

    classes: int = 80
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    anchors: int = 3
    features: int = 32
    blocks: tuple[int, ...] = (1, 2, 8, 8, 4)
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
        check_multiple(x, 32)
        layers = Layers(self, train, 32)
        stages, grids = darknet53_layers(layers, x, self.blocks), []
        x = stages[-1]
        for width, beside in zip((512, 256, 128), (None, *stages[-2:-4:-1]), strict=True):
            if beside is not None:
                x = jnp.concatenate([twice(layers(x, width, 1)), beside], axis=-1)
            for _ in range(2):
                x = layers(layers(x, width, 1), 2 * width, 3)
            x = layers(x, width, 1)
            grids.append(grid(layers, layers(x, 2 * width, 3), self.anchors, self.classes))
        return tuple(grids)


class YOLOv3Tiny(Network):
    """Map images [batch, H, W, channels] to two grids [batch, H/s, W/s, anchors, 5 + classes].

    They are of the strides s = 32 and 16. `anchors` is the number of one grid's; other fields are
    those of `YOLOv2`, but that the first convolution has 16 `features`.

    Raises:
        InputError: the sides of the images are no multiples of 32.
    """

    classes: int = 80
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    anchors: int = 3
    features: int = 16
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
        check_multiple(x, 32)
        layers = Layers(self, train, 16)
        beside = x
        for width in (16, 32, 64, 128, 256):
            beside = layers(x, width, 3)
            x = darknet_max(beside)
        x = darknet_max(layers(x, 512, 3), 1)
        route = layers(layers(x, 1024, 3), 256, 1)
        coarse = grid(layers, layers(route, 512, 3), self.anchors, self.classes)
        x = jnp.concatenate([twice(layers(route, 128, 1)), beside], axis=-1)
        return coarse, grid(layers, layers(x, 256, 3), self.anchors, self.classes)


yolo_v3_voc = functools.partial(YOLOv3, 20)


def grid(layers: Layers, x: jax.Array, anchors: int, classes: int) -> jax.Array:
    """Apply the last convolution: [batch, h, w, in] to [batch, h, w, anchors, 5 + classes]."""
    x = layers(x, anchors * (5 + classes), 1, last=True)
    return x.reshape(*x.shape[:3], anchors, 5 + classes)


def reorg(x: jax.Array) -> jax.Array:
    """Move 2×2 pixels into channels as darknet does: [batch, h, w, c] to [batch, h/2, w/2, 4c].

    Darknet reads the memory of an image [c, h, w] as one of [c/4, 2h, 2w], takes the pixels of each
    2×2 of it apart, and reads the result as [4c, h/2, w/2]. The released weights are trained so.

    Raises:
        InputError: sides are odd, or channels no multiple of 4.
    """
    n, height, width, channels = x.shape
    if height % 2 or width % 2 or channels % 4:
        raise InputError(
            f"images have shape {list(x.shape[1:])}, expected even sides and a multiple of 4 "
            "channels."
        )
    x = x.transpose(0, 3, 1, 2).reshape(n, channels // 4, height, 2, width, 2)
    x = x.transpose(0, 3, 5, 1, 2, 4).reshape(n, 4 * channels, height // 2, width // 2)
    return x.transpose(0, 2, 3, 1)


def check_multiple(images: jax.Array, stride: int) -> None:
    """Raise `InputError` unless the sides of images are multiples of a stride."""
    height, width = images.shape[1:3]
    if height % stride or width % stride or not min(height, width):
        raise InputError(f"images are {width} by {height} pixels, expected multiples of {stride}.")
