"""Architectures, one a file, each with `arithmetic=`."""

from nnlab.models.alexnet import AlexNet, alexnet, original_alexnet, ungrouped_alexnet
from nnlab.models.cifar_resnet import CifarResNet, resnet20, resnet32
from nnlab.models.lenet import LeNet5
from nnlab.models.lenet_original import OriginalLeNet5, full_lenet5, original_lenet5
from nnlab.models.small_cnn import SmallCNN
from nnlab.models.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from nnlab.models.vgg import (
    VGG,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
)
from nnlab.models.vgg_small import VGGSmall

__all__ = [
    "VGG",
    "AlexNet",
    "CifarResNet",
    "LeNet5",
    "OriginalLeNet5",
    "SmallCNN",
    "SqueezeNet",
    "VGGSmall",
    "alexnet",
    "full_lenet5",
    "original_alexnet",
    "original_lenet5",
    "resnet20",
    "resnet32",
    "squeezenet1_0",
    "squeezenet1_1",
    "ungrouped_alexnet",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]
