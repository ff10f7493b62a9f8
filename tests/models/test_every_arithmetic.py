"""Every arithmetic in every model: a gradient can be traced, and is one of all parameters."""

import functools

import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import NAMED
from nnlab.models import (
    AlexNet,
    LeNet5,
    OriginalLeNet5,
    ResNet,
    VGGSmall,
    resnet20,
    resnet32,
)
from nnlab.training import cross_entropy

by_convolution = functools.partial(resnet20, shortcuts="convolution")
resnext = functools.partial(ResNet, stage_sizes=(1, 1), features=8, groups=4, width_per_group=16)
alexnet = functools.partial(
    AlexNet, widths=(8, 8, 8, 8, 8), hidden=8, groups=2, norm=True, response_norm=True
)
ZOO = resnext, alexnet, OriginalLeNet5
CASES = [
    *(
        (model, channels, name)
        for model, channels in ((LeNet5, 1), (resnet20, 3))
        for name in NAMED
    ),
    *((VGGSmall, 3, name) for name in NAMED),
    *(pytest.param(m, 3, name, marks=pytest.mark.slow) for m in ZOO for name in NAMED),
    *((resnet32, 3, name) for name in ("binary_connect_stochastic", "posit8", "shift_ps")),
    *((by_convolution, 3, name) for name in ("adder_sr", "bireal")),
]


@pytest.mark.parametrize(("model", "channels", "name"), CASES)
def test_a_gradient_of_all_parameters(model, channels, name):
    network = model(classes=10, arithmetic=NAMED[name])
    size = 64 if getattr(model, "func", model) is AlexNet else 32
    images, labels = jnp.zeros((2, size, size, channels)), jnp.zeros(2, int)

    def gradients(key):
        variables = network.init(key, images)

        def loss(params):
            logits, _ = network.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            assert logits.shape == (2, 10)
            return cross_entropy(logits, labels)

        return jax.grad(loss)(variables["params"]), variables["params"]

    grads, params = jax.eval_shape(gradients, jax.random.key(0))
    assert jax.tree.map(lambda g: (g.shape, g.dtype), grads) == jax.tree.map(
        lambda p: (p.shape, p.dtype), params
    )
