"""Feature pyramids: published counts, and the same computations in PyTorch."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.vision.detection.necks import FeaturePyramid, enlarged

CHANNELS = (256, 512, 1024, 2048)


def _shapes(model, channels=CHANNELS, side=4):
    stages = [
        jax.ShapeDtypeStruct((1, side * 2**i, side * 2**i, c), jnp.float32)
        for i, c in zip(range(len(channels) - 1, -1, -1), channels, strict=True)
    ]
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), stages)


def _count(model, channels=CHANNELS):
    params = _shapes(model, channels)[1]["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_parameters():
    assert _count(FeaturePyramid()) == 3_344_384
    assert _count(FeaturePyramid(extra="none"), CHANNELS[1:]) == 2_688_512
    assert _count(FeaturePyramid(extra="convolutions"), CHANNELS[1:]) == 2_688_512 + 1_180_160
    for kind in ("pafpn", "r-pafpn"):
        more = _count(FeaturePyramid(kind=kind, extra="none"), CHANNELS[1:])
        assert more == 2_688_512 + 2_360_320


def _torch_pyramid(stages, convs, kind, shortcuts):
    """The levels by their definition, of images [n, channels, height, width]."""

    def conv(x, name, stride=1):
        weight, bias = convs[name]
        y = functional.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)
        if shortcuts and weight.shape[-1] == 3:
            y = y + functional.max_pool2d(x, 1, stride)
        return y

    def down(x):
        for i in range(1, len(x)):
            x[i] = x[i] + conv(x[i - 1], f"down{i - 1}", 2)

    def up(x):
        for i in range(len(x) - 1, 0, -1):
            larger = functional.interpolate(x[i], size=x[i - 1].shape[2:], mode="nearest")
            x[i - 1] = x[i - 1] + larger

    x = [conv(each, f"lateral{i}") for i, each in enumerate(stages)]
    (down if kind == "r-pafpn" else up)(x)
    x = [conv(each, f"output{i}") for i, each in enumerate(x)]
    if kind == "pafpn":
        down(x)
        x = [x[0], *(conv(each, f"second{i}") for i, each in enumerate(x[1:], 1))]
    if kind == "r-pafpn":
        up(x)
        x = [*(conv(each, f"second{i}") for i, each in enumerate(x[:-1])), x[-1]]
    x.append(conv(x[-1], "p6", 2))
    x.append(conv(functional.relu(x[-1]), "p7", 2))
    return x


@pytest.mark.parametrize(
    ("kind", "shortcuts"),
    [
        pytest.param("fpn", False, marks=pytest.mark.slow),
        pytest.param("pafpn", False, marks=pytest.mark.slow),
        ("r-pafpn", True),
    ],
)
def test_levels_are_those_of_pytorch(kind, shortcuts, drawn, quick_jit):
    model = FeaturePyramid(5, kind=kind, extra="convolutions", shortcuts=shortcuts)
    rng = np.random.default_rng(0)
    sizes = ((15, 10, 3), (8, 5, 4), (4, 3, 6))  # odd ones, too
    stages = [rng.normal(size=(2, *size)).astype(np.float32) for size in sizes]
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), stages))
    convs = {
        name: (torch.from_numpy(p["kernel"].transpose(3, 2, 0, 1)), torch.from_numpy(p["bias"]))
        for name, p in variables["params"].items()
    }
    expected = _torch_pyramid(
        [torch.from_numpy(each).permute(0, 3, 1, 2) for each in stages], convs, kind, shortcuts
    )
    found = quick_jit(model.apply)(variables, stages)
    for level, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(level, other.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


def test_enlarging_takes_the_pixels_that_pytorch_takes():
    x: Any = np.arange(15.0, dtype=np.float32).reshape(1, 5, 3, 1)
    for size in ((5, 3), (9, 7), (10, 6), (13, 5)):
        expected = functional.interpolate(torch.from_numpy(x[..., 0])[None], size=size)[0]
        np.testing.assert_array_equal(enlarged(x, size)[..., 0], expected)


def test_an_adder_has_a_norm_after_each_layer():
    levels, variables = _shapes(FeaturePyramid(8, ADDER, kind="r-pafpn"), (8, 16))
    assert [level.shape for level in levels] == [(1, 8, 8, 8), (1, 4, 4, 8), (1, 2, 2, 8)]
    layers = {name.removesuffix("_bn") for name in variables["params"]}
    assert set(variables["batch_stats"]) == {f"{name}_bn" for name in layers}
    assert all(set(variables["params"][name]) == {"adder_kernel"} for name in layers)


def test_bad_options():
    with pytest.raises(InputError, match="kind is 'bifpn', expected one of fpn, pafpn, r-pafpn"):
        _shapes(FeaturePyramid(kind="bifpn"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="there is no stage"):
        _shapes(FeaturePyramid(), ())
