"""Architectures of all wings, each with `arithmetic=`; `ZOO` has every one by name."""

# `as` tells type checkers that a name is meant to be imported from here.
from nnlab._moved import forward
from nnlab.classics.autoencoder import AutoEncoder as AutoEncoder
from nnlab.classics.mlp import MLP as MLP
from nnlab.models.classifiers import Classifier as Classifier
from nnlab.models.classifiers import load_classifier as load_classifier
from nnlab.models.pretrained_models import PRETRAINED as PRETRAINED
from nnlab.models.pretrained_models import pretrained as pretrained
from nnlab.models.pretrained_models import pretrained_file as pretrained_file
from nnlab.models.saved_models import load_model as load_model
from nnlab.models.saved_models import load_structure as load_structure
from nnlab.models.saved_models import save_model as save_model
from nnlab.models.saved_models import save_structure as save_structure
from nnlab.models.zoo import ZOO as ZOO
from nnlab.models.zoo import Entry as Entry
from nnlab.sequences.ntm import NTM as NTM
from nnlab.sequences.recurrent_net import LanguageModel as LanguageModel
from nnlab.sequences.recurrent_net import RecurrentNet as RecurrentNet
from nnlab.series.next_event import NextEvent as NextEvent
from nnlab.series.next_value import NextValue as NextValue
from nnlab.vision.alexnet import AlexNet as AlexNet
from nnlab.vision.alexnet import original_alexnet as original_alexnet
from nnlab.vision.alexnet import ungrouped_alexnet as ungrouped_alexnet
from nnlab.vision.cifar_resnet import CifarResNet as CifarResNet
from nnlab.vision.cifar_resnet import he_resnet20 as he_resnet20
from nnlab.vision.cifar_resnet import he_resnet32 as he_resnet32
from nnlab.vision.cifar_resnet import he_resnet44 as he_resnet44
from nnlab.vision.cifar_resnet import he_resnet56 as he_resnet56
from nnlab.vision.cifar_resnet import he_resnet110 as he_resnet110
from nnlab.vision.cifar_resnet import resnet20 as resnet20
from nnlab.vision.cifar_resnet import resnet32 as resnet32
from nnlab.vision.googlenet import GoogLeNet as GoogLeNet
from nnlab.vision.googlenet import googlenet_v1 as googlenet_v1
from nnlab.vision.inception import InceptionCell as InceptionCell
from nnlab.vision.inception_v3 import InceptionV3 as InceptionV3
from nnlab.vision.lenet import LeNet5 as LeNet5
from nnlab.vision.lenet_original import OriginalLeNet5 as OriginalLeNet5
from nnlab.vision.lenet_original import full_lenet5 as full_lenet5
from nnlab.vision.plain_net import PlainNet as PlainNet
from nnlab.vision.resnet import ResNet as ResNet
from nnlab.vision.resnet import resnet18 as resnet18
from nnlab.vision.resnet import resnet34 as resnet34
from nnlab.vision.resnet import resnet50 as resnet50
from nnlab.vision.resnet import resnet101 as resnet101
from nnlab.vision.resnet import resnet152 as resnet152
from nnlab.vision.resnet import resnext50_32x4d as resnext50_32x4d
from nnlab.vision.resnet import resnext101_32x8d as resnext101_32x8d
from nnlab.vision.resnet import resnext101_64x4d as resnext101_64x4d
from nnlab.vision.small_cnn import SmallCNN as SmallCNN
from nnlab.vision.squeezenet import SqueezeNet as SqueezeNet
from nnlab.vision.squeezenet import squeezenet1_0 as squeezenet1_0
from nnlab.vision.squeezenet import squeezenet1_1 as squeezenet1_1
from nnlab.vision.vgg import VGG as VGG
from nnlab.vision.vgg import vgg11 as vgg11
from nnlab.vision.vgg import vgg11_bn as vgg11_bn
from nnlab.vision.vgg import vgg13 as vgg13
from nnlab.vision.vgg import vgg13_bn as vgg13_bn
from nnlab.vision.vgg import vgg16 as vgg16
from nnlab.vision.vgg import vgg16_bn as vgg16_bn
from nnlab.vision.vgg import vgg19 as vgg19
from nnlab.vision.vgg import vgg19_bn as vgg19_bn
from nnlab.vision.vgg_small import VGGSmall as VGGSmall

__getattr__ = forward(__name__)
