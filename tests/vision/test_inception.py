"""The Inception cell against its branches one by one, in any arithmetic, and what it refuses."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.models import InceptionCell
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.ops.pooling import max_pool
from nnlab.vision.inception import Unit, units

X = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
BRANCHES = (
    (Unit("one", 2),),
    (Unit("reduce", 3), Unit("three", 4, 3)),
    (Unit("before", 3), (Unit("row", 2, (1, 3)), Unit("column", 1, (3, 1)))),
    (functools.partial(max_pool, window=3, strides=1, padding=1), Unit("project", 5)),
)


def drawn(shapes: Any) -> Any:
    """Parameters and statistics from 1/2 to 3/2, none of them the initial one."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape).astype(s.dtype), shapes)


@pytest.mark.parametrize(
    ("arithmetic", "product", "name", "norm"),
    [(FLOAT, conv, "kernel", False), (ADDER, adder_conv, "adder_kernel", True)],
    ids=["float", "adder"],
)
def test_the_branches_one_by_one(arithmetic, product, name, norm):
    cell = InceptionCell(BRANCHES, arithmetic, norm)
    variables = drawn(jax.eval_shape(cell.init, jax.random.key(0), X))

    def unit(variables, layer, x):
        params = variables["params"][layer]
        y = product(x, params["conv"][name])
        if norm:
            stats = variables["batch_stats"][layer]["bn"]
            y = (y - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-3)
            y = y * params["bn"]["scale"] + params["bn"]["bias"]
        else:
            y = y + params["conv"]["bias"]
        return jnp.maximum(y, 0)

    @jax.jit
    def by_hand(variables, x):
        of = functools.partial(unit, variables)
        largest = nn.max_pool(x, (3, 3), (1, 1), "SAME")
        parts = [of("one", x), of("three", of("reduce", x))]
        parts += [of(layer, of("before", x)) for layer in ("row", "column")]
        return jnp.concatenate([*parts, of("project", largest)], axis=-1)

    y = jax.jit(cell.apply)(variables, X)
    assert y.shape == (2, 6, 5, 2 + 4 + 2 + 1 + 5)
    # Sums of up to 27 terms below 40, normalised by at most 1.5 / sqrt(0.5), twice.
    np.testing.assert_allclose(y, by_hand(variables, X), rtol=0, atol=27 * 40 * 2**-22)
    assert variables["params"].keys() == {u.name for u in units(BRANCHES)}
    assert set(variables["params"]["row"]) == ({"conv", "bn"} if norm else {"conv"})


def test_bad_branches():
    for branches in ((), ((Unit("one", 2),), (Unit("two", 2, 3, 2),))):
        with pytest.raises(InputError):
            jax.eval_shape(InceptionCell(branches).init, jax.random.key(0), X)
