"""Inception v3: its size, its head, and PyTorch's logits with PyTorch's weights."""

import functools
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.models import InceptionV3
from nnlab.vision.inception_v3 import AuxiliaryHead, torch_names

IMAGE = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)


def variables(model: Any, images: Any = IMAGE) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), images)


def test_parameters_with_the_head(full_size, marked):
    network, shapes = full_size(InceptionV3, IMAGE, marked("kernel"), True)
    params: dict[tuple[str, ...], Any] = flatten_dict(shapes["params"])
    assert sum(leaf.size for leaf in params.values()) == 27_161_264
    # Kernels of torchvision's shapes, by its names.
    with torch.device("meta"):
        theirs = TorchInceptionV3(1000).state_dict()
    for path, name in torch_names(network).items():
        if not path.endswith("bn"):
            shape = theirs[f"{name}.weight"].shape
            assert params[*path.split("/"), "kernel"].shape == (*shape[2:], *shape[1::-1])


@pytest.mark.slow
def test_multiply_adds(full_size):
    # Kernels times the pixels of what they give, by what PyTorch's convolutions say of themselves.
    theirs, total = TorchInceptionV3(1000), 2048 * 1000
    pixels = {}
    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.Conv2d) and "Aux" not in name:
            module.register_forward_hook(
                lambda layer, _, y: pixels.update({layer: y.shape[2] * y.shape[3]})
            )
    with torch.no_grad():
        theirs.eval()(torch.zeros(1, 3, 299, 299))
    total += sum(layer.weight.numel() * n for layer, n in pixels.items())
    products, distances = (
        count(network.apply, shapes, IMAGE).multiplications["float32"]
        for network, shapes in (
            full_size(InceptionV3, IMAGE, *options) for options in ((FLOAT, True), (ADDER, False))
        )
    )
    assert products - distances == total == 5_713_216_096


@pytest.mark.slow
def test_intermediates_and_shapes(full_size, assert_intermediates):
    network, shapes = full_size(InceptionV3, IMAGE, FLOAT, True)
    expected = {
        "stage1": (1, 147, 147, 64),
        "stage2": (1, 71, 71, 192),
        "stage3": (1, 35, 35, 288),
        "stage4": (1, 17, 17, 768),
        "stage5": (1, 8, 8, 2048),
        "features": (1, 2048),
    }
    assert_intermediates(network, IMAGE.shape, expected, shapes)


