"""Architectures, one a file, each with `arithmetic=`."""

from nnlab._moved import forward
from nnlab.classics.autoencoder import AutoEncoder
from nnlab.classics.mlp import MLP
from nnlab.models.saved_models import load_model, save_model
from nnlab.sequences.ntm import NTM
from nnlab.sequences.recurrent_net import LanguageModel, RecurrentNet
from nnlab.series.next_event import NextEvent
from nnlab.series.next_value import NextValue
from nnlab.vision.alexnet import AlexNet, original_alexnet, ungrouped_alexnet
from nnlab.vision.cifar_resnet import (
    CifarResNet,
    he_resnet20,
    he_resnet32,
    he_resnet44,
    he_resnet56,
    he_resnet110,
    resnet20,
    resnet32,
)
from nnlab.vision.googlenet import GoogLeNet, googlenet_v1
from nnlab.vision.inception import InceptionCell
from nnlab.vision.inception_v3 import InceptionV3
from nnlab.vision.lenet import LeNet5
from nnlab.vision.lenet_original import OriginalLeNet5, full_lenet5
from nnlab.vision.plain_net import PlainNet
from nnlab.vision.resnet import (
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
from nnlab.vision.small_cnn import SmallCNN
from nnlab.vision.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from nnlab.vision.vgg import (
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
from nnlab.vision.vgg_small import VGGSmall

__all__ = [
    "MLP",
    "NTM",
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
    "load_model",
    "original_alexnet",
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
    "save_model",
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

__getattr__ = forward(__name__)
