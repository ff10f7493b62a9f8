"""Networks as ONNX files, run by ONNX Runtime: integers to the bit, floats within rounding."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from nnlab.arithmetics import FLOAT
from nnlab.deployment import IntegerNetwork, quantize, reference, save_onnx
from nnlab.errors import InputError
from nnlab.models import CifarResNet, LeNet5, SmallCNN
from tests.deployment.test_network import every_operation
from tests.deployment.test_network import images as random_images
from tests.deployment.test_rules import IMAGES, Separable, made
from tests.deployment.test_translation import fresh

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def logits_of(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, found.name) == ("images", "logits")
    return session.run(None, {"images": images})[0]


def check(path, network, images):
    save_onnx(path, network, images.shape[1:])
    expected = reference(network, images)["logits"]
    np.testing.assert_array_equal(logits_of(path, images), expected)
    assert len(np.unique(expected)) > 3


def without_adders(network):
    """Products in place of distances."""
    nodes = []
    for node in network.nodes:
        if node.op.startswith("adder"):
            kept = {k: v for k, v in node.attributes.items() if k in ("strides", "padding")}
            op = node.op.removeprefix("adder_")
            node = dataclasses.replace(node, op=op, attributes=kept)
        nodes.append(node)
    return IntegerNetwork(tuple(nodes), network.arrays)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_operation_to_the_bit(tmp_path, seed):
    images = random_images(seed, 4)
    images[3, 0, 0], images[3, 1, :2, 0] = 1e9, [np.nan, -np.inf]
    check(tmp_path / "x.onnx", without_adders(every_operation(seed)), images)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeNet-5", "ResNet-8", "LeNet-5, binary", "ResNet-8, binary"])
def test_networks_in_int8_and_signs(tmp_path, name):
    float_models = {"LeNet-5": LeNet5(4, FLOAT), "ResNet-8": CifarResNet(8, 4, FLOAT)}
    model, variables, images = fresh(name if "," in name else f"{name}, adder")
    if name in float_models:
        model = float_models[name]
        variables = model.init(jax.random.key(0), images[:1])
    check(tmp_path / "x.onnx", quantize(model, variables, images), np.asarray(images[:3]))


@pytest.mark.slow
def test_convolutions_of_groups(tmp_path):
    check(tmp_path / "x.onnx", quantize(Separable(), made(Separable()), IMAGES), IMAGES)


class Pools(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(x.reshape(-1, 3, 4, 1), (2, 2), (1, 1))  # by position
        return nn.avg_pool(x, window_shape=(2, 1))[:, 0, :, 0]


@pytest.mark.slow
def test_a_float_network(tmp_path):
    pytest.importorskip("jax2onnx")
    model = nn.Sequential([SmallCNN(classes=12), Pools()])
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    path = tmp_path / "x.onnx"
    save_onnx(path, functools.partial(model.apply, variables), (8, 8, 1))
    expected = np.asarray(model.apply(variables, images))
    np.testing.assert_allclose(logits_of(path, images), expected, atol=1e-4)


def test_what_onnx_lacks_is_named(tmp_path, small_network):
    path = tmp_path / "x.onnx"
    with pytest.raises(InputError, match="'near' is an adder_conv, and ONNX has no sums of dis"):
        save_onnx(path, small_network, (6, 5, 2))
    products = without_adders(small_network)
    with pytest.raises(InputError, match="first gets 60 channels, expected 2"):
        save_onnx(path, products, (60,))
    cut = IntegerNetwork(products.nodes[:-1], products.arrays)
    with pytest.raises(InputError, match="does not end in logits"):
        save_onnx(path, cut, (6, 5, 2))
    assert not path.exists()
    save_onnx(path, products, (6, 5, 2))
    with pytest.raises(InputError, match="already exists"):
        save_onnx(path, products, (6, 5, 2))
