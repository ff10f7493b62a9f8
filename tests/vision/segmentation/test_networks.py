"""SegNet, FCN and U-Net: published counts, and the outputs of the same networks in PyTorch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.vision.segmentation.fcn import FCN, enlarge, fcn8, fcn16, fcn32
from nnlab.vision.segmentation.segnet import SegNet, SegNetBasic
from nnlab.vision.segmentation.unet import UNet


def _shapes(model, *shape):
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)


PAPER: Any = {"padded": False, "norm": False}


def _slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("model", "shape", "parameters", "result"),
    [
        _slow(SegNet(11), (360, 480, 3), 29_449_355, (360, 480, 11)),
        _slow(SegNet(12), (45, 61, 3), 29_449_932, (45, 61, 12)),
        _slow(SegNetBasic(11), (360, 480, 3), 1_416_587, (360, 480, 11)),
        _slow(fcn32(), (65, 100, 3), 134_346_581, (65, 100, 21)),
        _slow(fcn16(), (65, 100, 3), 134_357_354, (65, 100, 21)),
        _slow(fcn8(), (33, 500, 3), 134_362_751, (33, 500, 21)),
        _slow(UNet(2, **PAPER), (572, 572, 1), 31_030_658, (388, 388, 2)),
        _slow(UNet(12, norm=False), (368, 480, 3), 31_032_460, (368, 480, 12)),
        _slow(UNet(2), (50, 67, 3), 31_037_698, (50, 67, 2)),
        _slow(UNet(2, bilinear=True), (64, 64, 3), 17_263_042, (64, 64, 2)),
        (UNet(2, features=16), (64, 64, 3), 1_942_594, (64, 64, 2)),
    ],
)
def test_parameters_and_sizes(model, shape, parameters, result):
    out, variables = _shapes(model, *shape)
    assert out.shape == (1, *result) and out.dtype == jnp.float32
    leaves = jax.tree.leaves(variables["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters


def _block(inputs, width, taps=3, bias=True, relu=True):
    layers = [nn.Conv2d(inputs, width, taps, padding=taps // 2, bias=bias), nn.BatchNorm2d(width)]
    return [*layers, nn.ReLU()] if relu else layers


class TorchSegNet(nn.Module):
    def __init__(self, classes, widths):
        super().__init__()
        counts, inputs = (2, 2, 3, 3, 3), 3
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for count, width in zip(counts, widths, strict=True):
            layers = []
            for _ in range(count):
                layers += _block(inputs, width)
                inputs = width
            self.encoder.append(nn.Sequential(*layers))
        for stage in range(4, -1, -1):
            layers, below = [], widths[max(stage - 1, 0)]
            for layer in range(counts[stage] - 1, -1, -1):
                if stage == layer == 0:
                    layers.append(nn.Conv2d(inputs, classes, 3, padding=1))
                    break
                width = widths[stage] if layer else below
                layers += _block(inputs, width)
                inputs = width
            self.decoder.append(nn.Sequential(*layers))

    def forward(self, x):
        places = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, indices = nn.functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            places.append((indices, size))
        for stage, (indices, size) in zip(self.decoder, reversed(places), strict=True):
            x = stage(nn.functional.max_unpool2d(x, indices, [2, 2], output_size=size))
        return x


class TorchBasic(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.norm = nn.LocalResponseNorm(5, 1e-4, 0.75, 1)
        self.encoder = nn.ModuleList(
            nn.Sequential(*_block(3 if stage == 0 else width, width, 7)) for stage in range(4)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(*_block(width, width, 7, relu=False)) for _ in range(4)
        )
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        x, places = self.norm(x), []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, indices = nn.functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            places.append((indices, size))
        for stage, (indices, size) in zip(self.decoder, reversed(places), strict=True):
            x = stage(nn.functional.max_unpool2d(x, indices, [2, 2], output_size=size))
        return self.last(x)


class TorchUNet(nn.Module):
    """The paper's network, or milesial's with BatchNorm, by their rules."""

    def __init__(self, classes, width, levels, padded, norm, bilinear=False):
        super().__init__()
        self.padded, self.bilinear = padded, bilinear

        def double(inputs, features, middle=None):
            layers = []
            for out in (middle or features, features):
                layers.append(nn.Conv2d(inputs, out, 3, padding=int(padded), bias=not norm))
                layers += [nn.BatchNorm2d(out)] if norm else []
                layers.append(nn.ReLU())
                inputs = out
            return nn.Sequential(*layers)

        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = 3
        for level in range(levels + 1):
            features = width * 2**level // (2 if bilinear and level == levels else 1)
            self.down.append(double(inputs, features))
            inputs = features
        for level in reversed(range(levels)):
            features = width * 2**level
            if bilinear:
                narrow = features // 2 if level else features
                self.join.append(double(2 * features, narrow, features))
                inputs = narrow
            else:
                self.up.append(nn.ConvTranspose2d(inputs, features, 2, 2))
                self.join.append(double(2 * features, features))
                inputs = features
        self.last = nn.Conv2d(inputs, classes, 1)

    def forward(self, x):
        across = []
        for number, level in enumerate(self.down):
            x = level(x if number == 0 else nn.functional.max_pool2d(x, 2))
            across.append(x)
        for number, join in enumerate(self.join):
            skip = across[-2 - number]
            if self.bilinear:
                x = nn.functional.interpolate(
                    x, scale_factor=2, mode="bilinear", align_corners=True
                )
            else:
                x = self.up[number](x)
            down, right = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            if self.padded:
                sides = (right // 2, right - right // 2, down // 2, down - down // 2)
                x = nn.functional.pad(x, sides)
            else:
                top, left = down // 2, right // 2
                skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = join(torch.cat([skip, x], 1))
        return self.last(x)


class TorchFCN(nn.Module):
    def __init__(self, classes, stride, widths, hidden):
        super().__init__()
        self.stride, inputs = stride, 3
        self.stages = nn.ModuleList()
        for stage, (count, width) in enumerate(zip((2, 2, 3, 3, 3), widths, strict=True)):
            layers = []
            for layer in range(count):
                padding = 100 if stage == layer == 0 else 1
                layers += [nn.Conv2d(inputs, width, 3, padding=padding), nn.ReLU()]
                inputs = width
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
        self.head = nn.Sequential(
            *(nn.Conv2d(inputs, hidden, 7), nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.ReLU()),
            nn.Conv2d(hidden, classes, 1),
        )
        self.skips = nn.ModuleList(nn.Conv2d(widths[i], classes, 1) for i in (3, 2))

    def forward(self, x):
        size, pooled = x.shape[2:], []
        for stage in self.stages:
            x = stage(x)
            pooled.append(x)
        x = self.head(x)
        for skip, level, crop in zip(self.skips, (3, 2), (5, 9), strict=True):
            if self.stride <= 2 ** (level + 1):
                x = self._enlarge(x, 2)
                there = skip(pooled[level])
                x = x + there[:, :, crop : crop + x.shape[2], crop : crop + x.shape[3]]
        x, crop = self._enlarge(x, self.stride), {32: 19, 16: 27, 8: 31}[self.stride]
        return x[:, :, crop : crop + size[0], crop : crop + size[1]]

    @staticmethod
    def _enlarge(x, stride):
        taps, channels = 2 * stride, x.shape[1]
        line = 1 - (torch.arange(taps) - (stride - 0.5)).abs() / stride
        kernel = torch.outer(line, line).expand(channels, 1, taps, taps)
        return nn.functional.conv_transpose2d(x, kernel, stride=stride, groups=channels)


SMALL = (3, 4, 5, 6, 5)
UNET: Any = {"features": 4, "levels": 2}


@pytest.mark.parametrize(
    ("model", "network", "size"),
    [
        (SegNet(4, widths=SMALL), lambda: TorchSegNet(4, SMALL), (45, 34)),
        (SegNetBasic(4, width=6), lambda: TorchBasic(4, 6), (23, 34)),
        (FCN(4, 8, widths=SMALL, hidden=7), lambda: TorchFCN(4, 8, SMALL, 7), (33, 50)),
        (FCN(4, 32, widths=SMALL, hidden=7), lambda: TorchFCN(4, 32, SMALL, 7), (33, 50)),
        (UNet(3, **UNET), lambda: TorchUNet(3, 4, 2, True, True), (21, 30)),
        (UNet(3, **UNET, **PAPER), lambda: TorchUNet(3, 4, 2, False, False), (44, 53)),
        (
            UNet(3, **UNET, bilinear=True),
            lambda: TorchUNet(3, 4, 2, True, True, True),
            (21, 30),
        ),
    ],
    ids=["segnet", "basic", "fcn8", "fcn32", "unet", "paper", "bilinear"],
)
@pytest.mark.slow
def test_outputs_are_those_of_pytorch(model, network, size, randomised):
    """Arrays are told apart by where they come in the computation, which both record."""
    network = randomised(network())
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    order = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda module, *_: order.append(module))
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    names = []

    def record(next_function, args, kwargs, context):
        if (
            context.method_name == "__call__"
            and context.module.variables
            and not any(
                isinstance(value, dict)
                for value in context.module.variables.get("params", {}).values()
            )
        ):
            names.append(context.module.path)
        return next_function(*args, **kwargs)

    import flax.linen

    variables = jax.jit(model.init)(jax.random.key(0), images)
    with flax.linen.intercept_methods(record):
        jax.eval_shape(lambda x: model.apply(variables, x), images)
    assert len(names) == len(order)
    filled: Any = {"params": {}, "batch_stats": {}}
    for path, module in zip(names, order, strict=True):
        own = {name: p.detach().numpy() for name, p in module.state_dict().items()}
        if isinstance(module, nn.BatchNorm2d):
            _put(filled["params"], path, {"scale": own["weight"], "bias": own["bias"]})
            statistics = {"mean": own["running_mean"], "var": own["running_var"]}
            _put(filled["batch_stats"], path, statistics)
            continue
        kernel = own["weight"].transpose(2, 3, 1, 0)
        if isinstance(module, nn.ConvTranspose2d):  # laid on flipped there
            kernel = own["weight"].transpose(2, 3, 0, 1)[::-1, ::-1]
        bias = {"bias": own["bias"]} if "bias" in own else {}
        _put(filled["params"], path, {"kernel": kernel, **bias})
    filled = {name: tree for name, tree in filled.items() if name in variables}
    assert jax.tree.structure(filled) == jax.tree.structure(variables)
    found = jax.jit(model.apply)(filled, images)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-4, atol=2e-4)


def _put(tree, path, arrays):
    for name in path:
        tree = tree.setdefault(name, {})
    tree.update(arrays)


def test_enlarging_is_the_published_kernel():
    dot = jnp.ones((1, 1, 1, 1))
    line = [0.25, 0.75, 0.75, 0.25]
    np.testing.assert_allclose(enlarge(dot, 2)[0, ..., 0], np.outer(line, line))
    odd = [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]
    np.testing.assert_allclose(enlarge(dot, 3)[0, ..., 0], np.outer(odd, odd), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [SegNet(4), SegNetBasic(4), FCN(4, norm=True), UNet(4, norm_up=True)],
    ids=["segnet", "basic", "fcn", "unet"],
)
def test_every_arithmetic(model):
    every: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER}
    out, variables = _shapes(model.clone(**every), 40, 48, 3)
    assert out.shape == (1, 40, 48, 4)
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    kinds = {path[-1].key for path, _ in leaves}
    assert "adder_kernel" in kinds and "kernel" not in kinds


def test_bad_input():
    with pytest.raises(InputError, match="stride must be 32, 16 or 8, not 4"):
        _shapes(FCN(4, 4), 32, 32, 3)
    with pytest.raises(InputError, match="expected at least 16 for 4 levels"):
        _shapes(UNet(), 15, 32, 3)
    with pytest.raises(InputError, match="expected at least 188 for 4 levels"):
        _shapes(UNet(**PAPER), 187, 200, 3)
