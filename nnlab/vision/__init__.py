"""Images: data sets, augmentation, transforms, and the convolutional networks."""

from nnlab.vision.augment import (
    chain,
    cutout,
    random_crop,
    random_crop_and_flip,
    random_flip,
)
from nnlab.vision.datasets.dataset import (
    Dataset,
    Records,
    Split,
    check_arrays,
)
from nnlab.vision.datasets.sources import load, record_source
from nnlab.vision.image_report import image_sections, write_image_report
from nnlab.vision.image_run import ImageRun, Images, ImageSet, TrainImages, prepared
from nnlab.vision.mixing import cutmix, mixup
from nnlab.vision.pictures import Resize, read_picture
from nnlab.vision.preparation import Preparation
from nnlab.vision.rand_augment import rand_augment
from nnlab.vision.resized_crop import random_resized_crop
from nnlab.vision.seen_report import seen_sections
from nnlab.vision.transforms import (
    Whitening,
    channel_statistics,
    decorrelate,
    fit_whitening,
    pad_to,
    pca_whiten,
    record_statistics,
    standardize,
    standardized,
    standardizer,
    to_float,
    zca_whiten,
)

__all__ = [
    "Dataset",
    "ImageRun",
    "ImageSet",
    "Images",
    "Preparation",
    "Records",
    "Resize",
    "Split",
    "TrainImages",
    "Whitening",
    "chain",
    "channel_statistics",
    "check_arrays",
    "cutmix",
    "cutout",
    "decorrelate",
    "fit_whitening",
    "image_sections",
    "load",
    "mixup",
    "pad_to",
    "pca_whiten",
    "prepared",
    "rand_augment",
    "random_crop",
    "random_crop_and_flip",
    "random_flip",
    "random_resized_crop",
    "read_picture",
    "record_source",
    "record_statistics",
    "seen_sections",
    "standardize",
    "standardized",
    "standardizer",
    "to_float",
    "write_image_report",
    "zca_whiten",
]
