"""Architectures, one a file, each with `arithmetic=`."""

from nnlab.models.alexnet import AlexNet, original_alexnet, ungrouped_alexnet
from nnlab.models.autoencoder import AutoEncoder
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
from nnlab.models.lenet_original import OriginalLeNet5, full_lenet5
from nnlab.models.mlp import MLP
from nnlab.models.next_event import NextEvent, no_events, observe, ranks
from nnlab.models.next_value import NextValue
from nnlab.models.plain_net import PlainNet
from nnlab.models.recurrent_net import LanguageModel, RecurrentNet
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
from nnlab.models.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from nnlab.models.vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from nnlab.models.vgg_small import VGGSmall

__all__ = [
    "MLP",
    "VGG",
    "AlexNet",
    "AutoEncoder",
    "CifarResNet",
    "GoogLeNet",
    "InceptionCell",
    "InceptionV3",
    "LanguageModel",
    "LeNet5",
    "NextEvent",
    "NextValue",
    "OriginalLeNet5",
    "PlainNet",
    "RecurrentNet",
    "ResNet",
    "SmallCNN",
    "SqueezeNet",
    "VGGSmall",
    "full_lenet5",
    "googlenet_v1",
    "he_resnet20",
    "he_resnet32",
    "he_resnet44",
    "he_resnet56",
    "he_resnet110",
    "no_events",
    "observe",
    "original_alexnet",
    "ranks",
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
