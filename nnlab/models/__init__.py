"""Architectures, one a file, each with `arithmetic=`."""

from nnlab.models.cifar_resnet import CifarResNet, resnet20, resnet32
from nnlab.models.lenet import LeNet5
from nnlab.models.mlp import MLP
from nnlab.models.small_cnn import SmallCNN
from nnlab.models.vgg_small import VGGSmall

__all__ = ["MLP", "CifarResNet", "LeNet5", "SmallCNN", "VGGSmall", "resnet20", "resnet32"]
