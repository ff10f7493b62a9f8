"""GoogLeNet: its sizes, its heads, and PyTorch's logits with PyTorch's weights."""

import functools
from collections import OrderedDict
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from nnlab.analysis import count
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.models import GoogLeNet, googlenet_v1
from nnlab.models.borrowing import Flattened, borrow
from nnlab.models.googlenet import AuxiliaryHead, torch_names
from nnlab.models.inception import InceptionCell, Outputs, Unit
from nnlab.training import State, train_step, with_auxiliary

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
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def variables(model: Any, images: Any = IMAGE) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), images)


@functools.cache
def full_size(model: Any, arithmetic: Any, auxiliary: bool) -> Any:
    """A network of one arithmetic, and the shapes of its variables."""
    options = {"arithmetic": arithmetic, "first": arithmetic, "classifier": arithmetic}
    network = model(**options, auxiliary=auxiliary)
    return network, variables(network)


@pytest.mark.parametrize(
    ("model", "alone", "with_heads"),
    [(GoogLeNet, 6_624_904, 13_004_888), (googlenet_v1, 6_998_552, 13_378_280)],
)
def test_parameters(model, alone, with_heads):
    for arithmetic, auxiliary, expected in ((FLOAT, True, with_heads), (ADDER, False, alone)):
        _, shapes = full_size(model, arithmetic, auxiliary)
        leaves = jax.tree.leaves(shapes["params"])
        assert sum(leaf.size for leaf in leaves) == expected


def test_normalisation_takes_the_place_of_biases():
    # 7,280 filters, each with a scale and an offset in place of a bias.
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(variables(googlenet_v1(norm=norm))["params"]))
        for norm in (False, True)
    ]
    assert sizes[1] - sizes[0] == 7_280


def test_multiply_adds():
    # Pixels times weights of the three convolutions and of every cell, and of the classifier.
    one = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    products, distances = (
        count(network.apply, shapes, one).multiplications["float32"]
        for network, shapes in (full_size(GoogLeNet, *o) for o in ((FLOAT, True), (ADDER, False)))
    )
    stem = 112**2 * 64 * 147 + 56**2 * (64 * 64 + 192 * 576)
    cells, inputs = 0, 192
    for pixels, (a, b, c, d, e, f) in WIDTHS:
        weights = inputs * (a + b + d + f) + 9 * (b * c + d * e)
        cells, inputs = cells + pixels**2 * weights, a + c + e + f
    assert products - distances == stem + cells + 1_024_000 == 1_498_376_192


@pytest.mark.parametrize("model", [GoogLeNet, googlenet_v1])
def test_intermediates_and_shapes(model):
    network, shapes = full_size(model, FLOAT, True)
    apply = functools.partial(network.apply, mutable=["intermediates", "batch_stats"])
    logits, updates = jax.eval_shape(apply, shapes, IMAGE)
    assert logits.shape == (2, 1000) and logits.dtype == jnp.float32
    named = {k: v[0].shape for k, v in updates["intermediates"].items()}
    assert named == {
        "stage1": (2, 112, 112, 64),
        "stage2": (2, 56, 56, 192),
        "stage3": (2, 28, 28, 480),
        "stage4": (2, 14, 14, 832),
        "stage5": (2, 7, 7, 1024),
        "features": (2, 1024),
    }


def test_a_training_call_gives_the_heads_logits_too():
    network = GoogLeNet(auxiliary=True, dtype=jnp.bfloat16)
    _, shapes = full_size(GoogLeNet, FLOAT, True)
    rngs = {"dropout": jax.random.key(1)}
    apply = functools.partial(network.apply, train=True, mutable=["batch_stats"], rngs=rngs)
    out, updates = jax.eval_shape(apply, shapes, IMAGE)
    assert isinstance(out, Outputs) and len(out.auxiliary) == 2
    for logits in (out.logits, *out.auxiliary):
        assert logits.shape == (2, 1000) and logits.dtype == jnp.float32
    assert {"aux1", "aux2"} < updates["batch_stats"].keys()

    plain = GoogLeNet(classes=7)
    apply = functools.partial(plain.apply, train=True, mutable=["batch_stats"], rngs=rngs)
    logits, updates = jax.eval_shape(apply, variables(plain), IMAGE)
    assert logits.shape == (2, 7) and "aux1" not in updates["batch_stats"]


