"""Architectures, one a file, each with `arithmetic=`."""

from nnlab.models.cifar_resnet import CifarResNet, resnet20, resnet32
from nnlab.models.googlenet import GoogLeNet, googlenet_v1
from nnlab.models.inception import InceptionCell
from nnlab.models.inception_v3 import InceptionV3
from nnlab.models.lenet import LeNet5
from nnlab.models.small_cnn import SmallCNN
from nnlab.models.vgg_small import VGGSmall

__all__ = [
    "CifarResNet",
    "GoogLeNet",
    "InceptionCell",
    "InceptionV3",
    "LeNet5",
    "SmallCNN",
    "VGGSmall",
    "googlenet_v1",
    "resnet20",
    "resnet32",
]
