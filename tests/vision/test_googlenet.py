"""GoogLeNet: its sizes, its heads, and PyTorch's logits with PyTorch's weights."""

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.models import GoogLeNet, googlenet_v1
from nnlab.training import accuracy, with_auxiliary
from nnlab.vision.googlenet import AuxiliaryHead, torch_names

# Pixels, and of table 1: 1×1, reduction and 3×3, reduction and 5×5, projection.
WIDTHS = [
    (28, (64, 96, 128, 16, 32, 32)),
    (28, (128, 128, 192, 32, 96, 64)),
    (14, (192, 96, 208, 16, 48, 64)),
    (14, (160, 112, 224, 24, 64, 64)),
    (14, (128, 128, 256, 24, 64, 64)),
    (14, (112, 144, 288, 32, 64, 64)),
    (14, (256, 160, 320, 32, 128, 128)),
    (7, (256, 160, 320, 32, 128, 128)),
    (7, (384, 192, 384, 48, 128, 128)),
]
CELLS = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
IMAGE = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)


def variables(model: Any, images: Any = IMAGE) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("model", "with_heads"),
    [
        (GoogLeNet, 13_004_888),
        pytest.param(googlenet_v1, 13_378_280, marks=pytest.mark.slow),
    ],
)
def test_parameters_with_heads(model, with_heads, full_size, marked):
    _, shapes = full_size(model, IMAGE, marked("kernel"), True)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == with_heads


@pytest.mark.slow
def test_multiply_adds(full_size):
    # Pixels times weights of the three convolutions and of every cell, and of the classifier.
    one = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    products, distances = (
        count(network.apply, shapes, one).multiplications["float32"]
        for network, shapes in (
            full_size(GoogLeNet, IMAGE, *options) for options in ((FLOAT, True), (ADDER, False))
        )
    )
    stem = 112**2 * 64 * 147 + 56**2 * (64 * 64 + 192 * 576)
    cells, inputs = 0, 192
    for pixels, (a, b, c, d, e, f) in WIDTHS:
        weights = inputs * (a + b + d + f) + 9 * (b * c + d * e)
        cells, inputs = cells + pixels**2 * weights, a + c + e + f
    assert products - distances == stem + cells + 1_024_000 == 1_498_376_192


@pytest.mark.slow
@pytest.mark.parametrize("model", [GoogLeNet, googlenet_v1])
def test_intermediates_and_shapes(model, full_size, assert_intermediates):
    network, shapes = full_size(model, IMAGE, FLOAT, True)
    stages = ((112, 64), (56, 192), (28, 480), (14, 832), (7, 1024))
    expected = {f"stage{i}": (2, size, size, width) for i, (size, width) in enumerate(stages, 1)}
    assert_intermediates(network, IMAGE.shape, expected | {"features": (2, 1024)}, shapes)


@pytest.mark.slow
def test_a_training_call_gives_the_heads_logits_too(full_size, assert_outputs_with_heads):
    network = GoogLeNet(auxiliary=True, dtype=jnp.bfloat16)
    _, shapes = full_size(GoogLeNet, IMAGE, FLOAT, True)
    stats = assert_outputs_with_heads(network, shapes, IMAGE, heads=2)
    assert {"aux1", "aux2"} < stats.keys()


@pytest.mark.slow
def test_an_adder_classifier_can_be_normalised_within_the_heads():
    network = GoogLeNet(4, classifier=ADDER, auxiliary=True, norm_hidden=True)
    params = variables(network)["params"]
    for layers in (params["aux1"], params["aux2"]):
        assert layers.keys() == {"conv", "fc1", "bn1", "fc2"}
        assert layers["fc1"]["adder_kernel"].shape == (2048, 1024)
        assert layers["bn1"]["scale"].shape == (1024,)
    assert params["fc"]["adder_kernel"].shape == (1024, 4)


# The loss of three terms.
OPTIONS: Any = {
    "loss": with_auxiliary(),
    "metrics": lambda outputs, labels: accuracy(outputs.logits, labels),
}


@pytest.mark.slow
def test_a_step_moves_every_parameter(assert_a_step_moves_everything):
    network = GoogLeNet(4, auxiliary=True)
    assert_a_step_moves_everything(network, (4, 32, 32, 3), optax.sgd(0.1), **OPTIONS)


