"""Segmentation: a class for every pixel, networks that give it, and how well that is done."""

from nnlab.vision.segmentation.fcn import FCN, enlarge, fcn8, fcn16, fcn32
from nnlab.vision.segmentation.losses import pixel_cross_entropy
from nnlab.vision.segmentation.measures import (
    Segmented,
    confusion,
    mean_iou,
    median_frequency_weights,
    segmented,
)
from nnlab.vision.segmentation.objects import (
    ObjectsFound,
    connected_objects,
    objects_found,
)
from nnlab.vision.segmentation.segnet import SegNet, SegNetBasic
from nnlab.vision.segmentation.unet import UNet

__all__ = [
    "FCN",
    "ObjectsFound",
    "SegNet",
    "SegNetBasic",
    "Segmented",
    "UNet",
    "confusion",
    "connected_objects",
    "enlarge",
    "fcn8",
    "fcn16",
    "fcn32",
    "mean_iou",
    "median_frequency_weights",
    "objects_found",
    "pixel_cross_entropy",
    "segmented",
]
