"""Architectures, one a file, each with `arithmetic=`."""

from nnlab.models.cifar_resnet import (
    CifarResNet,
    he_resnet20,
    he_resnet32,
    he_resnet44,
    he_resnet56,
    he_resnet110,
    resnet20,
    resnet32,
)
from nnlab.models.googlenet import GoogLeNet, googlenet_v1
from nnlab.models.inception import InceptionCell
from nnlab.models.inception_v3 import InceptionV3
from nnlab.models.lenet import LeNet5
from nnlab.models.mlp import MLP
from nnlab.models.plain_net import PlainNet
from nnlab.models.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    resnext101_64x4d,
)
from nnlab.models.small_cnn import SmallCNN
from nnlab.models.vgg_small import VGGSmall

__all__ = [
    "MLP",
    "CifarResNet",
    "GoogLeNet",
    "InceptionCell",
    "InceptionV3",
    "LeNet5",
    "PlainNet",
    "ResNet",
    "SmallCNN",
    "VGGSmall",
    "googlenet_v1",
    "he_resnet20",
    "he_resnet32",
    "he_resnet44",
    "he_resnet56",
    "he_resnet110",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
]