@pytest.mark.slow
def test_a_training_call_gives_the_heads_logits_too(full_size, assert_outputs_with_heads):
    network = InceptionV3(auxiliary=True, dtype=jnp.bfloat16)
    _, shapes = full_size(InceptionV3, IMAGE, FLOAT, True)
    stats = assert_outputs_with_heads(network, shapes, IMAGE, heads=1)
    assert stats["aux"].keys() == {"conv0", "conv1"}


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER], ids=["float", "adder"])
def test_gradients_reach_every_parameter_of_the_head(arithmetic, drawn, quick_jit):
    head = AuxiliaryHead(4, arithmetic, FLOAT, None, None)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 17, 17, 3)), jnp.float32)
    fresh = drawn(jax.eval_shape(functools.partial(head.init, train=True), jax.random.key(0), x))

    def score(params):
        every = fresh | {"params": params}
        logits, _ = head.apply(every, x, True, mutable=["batch_stats"])
        return jax.nn.log_softmax(logits)[0, 1]

    gradients = quick_jit(jax.grad(score))(fresh["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all() and leaf.any(), path


def unit(inputs, features, size, **options):
    """A convolution as torchvision's Inception v3 has it, with the names of its state dict."""
    layers = {
        "conv": torch.nn.Conv2d(inputs, features, size, bias=False, **options),
        "bn": torch.nn.BatchNorm2d(features, eps=0.001),
        "relu": torch.nn.ReLU(),
    }
    return torch.nn.Sequential(OrderedDict(layers))


class TorchCell(torch.nn.Module):
    """Of chains {name: (features, kernel)}, "a" and "b" at the end side by side, and pooling.

    With strides 2 the last convolution of every chain and the maximum halve height and width.
    """

    def __init__(self, inputs, chains, project, strides=1):
        super().__init__()
        self.chains, self.project = chains, project
        for chain in chains:
            width = inputs
            for place, (name, (features, size)) in enumerate(chain.items()):
                if strides == 2 and place == len(chain) - 1:
                    options: Any = {"stride": 2}
                else:
                    sides = (size, size) if isinstance(size, int) else size
                    options = {"padding": tuple(side // 2 for side in sides)}
                self.add_module(name, unit(width, features, size, **options))
                width = width if name.endswith("a") else features
        if project:
            self.branch_pool = unit(inputs, project, 1)

    def forward(self, x):
        outputs = []
        for chain in self.chains:
            y, sides = x, []
            for name in chain:
                if name[-1] in "ab":
                    sides.append(getattr(self, name)(y))
                else:
                    y = getattr(self, name)(y)
            outputs += sides or [y]
        if self.project:
            outputs.append(self.branch_pool(torch.nn.functional.avg_pool2d(x, 3, 1, 1)))
        else:
            outputs.append(torch.nn.functional.max_pool2d(x, 3, 2))
        return torch.cat(outputs, 1)


def torch_cells():
    row, column = (1, 7), (7, 1)
    double = {
        "branch3x3dbl_1": (64, 1),
        "branch3x3dbl_2": (96, 3),
        "branch3x3dbl_3": (96, 3),
    }
    a = [{"branch1x1": (64, 1)}, {"branch5x5_1": (48, 1), "branch5x5_2": (64, 5)}, double]
    yield "5b", TorchCell(192, a, 32)
    yield "5c", TorchCell(256, a, 64)
    yield "5d", TorchCell(288, a, 64)
    yield "6a", TorchCell(288, [{"branch3x3": (384, 3)}, double], 0, strides=2)
    for name, n in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        c = [
            {"branch1x1": (192, 1)},
            {"branch7x7_1": (n, 1), "branch7x7_2": (n, row), "branch7x7_3": (192, column)},
            {
                "branch7x7dbl_1": (n, 1),
                "branch7x7dbl_2": (n, column),
                "branch7x7dbl_3": (n, row),
                "branch7x7dbl_4": (n, column),
                "branch7x7dbl_5": (192, row),
            },
        ]
        yield name, TorchCell(768, c, 192)
    d = [
        {"branch3x3_1": (192, 1), "branch3x3_2": (320, 3)},
        {
            "branch7x7x3_1": (192, 1),
            "branch7x7x3_2": (192, row),
            "branch7x7x3_3": (192, column),
            "branch7x7x3_4": (192, 3),
        },
    ]
    yield "7a", TorchCell(768, d, 0, strides=2)
    e = [
        {"branch1x1": (320, 1)},
        {
            "branch3x3_1": (384, 1),
            "branch3x3_2a": (384, (1, 3)),
            "branch3x3_2b": (384, (3, 1)),
        },
        {
            "branch3x3dbl_1": (448, 1),
            "branch3x3dbl_2": (384, 3),
            "branch3x3dbl_3a": (384, (1, 3)),
            "branch3x3dbl_3b": (384, (3, 1)),
        },
    ]
    yield "7b", TorchCell(1280, e, 192)
    yield "7c", TorchCell(2048, e, 192)


class TorchInceptionV3(torch.nn.Module):
    """Of plain layers; gives the logits, without dropout."""

    def __init__(self, classes):
        super().__init__()
        self.Conv2d_1a_3x3 = unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = unit(32, 32, 3)
        self.Conv2d_2b_3x3 = unit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = unit(64, 80, 1)
        self.Conv2d_4a_3x3 = unit(80, 192, 3)
        self.mixed = [f"Mixed_{name}" for name, _ in torch_cells()]
        for name, cell in torch_cells():
            self.add_module(f"Mixed_{name}", cell)
        head = {
            "pool": torch.nn.AvgPool2d(5, 3),
            "conv0": unit(768, 128, 1),
            "conv1": unit(128, 768, 5),
            "mean": torch.nn.AdaptiveAvgPool2d(1),
            "flat": torch.nn.Flatten(),
            "fc": torch.nn.Linear(768, classes),
        }
        self.AuxLogits = torch.nn.Sequential(OrderedDict(head))
        self.fc = torch.nn.Linear(2048, classes)

    def forward(self, x):
        pool = torch.nn.MaxPool2d(3, 2)
        x = pool(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in self.mixed:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.slow
def test_logits_are_those_of_pytorch(randomised, assert_borrowed_logits, assert_same_outputs):
    theirs, ours = randomised(TorchInceptionV3(5)), InceptionV3(5, auxiliary=True)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 96, 75, 3)).astype(np.float32)
    names, shapes = torch_names(ours), variables(ours)
    borrowed = assert_borrowed_logits(ours, names, theirs, images, shapes=shapes)

    head: Any = AuxiliaryHead(5, FLOAT, FLOAT, None, None)
    x = rng.normal(size=(2, 20, 17, 768)).astype(np.float32)
    of_head = {kind: tree["aux"] for kind, tree in borrowed.items()}
    assert_same_outputs(lambda x: head.apply(of_head, x, False), theirs.AuxLogits, x)


@pytest.mark.parametrize(
    ("options", "side"), [({}, 74), ({"auxiliary": True}, 298), ({"dropout": float("nan")}, 80)]
)
def test_small_images_and_bad_rates(options, side):
    with pytest.raises(InputError):
        variables(InceptionV3(**options), jax.ShapeDtypeStruct((1, 299, side, 3), jnp.float32))
