"""Records of layers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from nnlab.deployment.calibration import Layer, Norm, recorded
from nnlab.errors import InputError
from nnlab.layers import AdderConv, BinaryConv, ProductConv
from nnlab.ops.binary import binary_weights


class Small(nn.Module):
    conv: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x):
        x = nn.relu(self.conv(x))
        x = nn.BatchNorm(use_running_average=True, epsilon=0.0)(x.mean(axis=(1, 2)))
        return nn.Dense(3)(x)


def example(n=200):
    images = np.random.default_rng(0).normal(size=(n, 5, 4, 2)).astype(np.float32)
    model = Small(AdderConv(2, (3, 1), strides=(2, 1), padding="SAME", use_bias=True))
    variables = model.init(jax.random.key(0), images)
    params = dict(variables["params"])
    params["BatchNorm_0"] = {
        "scale": np.array([2, 3], np.float32),
        "bias": np.array([5, 7], np.float32),
    }
    statistics = {
        "BatchNorm_0": {"mean": np.array([1, 2], np.float32), "var": np.array([4, 16], np.float32)}
    }
    return model, {"params": params, "batch_stats": statistics}, images


def test_layers_in_order_with_ranges_and_means():
    model, variables, images = example()
    conv, norm, dense = recorded(model, variables, images, quantile=0.9)
    assert isinstance(conv, Layer) and isinstance(norm, Norm) and isinstance(dense, Layer)
    assert (conv.name, norm.name, dense.name) == ("conv", "BatchNorm_0", "Dense_0")
    assert (conv.weights, dense.weights) == ("adder_kernel", "kernel")
    # SAME with stride 2 on 5 rows: one pixel on each side.
    assert conv.windows == {"strides": [2, 1], "padding": [[1, 1], [0, 0]]} and conv.size == (3, 4)
    assert dense.windows == {} and dense.size == (1, 1)
    batches = images[:128], images[128:]
    assert conv.low == pytest.approx(min(np.quantile(b, 0.1) for b in batches))
    assert conv.high == pytest.approx(max(np.quantile(b, 0.9) for b in batches))
    assert (conv.least, conv.most) == (images.min(), images.max())
    # 2 / sqrt(4) (x - 1) + 5 = x + 4 and 3 / sqrt(16) (x - 2) + 7 = 0.75 x + 5.5.
    assert norm.scale.tolist() == [1, 0.75] and norm.offset.tolist() == [4, 5.5]
    applied: Any = model.apply(variables, images, capture_intermediates=True)
    y, outputs = applied[0], applied[1]["intermediates"]
    (given,), (normal,) = outputs["conv"]["__call__"], outputs["BatchNorm_0"]["__call__"]
    np.testing.assert_allclose(conv.mean, given.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(dense.mean, y.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert norm.most == pytest.approx(float(abs(normal).max()))
    assert dense.bias.shape == (3,) and conv.bias.shape == (2,)


def test_what_is_never_negative_has_a_range_from_0():
    model, variables, images = example()
    conv = recorded(model, variables, abs(images))[0]
    assert isinstance(conv, Layer) and conv.low == 0


def test_layers_that_have_no_integers():
    _, variables, images = example(8)
    dilated = Small(AdderConv(2, (2, 1), kernel_dilation=2))
    variables = dilated.init(jax.random.key(0), images)
    with pytest.raises(InputError, match=r"^conv has a kernel dilation of 2, expected 1\.$"):
        recorded(dilated, variables, images)
    for conv, message in (
        (BinaryConv(2, 1, kernel_quantizer=binary_weights), r"^conv has a quantizer other than si"),
        (ProductConv(2, 1), r"^conv is a ProductConv, expected adder, binary or float layers"),
    ):
        model = Small(conv)
        variables = model.init(jax.random.key(0), images)
        with pytest.raises(InputError, match=message):
            recorded(model, variables, images)


def test_sequences_have_no_integers():
    model = nn.Sequential([AdderConv(2, (3,))])
    steps = np.ones((4, 5, 2), np.float32)
    variables = model.init(jax.random.key(0), steps)
    message = r"^layers_0 has a kernel of shape \(3, 2, 2\), expected that of a dense layer or"
    with pytest.raises(InputError, match=message):
        recorded(model, variables, steps)
