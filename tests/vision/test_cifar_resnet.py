"""ResNets for CIFAR: their sizes as of AdderNet's code and as published, and their blocks."""

import dataclasses
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
from torch.nn import functional

from nnlab import kernels
from nnlab.arithmetics import (
    ADDER,
    ADDER_SR,
    FLOAT,
)
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.files import borrow, lend
from nnlab.models import (
    CifarResNet,
    he_resnet20,
    resnet18,
    resnet20,
)
from nnlab.training import cross_entropy
from nnlab.vision.cifar_resnet import ConvolutionShortcuts, torch_names

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def variables(network):
    return jax.eval_shape(network.init, jax.random.key(0), IMAGE)


@pytest.mark.slow
def test_multiply_adds_as_published():
    """Zeros and every second pixel cost nothing."""
    options: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER}
    products, distances = (
        count(network.apply, variables(network), IMAGE).multiplications["float32"]
        for network in (he_resnet20(), he_resnet20(**options))
    )
    # 32² · 27 · 16 + 6 · 32² · 144 · 16; 16² · 32 (144 + 5 · 288); 8² · 64 (288 + 5 · 576); 640
    terms = 442_368 + 14_155_776 + 12_976_128 + 12_976_128 + 640
    assert products - distances == terms == 40_551_040


@pytest.mark.slow
def test_parameters_of_the_variants():
    for model, parameters in (
        (resnet20(100), 278_424),
        (CifarResNet(20, projection=True, normalize_logits=False), 272_474),  # option B
        (CifarResNet(8, projection=True, normalize_logits=False), 78_042),
        (CifarResNet(8, arithmetic=ADDER, remat=True), 78_052),
    ):
        leaves = jax.tree.leaves(variables(model)["params"])
        assert sum(leaf.size for leaf in leaves) == parameters


def test_shortcuts_are_projected_where_the_shape_changes_only(marked):
    params = variables(resnet20(arithmetic=marked("own_kernel")))["params"]
    assert sum(name.startswith("BasicBlock") for name in params) == 9
    projections = {
        name: block["ProductConv_2"]["own_kernel"].shape
        for name, block in params.items()
        if "ProductConv_2" in block
    }
    assert projections == {"BasicBlock_3": (1, 1, 16, 32), "BasicBlock_6": (1, 1, 32, 64)}


def loss_and_gradients(network, variables, images):
    def loss(params):
        logits, updates = network.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return cross_entropy(logits, jnp.arange(len(images))), (logits, updates)

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


@pytest.mark.slow
def test_computing_blocks_again_changes_nothing_but_memory(quick_jit):
    plain, remat = (CifarResNet(8, arithmetic=ADDER, remat=on) for on in (False, True))
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
    initial = [jax.jit(network.init)(jax.random.key(0), images) for network in (plain, remat)]
    chex.assert_trees_all_equal(*initial)

    # The same operations on the same numbers.
    results = [
        quick_jit(functools.partial(loss_and_gradients, network))(initial[0], images)
        for network in (plain, remat)
    ]
    chex.assert_trees_all_equal(*results)


@pytest.mark.parametrize(
    "shortcuts", ["block", pytest.param("convolution", marks=pytest.mark.slow)]
)
def test_as_many_blocks_are_computed_again(shortcuts):
    network = CifarResNet(8, shortcuts=shortcuts, remat=True)
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)

    def total(params, stats, images):
        inputs = {"params": params, "batch_stats": stats}
        return network.apply(inputs, images, train=True, mutable=["batch_stats"])[0].sum()

    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    program = jax.make_jaxpr(jax.grad(total))(shapes["params"], shapes["batch_stats"], images)
    assert sum(equation.primitive.name == "remat2" for equation in program.eqns) == 3


