"""Segmentation: a class for every pixel, networks that give it, and how well that is done."""

from nnlab.vision.segmentation.fcn import FCN, enlarge, fcn8, fcn16, fcn32
from nnlab.vision.segmentation.measures import (
    Segmented,
    confusion,
    median_frequency_weights,
    segmented,
)
from nnlab.vision.segmentation.segnet import SegNet, SegNetBasic
from nnlab.vision.segmentation.unet import UNet

__all__ = [
    "FCN",
    "SegNet",
    "SegNetBasic",
    "Segmented",
    "UNet",
    "confusion",
    "enlarge",
    "fcn8",
    "fcn16",
    "fcn32",
    "median_frequency_weights",
    "segmented",
]