def test_an_adder_classifier_can_be_normalised_within_the_heads():
    network = GoogLeNet(4, classifier=ADDER, auxiliary=True, norm_hidden=True)
    params = variables(network)["params"]
    for layers in (params["aux1"], params["aux2"]):
        assert layers.keys() == {"conv", "fc1", "bn1", "fc2"}
        assert layers["fc1"]["adder_kernel"].shape == (2048, 1024)
        assert layers["bn1"]["scale"].shape == (1024,)
    assert params["fc"]["adder_kernel"].shape == (1024, 4)


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Parameters and statistics: kernels of He's size, the rest around 1, biases around 0.

    Normalisation takes away a shift of its inputs: only where some units are off do biases matter.
    """
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        if path[-1].key == "adder_kernel":  # as published; with smaller ones all filters are alike
            return jnp.asarray(rng.normal(size=shape.shape), jnp.float32)
        if path[-1].key == "kernel":
            fan_in = np.prod(shape.shape[:-1])
            return jnp.asarray(rng.normal(size=shape.shape) * np.sqrt(2 / fan_in), jnp.float32)
        shift = 1.0 if path[-1].key == "bias" else 0.0
        return jnp.asarray(rng.uniform(0.5, 1.5, shape.shape) - shift, jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def one_step(network, images, labels):
    """Parameters before and after a step of gradient descent by the loss of three terms."""
    optimizer = optax.sgd(0.1)
    fresh = drawn(variables(network, images))
    params, stats = fresh["params"], fresh["batch_stats"]
    state = State(jnp.int32(0), params, stats, optimizer.init(params), jax.random.key(0))
    step = train_step(network, optimizer, with_auxiliary(), logits=lambda out: out.logits)
    after, metrics = jax.jit(step, compiler_options=QUICK)(state, (images, labels))
    assert np.isfinite(metrics["loss"]) and metrics["nonfinite"] == -1
    return params, after.params


def assert_moved(before, after):
    leaves = jax.tree_util.tree_leaves_with_path(before)
    for (path, old), new in zip(leaves, jax.tree.leaves(after), strict=True):
        assert (old != new).any(), path


class Headed(nn.Module):
    """A cell with a head of its own and a classifier."""

    arithmetic: Any

    @nn.compact
    def __call__(self, x, train=False):
        x = InceptionCell(((Unit("one", 8),), (Unit("three", 4, 3),)), self.arithmetic)(x, train)
        options = (4, self.arithmetic, FLOAT, True, False, 0.7, None, None)
        head = AuxiliaryHead(*options, name="aux1")(x, train)
        return Outputs(nn.Dense(4)(x.mean(axis=(1, 2))), (head,))


@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER], ids=["float", "adder"])
def test_the_loss_of_a_head_reaches_all_its_parameters(arithmetic):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 5, 2)), jnp.float32)
    before, after = one_step(Headed(arithmetic), images, jnp.arange(4))
    assert_moved(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER], ids=["float", "adder"])
def test_a_step_moves_every_parameter(arithmetic):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
    network = GoogLeNet(4, arithmetic, auxiliary=True)
    before, after = one_step(network, images, jnp.arange(4))
    assert_moved(before, after)


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
    """Of plain layers; gives the logits and those of both heads, without dropout."""

    def __init__(self, classes, original):
        super().__init__()
        norm = not original
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
        return self.fc(x.mean((2, 3))), *heads


def randomised(network):
    """In evaluation mode, with everything drawn: kernels of He's size, the rest around 1 or 0."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            for name, array in module.state_dict().items():
                if name in ("weight", "running_var"):
                    array.uniform_(0.5, 1.5)
                elif name in ("bias", "running_mean"):
                    array.uniform_(-0.5, 0.5)
    return network.eval()


def lent(theirs, ours, images):
    """The variables here, of the state dict there."""
    state = {name: array.numpy() for name, array in theirs.state_dict().items()}
    return borrow(variables(ours, images), state, torch_names(ours))


IMAGES = np.random.default_rng(0).normal(size=(2, 64, 48, 3)).astype(np.float32)


def torch_outputs(network, images):
    with torch.no_grad():
        outputs = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    return [logits.numpy() for logits in outputs]


def test_logits_are_those_of_pytorch():
    theirs, ours = randomised(TorchGoogLeNet(5, False)), GoogLeNet(5, auxiliary=True)
    borrowed = lent(theirs, ours, IMAGES)
    logits: Any = jax.jit(ours.apply, compiler_options=QUICK)(borrowed, IMAGES)
    expected, *_ = torch_outputs(theirs, IMAGES)
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)

    head: Any = AuxiliaryHead(5, FLOAT, FLOAT, True, False, 0.7, None, None)
    x = np.random.default_rng(1).normal(size=(2, 5, 3, 512)).astype(np.float32)
    of_head = {kind: tree["aux1"] for kind, tree in borrowed.items()}
    (expected,) = torch_outputs(lambda x: [theirs.aux1(x)], x)
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    logits = head.apply(of_head, x, False)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_logits_of_the_original_and_of_its_heads_are_those_of_pytorch():
    theirs = randomised(TorchGoogLeNet(5, True))
    ours = googlenet_v1(5, auxiliary=True, dropout=0.0, auxiliary_dropout=0.0)
    borrowed = lent(theirs, ours, IMAGES)
    apply = jax.jit(functools.partial(ours.apply, train=True), compiler_options=QUICK)
    out: Any = apply(borrowed, IMAGES)
    for ours, expected in zip(
        (out.logits, *out.auxiliary), torch_outputs(theirs, IMAGES), strict=True
    ):
        assert np.abs(expected[0] - expected[1]).max() > 0.1
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


def test_names_are_those_of_torchvision():
    names = torch_names(GoogLeNet(auxiliary=True))
    assert names["inception4b/reduce5x5/conv"] == "inception4b.branch3.0.conv"
    assert names["aux1/fc1"] == Flattened("aux1.fc1", 128, 4, 4)
    heads = [name for name in names if name.startswith("aux")]
    assert names.keys() - heads == torch_names(GoogLeNet()).keys()


def test_dropout_rates_are_checked():
    with pytest.raises(InputError, match=r"^dropout must be from 0 to below 1, not 1\.0\."):
        variables(GoogLeNet(dropout=1.0))
    with pytest.raises(InputError, match=r"^auxiliary_dropout must be from .* not -0\.1\."):
        variables(GoogLeNet(auxiliary_dropout=-0.1))