@pytest.mark.slow
def test_with_blocks_computed_again_little_is_kept_for_the_gradient():
    """Bytes between the two passes; what a compiler makes of them is its own."""

    def kept(network, batch):
        def residuals(variables, images):
            def logits(params):
                inputs = variables | {"params": params}
                return network.apply(inputs, images, train=True, mutable=["batch_stats"])[0]

            return jax.vjp(logits, variables["params"])[1]

        images = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
        leaves = jax.tree.leaves(jax.eval_shape(residuals, variables(network), images))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    plain, remat = (
        kept(network, 2) - kept(network, 1)  # weights are kept as well, of any batch
        for network in (resnet20(arithmetic=ADDER), resnet20(arithmetic=ADDER, remat=True))
    )
    # Of 16 · 32 · 32 numbers each, or their half or quarter: what goes into the nine blocks, 4 + 3
    # halves + 2 quarters, and 3 more of the first layer and its activation.
    assert remat < 10 * 4 * 16 * 32 * 32 < 40 * 4 * 16 * 32 * 32 < plain


def test_shortcuts_of_convolutions(marked):
    arithmetic = dataclasses.replace(marked("own_kernel"), activation=ADDER_SR.activation)
    network = resnet20(arithmetic=arithmetic, shortcuts="convolution")
    params = variables(network)["params"]
    blocks = {name: block for name, block in params.items() if name.startswith("Convolution")}
    assert len(blocks) == 9 and not any(name.startswith("BasicBlock") for name in params)
    projections = {
        name: block["Conv_0"]["kernel"].shape for name, block in blocks.items() if "Conv_0" in block
    }
    names = "ConvolutionShortcuts_3", "ConvolutionShortcuts_6"  # float, as is the first layer
    assert projections == dict(zip(names, [(1, 1, 16, 32), (1, 1, 32, 64)], strict=True))
    # As many parameters as with shortcuts of blocks, and an exponent for each of 19 activations.
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 272_484 + 19


def test_a_convolution_of_no_effect_leaves_what_went_in(quick_jit):
    """Adder, normalisation, shortcut, ReLU, power; with scales of 0 only the shortcut is left."""
    block = ConvolutionShortcuts(4, 2, ADDER_SR, FLOAT, None, None)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda k: block.init(k, x, False), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes["params"])
    stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes["batch_stats"])
    stats["BatchNorm_1"]["mean"] = np.zeros(4, np.float32)
    kernel = rng.normal(size=(1, 1, 3, 4)).astype(np.float32)
    params["Conv_0"]["kernel"] = kernel
    params["BatchNorm_1"]["scale"] = np.ones(4, np.float32)  # of the projection
    params["PowerActivation_0"]["alpha"] = np.float32(2)
    params["PowerActivation_1"]["alpha"] = np.float32(0.5)

    apply = quick_jit(functools.partial(block.apply, train=False))
    y = apply({"params": params, "batch_stats": stats}, x)
    pixels = np.pad(np.float64(x), ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=np.nan)
    means = np.nanmean(pixels.reshape(2, 3, 2, 3, 2, 3), axis=(2, 4))  # the last column's are two
    projected = np.maximum(means @ np.float64(kernel[0, 0]) / np.sqrt(1 + 1e-5), 0)
    # Powers of 2 and 1/2, one after the other, are nothing; numbers near 0 lose in the first.
    np.testing.assert_allclose(y, projected, rtol=0, atol=1e-5)


def test_intermediates(assert_intermediates):
    expected = {
        "stage1": (1, 32, 32, 16),
        "stage2": (1, 16, 16, 32),
        "stage3": (1, 8, 8, 64),
        "features": (1, 64),
    }
    model = CifarResNet(8, 7, projection=False, normalize_logits=False)
    assert_intermediates(model, (1, 32, 32, 3), expected)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER])
def test_a_step_of_option_a_reaches_every_parameter(arithmetic, assert_a_step_moves_everything):
    network = CifarResNet(8, 4, arithmetic, projection=False, normalize_logits=False)
    assert_a_step_moves_everything(network, (4, 5, 4, 1))


class Padded(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.channels, self.channels))


