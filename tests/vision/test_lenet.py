"""LeNet-5: its cost and its layers, worked out by hand."""

from typing import Any

import jax
import jax.numpy as jnp

from nnlab.arithmetics import ADDER
from nnlab.costs import count
from nnlab.models import LeNet5

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)


def variables(**options: Any) -> Any:
    return jax.eval_shape(LeNet5(**options).init, jax.random.key(0), IMAGE)


def test_multiply_adds():
    # 28·28·6·25 + 10·10·16·150 + 400·120 + 120·84 + 84·10
    terms = 117_600 + 240_000 + 48_000 + 10_080 + 840
    options: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER}
    products, distances = (count(LeNet5(**o).apply, variables(**o), IMAGE) for o in ({}, options))
    # An adder term is two additions, that of a convolution a multiplication and an addition.
    saved = products.multiplications["float32"] - distances.multiplications["float32"]
    added = distances.additions["float32"] - products.additions["float32"]
    assert saved == added == terms == 416_520


def test_layers_in_their_order():
    params = variables(arithmetic=ADDER)["params"]
    shapes = {
        f"{layer}/{name}": leaf.shape
        for layer, leaves in params.items()
        for name, leaf in leaves.items()
        if "kernel" in name
    }
    assert shapes == {
        "Conv_0/kernel": (5, 5, 1, 6),
        "AdderConv_0/adder_kernel": (5, 5, 6, 16),
        "AdderDense_0/adder_kernel": (400, 120),
        "AdderDense_1/adder_kernel": (120, 84),
        "Dense_0/kernel": (84, 10),
    }
    # The classifier is normalised too.
    assert [params[f"BatchNorm_{i}"]["scale"].size for i in range(5)] == [6, 16, 120, 84, 10]
