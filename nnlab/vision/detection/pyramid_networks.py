"""What detectors on a feature pyramid share: a ResNet, a neck, and which arithmetic each has."""

import functools
from typing import Any

import jax
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.networks import Network, check_arithmetic
from nnlab.vision.detection.necks import Extra, FeaturePyramid, Kind, pyramid_names
from nnlab.vision.resnet import ResNetStages
from nnlab.vision.resnet import torch_names as resnet_names


class PyramidNetwork(Network):
    """A network of images [batch, height, width, channels] on a pyramid of a ResNet's stages.

    All layers use `arithmetic`, except the first convolution and those that predict, which use
    `first` and `classifier` (float by default). The neck or the head have another one if `neck` or
    `head` is given; the adder detection paper leaves the head float.

    `stage_sizes`, `bottleneck`, `features` and `frozen_norm` are those of
    `nnlab.vision.resnet.ResNet`; `neck_kind`, `neck_features`, `shortcuts` and `neck_norm` those of
    `nnlab.vision.detection.necks.FeaturePyramid`. `dtype` is the dtype of the computation, by
    default that of images and parameters together; parameters, running statistics and outputs are
    always float32. With `axis_name`, BatchNorm takes the batches of all devices along that mapped
    axis as one.
    """

    classes: int = 90
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    neck: Arithmetic | None = None
    head: Arithmetic | None = None
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    features: int = 64
    neck_kind: Kind = "fpn"
    neck_features: int = 256
    shortcuts: bool = False
    neck_norm: bool | None = None
    frozen_norm: bool = False
    dtype: Dtype | None = None
    axis_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("neck", "head"):
            if (value := getattr(self, name, None)) is not None:
                check_arithmetic(name, value)
        super().__post_init__()

    def _body(self, **options: Any) -> ResNetStages:
        return ResNetStages(
            1,
            self.arithmetic,
            self.first,
            stage_sizes=self.stage_sizes,
            bottleneck=self.bottleneck,
            features=self.features,
            frozen_norm=self.frozen_norm,
            dtype=self.dtype,
            axis_name=self.axis_name,
            **options,
        )

    def _neck(self, extra: Extra, **options: Any) -> FeaturePyramid:
        return FeaturePyramid(
            self.neck_features,
            self.neck or self.arithmetic,
            self.neck_kind,
            extra,
            self.shortcuts,
            self.neck_norm,
            self.dtype,
            self.axis_name,
            **options,
        )

    def _pyramid(self, x: jax.Array, train: bool, first: int, extra: Extra) -> list[jax.Array]:
        """Return the levels of the pyramid of the stages from number `first`, from 0."""
        stages = self._body(name="body")(x, train)[first:]
        levels = self._neck(extra, name="fpn")(stages, train)
        for level, each in enumerate(levels, first + 2):
            self.sow("intermediates", f"p{level}", each)
        return levels

    def _head(self) -> Arithmetic:
        return self.head or self.arithmetic

    def _pyramid_names(self, first: int, extra: Extra) -> dict[str, Any]:
        """Return torchvision's names of the backbone, for `nnlab.files.borrow`."""
        make = functools.partial(self._neck, parent=None)
        neck = make(extra)
        if (
            self.neck_kind != "fpn"
            or self.shortcuts
            or self.neck_norm
            or neck.arithmetic.needs_norm
        ):
            raise InputError("torchvision has names of an FPN of floats alone, without norms.")
        names = resnet_names(self._body(parent=None))
        body = {f"body/{k}": f"backbone.body.{v}" for k, v in names.items() if k != "fc"}
        fpn = pyramid_names(neck, len(self.stage_sizes) - first)
        return body | {f"fpn/{k}": f"backbone.fpn.{v}" for k, v in fpn.items()}