class TorchBlock(nn.Module):
    """A block of published code, whose shortcut has the name `shortcut`."""

    def __init__(self, inputs, features, stride, conv, shortcut, projection):
        super().__init__()
        self.conv1 = conv(inputs, features, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = conv(features, features, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(features)
        beside = nn.Sequential()
        if inputs != features and projection:
            beside = nn.Sequential(conv(inputs, features, 1, stride), nn.BatchNorm2d(features))
        elif inputs != features:
            beside = Padded(features // 4)
        setattr(self, shortcut, beside)
        self.shortcut_name = shortcut

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + getattr(self, self.shortcut_name)(x))


class TorchResNet(nn.Module):
    """A network of published code, by the names of its state dict.

    Idelbayev's pytorch_resnet_cifar10, Chen's pytorch-cifar-models, or AdderNet's with `adder2d`.
    """

    def __init__(self, depth, projection, code="Idelbayev", adder2d=None, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        conv = adder2d or functools.partial(nn.Conv2d, bias=False)
        inputs, stages = 16, []
        for features in (16, 32, 64):
            blocks = []
            for _ in range((depth - 2) // 6):
                stride = 1 if inputs == features else 2
                shortcut = "shortcut" if code == "Idelbayev" else "downsample"
                blocks.append(TorchBlock(inputs, features, stride, conv, shortcut, projection))
                inputs = features
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.last = ["linear" if code == "Idelbayev" else "fc"]
        setattr(self, self.last[0], nn.Linear(64, classes))
        if adder2d:
            self.last = ["fc", "bn2"]
            self.fc, self.bn2 = nn.Conv2d(64, classes, 1, bias=False), nn.BatchNorm2d(classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        for name in self.last:
            layer = getattr(self, name)
            x = layer(x) if isinstance(layer, nn.Linear) else layer(x.view(len(x), -1, 1, 1))
        return x.flatten(1)


@pytest.mark.parametrize(
    ("code", "projection", "depth"), [("Idelbayev", False, 8), ("Chen", True, 14)]
)
def test_pytorch_weights_give_its_logits(
    code, projection, depth, randomised, assert_borrowed_logits
):
    model = CifarResNet(depth, projection=projection, normalize_logits=False)
    images = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    theirs = randomised(TorchResNet(depth, projection, code))
    names = torch_names(model, "idelbayev" if code == "Idelbayev" else "torchvision")
    borrowed = assert_borrowed_logits(model, names, theirs, images)
    # Nothing in the table but what the model has.
    paths = flatten_dict(borrowed["params"])
    assert set(names) == {"/".join(path[:-1]) for path in paths}
    if projection:  # which Idelbayev calls otherwise
        assert torch_names(model)["BasicBlock_2/Conv_2"] == "layer2.0.shortcut.0"


def test_weights_of_addernets_code_give_its_logits(adder2d, normalised, assert_borrowed_logits):
    images = np.random.default_rng(0).normal(size=(3, 9, 8, 3)).astype(np.float32)
    theirs = normalised(TorchResNet(8, True, "AdderNet", adder2d), images)
    model = CifarResNet(8, arithmetic=ADDER)
    borrowed = assert_borrowed_logits(model, torch_names(model), theirs, images)
    assert "adder_kernel" in borrowed["params"]["BasicBlock_2"]["AdderConv_2"]  # the downsample


def test_a_cnn_starts_its_addernet():
    cnn, adder = CifarResNet(8), CifarResNet(8, arithmetic=ADDER, classifier=ADDER)
    with kernels.use("cpu"):
        cnn_shapes, shapes = variables(cnn), variables(adder)
    trained = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5), cnn_shapes)
    state_dict = lend(trained, torch_names(cnn))
    started = borrow(shapes, state_dict, torch_names(adder), start=True)
    assert {float(leaf.min()) for leaf in jax.tree.leaves(started)} == {0.5}


@pytest.mark.parametrize(
    "options",
    [
        *({"depth": depth} for depth in (0, 2, 7, 21)),
        {"depth": 8, "shortcuts": "none"},
        {"depth": 8, "shortcuts": "convolution", "projection": False},
    ],
)
def test_bad_options(options):
    with pytest.raises(InputError):
        variables(CifarResNet(**options))


def test_there_are_no_pytorch_names_of_other_networks():
    by_convolution = CifarResNet(8, shortcuts="convolution")
    others: Any = (by_convolution, None), (resnet20(), "Chen"), (resnet18(), None)
    for model, like in others:
        with pytest.raises(InputError) as error:
            torch_names(model, like)
    assert "CifarResNet, not of a ResNet" in str(error.value)
