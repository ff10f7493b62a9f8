"""ResNets for ImageNet: their sizes, their blocks, and torchvision's logits for its weights."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from torch import nn

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.models import (
    ResNet,
    resnet18,
)
from nnlab.vision.resnet import torch_names

IMAGE, TINY = (jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32) for size in (224, 32))
SMALL: dict[str, Any] = {
    "basic": {"stage_sizes": (1, 2), "bottleneck": False, "features": 8},
    "bottleneck": {"stage_sizes": (2, 1), "features": 8},
    "groups": {"stage_sizes": (1, 1), "features": 8, "groups": 2, "width_per_group": 48},
}


def shapes(network, images=IMAGE) -> Any:
    return jax.eval_shape(network.init, jax.random.key(0), images)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_multiply_adds():
    # 112² · 64 · 147; 4 · 56² · 64 · 576; thrice 14² · 256 (1152 + 3 · 2304 + 128); 512 · 1000
    terms = 118_013_952 + 462_422_016 + 3 * 411_041_792 + 512_000
    options: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER}
    networks = resnet18(), resnet18(**options)
    products, distances = (count(n.apply, shapes(n), IMAGE) for n in networks)
    saved = products.multiplications["float32"] - distances.multiplications["float32"]
    added = distances.additions["float32"] - products.additions["float32"]
    assert saved == added == terms == 1_814_073_344


def test_intermediates(assert_intermediates):
    expected = {
        "stage1": (2, 17, 16, 64),
        "stage2": (2, 9, 8, 128),
        "stage3": (2, 5, 4, 256),
        "stage4": (2, 3, 2, 512),
        "features": (2, 512),
    }
    model = ResNet(7, stage_sizes=(1, 1, 1, 1), bottleneck=False)
    assert_intermediates(model, (2, 65, 64, 3), expected)


def test_the_stem_for_small_images():
    init = functools.partial(resnet18(10, stem="cifar").init_with_output, mutable=True)
    _, made = jax.eval_shape(init, jax.random.key(0), TINY)
    # 3·3·3·64 weights in place of 7·7·3·64, and 10 classes of 512 + 1 in place of 1000.
    expected = 11_689_512 + 1_728 - 9_408 - 990 * 513
    assert size(made["params"]) == expected == 11_173_962
    sizes = [made["intermediates"][f"stage{stage}"][0].shape[1] for stage in (1, 2, 3, 4)]
    assert sizes == [32, 16, 8, 4]


def test_the_first_convolution_and_the_classifier_are_float_unless_told(marked):
    def kernels(**options):
        params = shapes(ResNet(7, **SMALL["groups"], **options), TINY)["params"]
        first, last = params.pop("conv1"), params.pop("fc")
        inner = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        return set(first), {name for name in inner if name.endswith("kernel")}, set(last)

    own, plain, biased = {"own_kernel"}, {"kernel"}, {"kernel", "bias"}
    other = marked("own_kernel")
    assert kernels(arithmetic=other) == (plain, own, biased)
    assert kernels(first=other, classifier=other) == (own, plain, {"own_kernel", "bias"})


def test_remat_changes_no_parameter():
    networks = [
        ResNet(7, stage_sizes=(1, 1), bottleneck=False, features=8, remat=on)
        for on in (False, True)
    ]
    plain, made = (shapes(network, TINY) for network in networks)
    chex.assert_trees_all_equal(plain, made)

    def total(params, stats, images):
        variables = {"params": params, "batch_stats": stats}
        return networks[1].apply(variables, images, train=True, mutable=["batch_stats"])[0].sum()

    program = jax.make_jaxpr(jax.grad(total))(made["params"], made["batch_stats"], TINY)
    assert sum(equation.primitive.name == "remat2" for equation in program.eqns) == 2


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER], ids=["float", "adder"])
@pytest.mark.parametrize("kind", ["basic", "groups"])
def test_a_step_reaches_every_parameter(kind, arithmetic, assert_a_step_moves_everything):
    network = ResNet(4, arithmetic, **SMALL[kind] | {"stage_sizes": (1, 1)})
    assert_a_step_moves_everything(network, (4, 16, 16, 1))


class TorchBlock(nn.Module):
    """Torchvision's BasicBlock or Bottleneck."""

    def __init__(self, inputs, features, width, groups, stride, bottleneck, conv):
        super().__init__()
        outputs = 4 * features if bottleneck else features
        kinds = [
            (inputs, width, 1, 1, 1),
            (width, width, 3, stride, groups),
            (width, outputs, 1, 1, 1),
        ]
        if not bottleneck:
            kinds = [(inputs, features, 3, stride, 1), (features, features, 3, 1, 1)]
        for number, (size_in, size_out, window, step, parts) in enumerate(kinds, start=1):
            options = {"groups": parts} if parts > 1 else {}
            layer = conv(size_in, size_out, window, step, window // 2, **options)
            setattr(self, f"conv{number}", layer)
            setattr(self, f"bn{number}", nn.BatchNorm2d(size_out))
        self.count = len(kinds)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = conv(inputs, outputs, 1, stride)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = torch.relu(y) if number < self.count else y
        return torch.relu(y + self.downsample(x))


class TorchResNet(nn.Module):
    """Torchvision's or AdderNet's ResNet of a model's options, by the names of its state dict."""

    def __init__(self, model, adder2d=None):
        super().__init__()
        features, growth = model.features, 4 if model.bottleneck else 1
        self.conv1 = nn.Conv2d(3, features, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, stages = features, []
        conv = adder2d or functools.partial(nn.Conv2d, bias=False)
        for stage, blocks in enumerate(model.stage_sizes):
            channels = features * 2**stage
            width = int(channels * model.width_per_group / 64) * model.groups
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                kind = model.groups, stride, model.bottleneck, conv
                layers.append(TorchBlock(inputs, channels, width, *kind))
                inputs = channels * growth
            stages.append(f"layer{stage + 1}")
            setattr(self, stages[-1], nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, model.classes)
        if adder2d:
            self.fc, self.bn2 = nn.Conv2d(inputs, model.classes, 1), nn.BatchNorm2d(model.classes)
        self.stages = stages

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        if isinstance(self.fc, nn.Conv2d):
            return self.bn2(self.fc(x.mean((2, 3), keepdim=True))).flatten(1)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    "kind", ["basic", pytest.param("bottleneck", marks=pytest.mark.slow), "groups"]
)
def test_torchvision_weights_give_its_logits(kind, randomised, assert_borrowed_logits):
    model = ResNet(5, **SMALL[kind])
    images = np.random.default_rng(0).normal(size=(2, 37, 32, 3)).astype(np.float32)
    theirs = randomised(TorchResNet(model))
    borrowed = assert_borrowed_logits(model, torch_names(model), theirs, images)
    # Nothing in the table but what the model has.
    paths = flatten_dict(borrowed["params"])
    assert set(torch_names(model)) == {
        "/".join(path[:-1]).removesuffix("/Conv_0") for path in paths
    }


def test_weights_of_addernets_code_give_its_logits(adder2d, normalised, assert_borrowed_logits):
    options: Any = SMALL["bottleneck"] | {"stage_sizes": (1, 1)}
    model = ResNet(5, ADDER, normalize_logits=True, **options)
    images = np.random.default_rng(0).normal(size=(3, 17, 16, 3)).astype(np.float32)
    theirs = normalised(TorchResNet(model, adder2d), images)
    borrowed = assert_borrowed_logits(model, torch_names(model), theirs, images)
    # Torchvision's, a BatchNorm of the classes more
    assert (
        size(borrowed["params"]) == size(shapes(ResNet(5, ADDER, **options), TINY)["params"]) + 10
    )


@pytest.mark.parametrize(
    "options",
    [
        *({"stage_sizes": sizes} for sizes in ((), (2, 0))),
        {"stem": "small"},
        {"groups": 0},
        {"width_per_group": 0},
        {"bottleneck": False, "groups": 2},
    ],
)
def test_bad_options(options):
    with pytest.raises(InputError):
        shapes(ResNet(**options))
