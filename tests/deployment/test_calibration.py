"""Records of layers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from nnlab.deployment.calibration import recorded
from nnlab.deployment.recognition import Layer, Norm
from nnlab.errors import InputError
from nnlab.layers import AdderConv


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
    record = recorded(model, variables, images, quantile=0.9)
    conv, norm, dense = record.calls.values()
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
    ops = [step.op for step in record.program.outline]
    assert ops == ["layer", "max", "reduce_sum", "div", "layer", "layer"]
    assert record.most[record.program.result] == pytest.approx(float(abs(y).max()))
    assert record.most[record.program.images] == abs(images).max()


def test_what_is_never_negative_has_a_range_from_0():
    model, variables, images = example()
    conv = next(iter(recorded(model, variables, abs(images)).calls.values()))
    assert isinstance(conv, Layer) and conv.low == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: images > 0, "an array of numbers, not bool"),
        (lambda images: images.tolist(), "an array of numbers, not list"),
        (lambda images: 0 * images, "nothing but 0"),
        (lambda images: 1e-40 * images, "nothing but 0"),
    ],
)
def test_images_that_say_nothing_of_those_to_come_are_refused(change, said):
    model, variables, images = example(4)
    with pytest.raises(InputError, match=said):
        recorded(model, variables, change(images))
