"""The zoo: every network by name, with its constructor and the input that it was published for.

`nnlab summary`, the table of `experiments/deployment/zoo.py` and the contract tests are made from
`ZOO`. To add a model, write its file in the wing of its domain, and add a row here and an import
to `nnlab.models`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nnlab.arithmetics import BITNET
from nnlab.classics.autoencoder import AutoEncoder
from nnlab.classics.mlp import MLP
from nnlab.layers.recurrent import LSTMCell
from nnlab.sequences.bert import MINILM, BertClassifier
from nnlab.sequences.gpt2 import GPT2, nano_gpt
from nnlab.sequences.llama import bitnet_2b4t
from nnlab.sequences.matmul_free import MatMulFreeLM
from nnlab.sequences.ntm import NTM
from nnlab.sequences.recurrent_net import LanguageModel, RecurrentNet
from nnlab.series.next_event import NextEvent
from nnlab.series.next_value import NextValue
from nnlab.vision import (
    alexnet,
    cifar_resnet,
    darknet,
    googlenet,
    inception_v3,
    lenet,
    lenet_original,
    plain_net,
    resnet,
    small_cnn,
    squeezenet,
    vgg,
    vgg_small,
    vision_transformer,
)
from nnlab.vision.detection import faster_rcnn, fcos, retinanet, yolo, yolo_v1
from nnlab.vision.generation import dcgan, resnet_gan, sn_gan


class Entry(NamedTuple):
    """A network as it was published.

    Attributes:
        make: constructor; takes the fields of the model's class.
        shape: shape of one input, without the batch axis.
        dtype: dtype of the input.
    """

    make: Callable[..., nn.Module]
    shape: tuple[int, ...]
    dtype: DTypeLike = jnp.float32

    @property
    def kind(self) -> type[nn.Module]:
        """The model's class."""
        make: Any = self.make  # a class, or a partial of one
        return getattr(make, "func", make)

    @property
    def options(self) -> frozenset[str]:
        """Names of the arguments that `make` takes."""
        return frozenset(field.name for field in dataclasses.fields(self.kind))

    def inputs(self, batch_size: int = 1) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a batch of inputs."""
        return jax.ShapeDtypeStruct((batch_size, *self.shape), self.dtype)


_MATMUL_FREE = functools.partial(MatMulFreeLM, arithmetic=BITNET, classifier=BITNET)
_GREY, _COLOUR, _IMAGENET = (32, 32, 1), (32, 32, 3), (224, 224, 3)
_DETECTION, _PYRAMID = (416, 416, 3), (800, 1088, 3)
_COPY = (41, 9)  # 20 words of 8 bits, a marker, and time to write them

ZOO = {
    "lenet5": Entry(lenet.LeNet5, _GREY),
    "small_cnn": Entry(small_cnn.SmallCNN, (8, 8, 1)),
    "vgg_small": Entry(vgg_small.VGGSmall, _COLOUR),
    "lenet5_original": Entry(lenet_original.OriginalLeNet5, _GREY),
    "lenet5_full": Entry(lenet_original.full_lenet5, _GREY),
    "mlp": Entry(MLP, (28, 28, 1)),
    "resnet20": Entry(cifar_resnet.resnet20, _COLOUR),
    "resnet32": Entry(cifar_resnet.resnet32, _COLOUR),
    "he_resnet20": Entry(cifar_resnet.he_resnet20, _COLOUR),
    "he_resnet32": Entry(cifar_resnet.he_resnet32, _COLOUR),
    "he_resnet44": Entry(cifar_resnet.he_resnet44, _COLOUR),
    "he_resnet56": Entry(cifar_resnet.he_resnet56, _COLOUR),
    "he_resnet110": Entry(cifar_resnet.he_resnet110, _COLOUR),
    "plain20": Entry(functools.partial(plain_net.PlainNet, 6), _COLOUR),
    "alexnet": Entry(alexnet.AlexNet, _IMAGENET),
    "alexnet_original": Entry(alexnet.original_alexnet, (227, 227, 3)),
    "alexnet_ungrouped": Entry(alexnet.ungrouped_alexnet, (227, 227, 3)),
    "vgg11": Entry(vgg.vgg11, _IMAGENET),
    "vgg11_bn": Entry(vgg.vgg11_bn, _IMAGENET),
    "vgg13": Entry(vgg.vgg13, _IMAGENET),
    "vgg13_bn": Entry(vgg.vgg13_bn, _IMAGENET),
    "vgg16": Entry(vgg.vgg16, _IMAGENET),
    "vgg16_bn": Entry(vgg.vgg16_bn, _IMAGENET),
    "vgg19": Entry(vgg.vgg19, _IMAGENET),
    "vgg19_bn": Entry(vgg.vgg19_bn, _IMAGENET),
    "googlenet": Entry(googlenet.GoogLeNet, _IMAGENET),
    "googlenet_v1": Entry(googlenet.googlenet_v1, _IMAGENET),
    "inception_v3": Entry(inception_v3.InceptionV3, (299, 299, 3)),
    "resnet18": Entry(resnet.resnet18, _IMAGENET),
    "resnet34": Entry(resnet.resnet34, _IMAGENET),
    "resnet50": Entry(resnet.resnet50, _IMAGENET),
    "resnet101": Entry(resnet.resnet101, _IMAGENET),
    "resnet152": Entry(resnet.resnet152, _IMAGENET),
    "resnext50_32x4d": Entry(resnet.resnext50_32x4d, _IMAGENET),
    "resnext101_32x8d": Entry(resnet.resnext101_32x8d, _IMAGENET),
    "resnext101_64x4d": Entry(resnet.resnext101_64x4d, _IMAGENET),
    "squeezenet1_0": Entry(squeezenet.squeezenet1_0, _IMAGENET),
    "squeezenet1_1": Entry(squeezenet.squeezenet1_1, _IMAGENET),
    "deit_tiny": Entry(vision_transformer.deit_tiny, _IMAGENET),
    "deit_small": Entry(vision_transformer.deit_small, _IMAGENET),
    "deit_base": Entry(vision_transformer.deit_base, _IMAGENET),
    "cifar_deit_tiny": Entry(vision_transformer.cifar_deit_tiny, _COLOUR),
    "darknet19": Entry(darknet.Darknet19, _IMAGENET),
    "darknet53": Entry(darknet.Darknet53, (256, 256, 3)),
    "yolo_v1": Entry(yolo_v1.YOLOv1, (448, 448, 3)),
    "yolo_v1_paper": Entry(yolo_v1.yolo_v1_paper, (448, 448, 3)),
    "yolo_v1_tiny": Entry(yolo_v1.yolo_v1_tiny, (448, 448, 3)),
    "yolo_v2": Entry(yolo.YOLOv2, _DETECTION),
    "yolo_v2_tiny": Entry(yolo.TinyYOLO, _DETECTION),
    "yolo_v3": Entry(yolo.YOLOv3, _DETECTION),
    "yolo_v3_voc": Entry(yolo.yolo_v3_voc, _DETECTION),
    "yolo_v3_tiny": Entry(yolo.YOLOv3Tiny, _DETECTION),
    "fasterrcnn_resnet50_fpn": Entry(faster_rcnn.fasterrcnn_resnet50_fpn, _PYRAMID),
    "fcos_resnet50_fpn": Entry(fcos.fcos_resnet50_fpn, _PYRAMID),
    "retinanet_resnet50_fpn": Entry(retinanet.retinanet_resnet50_fpn, _PYRAMID),
    "dcgan_generator": Entry(dcgan.DCGANGenerator, (100,)),
    "dcgan_critic": Entry(dcgan.DCGANCritic, (64, 64, 3)),
    "wgan_gp_generator": Entry(resnet_gan.ResNetGenerator, (128,)),
    "wgan_gp_critic": Entry(resnet_gan.ResNetCritic, _COLOUR),
    "sn_gan_generator": Entry(sn_gan.SNGANGenerator, (128,)),
    "sn_gan_critic": Entry(sn_gan.SNGANCritic, _COLOUR),
    "autoencoder": Entry(AutoEncoder, (32,)),
    "language_model": Entry(functools.partial(LanguageModel, 65), (50,), jnp.int32),
    "gpt2": Entry(GPT2, (1024,), jnp.int32),
    "nano_gpt": Entry(nano_gpt, (64,), jnp.int32),
    "bitnet_2b4t": Entry(bitnet_2b4t, (64,), jnp.int32),
    "matmul_free": Entry(_MATMUL_FREE, (64,), jnp.int32),
    "minilm_l6": Entry(functools.partial(BertClassifier, **MINILM), (128,), jnp.int32),
    "bert_base": Entry(BertClassifier, (128,), jnp.int32),
    "recurrent_net": Entry(functools.partial(RecurrentNet, 8, 256, 3), _COPY),
    "ntm": Entry(functools.partial(NTM, 8), _COPY),
    "ntm_lstm": Entry(functools.partial(NTM, 8, LSTMCell), _COPY),
    "next_value": Entry(NextValue, (32, 1)),
    "next_event": Entry(functools.partial(NextEvent, 14), (10,), jnp.int32),
}
