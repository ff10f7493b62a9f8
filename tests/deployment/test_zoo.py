"""Networks of the zoo in integers: near the float network, and equal to the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.deployment import quantize, reference, run
from nnlab.models import VGG, CifarResNet, GoogLeNet, ResNet, SqueezeNet

QUICK = {"xla_backend_optimization_level": 1}
RESNET18 = {"bottleneck": False, "stage_sizes": (2, 2, 2, 2), "features": 8}
NARROW = {"widths": (4, 4, 8, 8, 8), "hidden": 16}
ZOO = {
    "vgg11": (VGG(11, 10, **NARROW), 224),
    "vgg11_bn, adder": (VGG(11, 10, ADDER, norm=True, **NARROW), 224),
    "squeezenet1_0": (SqueezeNet("1.0", 10), 32),
    "googlenet": (GoogLeNet(10), 32),
    "resnet18": (ResNet(10, **RESNET18), 32),
    "resnet18, adder": (ResNet(10, ADDER, **RESNET18), 32),
    "resnet50": (ResNet(10, stage_sizes=(1, 1, 1, 1), features=8), 32),
    "he_resnet8": (CifarResNet(8, 10, FLOAT, projection=False, normalize_logits=False), 16),
}


def with_statistics(model, images):
    """Variables as they start, but adders' weights reach further than inputs, as trained ones do,
    and have the running statistics of the images. (In a deep float network with statistics of few
    images every layer makes the error of the one before larger.)"""

    def further(path, leaf):
        return 4 * leaf if path[-1].key == "adder_kernel" else leaf

    @jax.jit
    def variables(images):
        variables = dict(model.init(jax.random.key(0), images[:1]))
        if model.arithmetic is not ADDER:
            return variables
        params = jax.tree_util.tree_map_with_path(further, variables["params"])
        variables["params"] = params
        rngs = {"dropout": jax.random.key(1)}
        _, found = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        start = variables["batch_stats"]  # of which nine tenths are left
        found = jax.tree.map(lambda new, old: 10 * new - 9 * old, found["batch_stats"], start)
        return {"params": variables["params"], "batch_stats": found}

    return variables(images)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_is_near_the_float_network_and_equals_the_reference(name):
    model, size = ZOO[name]
    rng = np.random.default_rng(0)
    colours = 2 * rng.normal(size=(16, 1, 1, 3))  # so that logits differ
    images = jnp.asarray(colours + rng.normal(size=(16, size, size, 3)), jnp.float32)
    variables = with_statistics(model, images)
    network = quantize(model, variables, images)
    logits = np.asarray(jax.jit(run(network), compiler_options=QUICK)(images))
    np.testing.assert_array_equal(logits[:1], reference(network, np.asarray(images[:1]))["logits"])
    expected = np.asarray(jax.jit(model.apply, compiler_options=QUICK)(variables, images))
    both = [(y - y.mean(axis=0)).ravel() for y in (logits, expected)]
    assert np.corrcoef(*both)[0, 1] > 0.95
