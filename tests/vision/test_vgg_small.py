"""VGG-small: its cost and its classifier."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.costs import count
from nnlab.models import VGGSmall

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def variables(**options: Any) -> Any:
    return jax.eval_shape(VGGSmall(**options).init, jax.random.key(0), IMAGE)


@pytest.mark.slow
def test_multiply_adds():
    # 32·32·128 (27 + 1152) + 16·16·256 (1152 + 2304) + 8·8·512 (2304 + 4608) + 8192·10
    options: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER}
    products, distances = (
        count(VGGSmall(**o).apply, variables(**o), IMAGE).multiplications["float32"]
        for o in ({}, options)
    )
    assert products - distances == 154_533_888 + 226_492_416 + 226_492_416 + 81_920


def test_the_classifier_has_a_bias_and_no_normalisation(marked):
    quick = marked("kernel")
    for arithmetic, layer in ((FLOAT, "Dense_0"), (ADDER, "AdderDense_0")):
        options = {"arithmetic": quick, "first": quick, "classifier": arithmetic}
        params = variables(classes=100, **options)["params"]
        assert params[layer]["bias"].shape == (100,)
        widths = [params[f"BatchNorm_{i}"]["scale"].size for i in range(6)]
        assert widths == [128, 128, 256, 256, 512, 512] and "BatchNorm_6" not in params
