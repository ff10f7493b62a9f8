"""Every arithmetic in every model: a gradient can be traced, and is one of all parameters."""

import functools

import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import NAMED
from nnlab.models import LeNet5, VGGSmall, resnet20, resnet32
from nnlab.training import cross_entropy

by_convolution = functools.partial(resnet20, shortcuts="convolution")
CASES = [
    *(
        (model, channels, name)
        for model, channels in ((LeNet5, 1), (resnet20, 3))
        for name in NAMED
    ),
    *((VGGSmall, 3, name) for name in NAMED),
    *((resnet32, 3, name) for name in ("binary_connect_stochastic", "posit8", "shift_ps")),
    *((by_convolution, 3, name) for name in ("adder_sr", "bireal")),
]


@pytest.mark.parametrize(("model", "channels", "name"), CASES)
def test_a_gradient_of_all_parameters(model, channels, name):
    network = model(10, NAMED[name])
    images, labels = jnp.zeros((2, 32, 32, channels)), jnp.zeros(2, int)

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