def unit(inputs, features, size, norm, **options):
    """A convolution as torchvision's GoogLeNet has it, with the names of its state dict."""
    layers: Any = {"conv": torch.nn.Conv2d(inputs, features, size, bias=not norm, **options)}
    if norm:
        layers["bn"] = torch.nn.BatchNorm2d(features, eps=0.001)
    return torch.nn.Sequential(OrderedDict(**layers, relu=torch.nn.ReLU()))


class TorchCell(torch.nn.Module):
    def __init__(self, inputs, widths, original):
        super().__init__()
        a, b, c, d, e, f = widths
        norm, size = not original, 5 if original else 3
        self.branch1 = unit(inputs, a, 1, norm)
        self.branch2 = torch.nn.Sequential(unit(inputs, b, 1, norm), unit(b, c, 3, norm, padding=1))
        self.branch3 = torch.nn.Sequential(
            unit(inputs, d, 1, norm), unit(d, e, size, norm, padding=size // 2)
        )
        self.branch4 = torch.nn.Sequential(torch.nn.MaxPool2d(3, 1, 1), unit(inputs, f, 1, norm))

    def forward(self, x):
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class TorchHead(torch.nn.Module):
    def __init__(self, inputs, classes, original):
        super().__init__()
        self.conv = unit(inputs, 128, 1, not original)
        self.fc1, self.fc2 = torch.nn.Linear(2048, 1024), torch.nn.Linear(1024, classes)

    def forward(self, x):
        x = self.conv(torch.nn.functional.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.fc2(self.fc1(x).relu())


class TorchGoogLeNet(torch.nn.Module):
    """Of plain layers; gives the logits and, the original, those of both heads; no dropout."""

    def __init__(self, classes, original):
        super().__init__()
        norm, self.original = not original, original
        self.conv1 = unit(3, 64, 7, norm, stride=2, padding=3)
        self.conv2, self.conv3 = unit(64, 64, 1, norm), unit(64, 192, 3, norm, padding=1)
        inputs = 192
        for name, (_, widths) in zip(CELLS, WIDTHS, strict=True):
            self.add_module(f"inception{name}", TorchCell(inputs, widths, original))
            inputs = widths[0] + widths[2] + widths[4] + widths[5]
        self.aux1, self.aux2 = (TorchHead(n, classes, original) for n in (512, 528))
        self.fc = torch.nn.Linear(1024, classes)
        # PyTorch divides alpha by the five channels.
        response = torch.nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
        self.respond = response if original else torch.nn.Identity()
        self.pool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.pool4 = self.pool if original else torch.nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x):
        x = self.conv2(self.respond(self.pool(self.conv1(x))))
        x = self.pool(self.respond(self.conv3(x)))
        heads = []
        for name in CELLS:
            x = self.pool(x) if name == "4a" else self.pool4(x) if name == "5a" else x
            x = getattr(self, f"inception{name}")(x)
            if name in ("4a", "4d"):
                heads.append((self.aux1, self.aux2)[len(heads)](x))
        logits = self.fc(x.mean((2, 3)))
        return (logits, *heads) if self.original else logits


IMAGES = np.random.default_rng(0).normal(size=(2, 64, 48, 3)).astype(np.float32)


@pytest.mark.slow
def test_logits_are_those_of_pytorch(randomised, assert_borrowed_logits, assert_same_outputs):
    theirs, ours = randomised(TorchGoogLeNet(5, False)), GoogLeNet(5, auxiliary=True)
    borrowed = assert_borrowed_logits(ours, torch_names(ours), theirs, IMAGES)

    head: Any = AuxiliaryHead(5, FLOAT, FLOAT, True, False, 0.7, None, None)
    x = np.random.default_rng(1).normal(size=(2, 5, 3, 512)).astype(np.float32)
    of_head = {kind: tree["aux1"] for kind, tree in borrowed.items()}
    assert_same_outputs(lambda x: head.apply(of_head, x, False), theirs.aux1, x)


@pytest.mark.slow
def test_logits_of_the_original_and_of_its_heads_are_those_of_pytorch(
    randomised, assert_borrowed_logits
):
    ours = googlenet_v1(5, auxiliary=True, dropout=0.0, auxiliary_dropout=0.0)
    theirs = randomised(TorchGoogLeNet(5, True))
    assert_borrowed_logits(ours, torch_names(ours), theirs, IMAGES, train=True)


def test_dropout_rates_are_checked():
    for network in (GoogLeNet(dropout=1.0), GoogLeNet(auxiliary_dropout=-0.1)):
        with pytest.raises(InputError):
            variables(network)
