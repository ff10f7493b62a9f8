"""The MLGRU: hand-worked steps, both ways to compute it, padding, and the published sizes."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import FLOAT
from nnlab.errors import InputError
from nnlab.models import MatMulFreeLM
from nnlab.sequences.matmul_free import MLGRU, linear_recurrence

RNG = np.random.default_rng(0)


def silu(x):
    return x / (1 + np.exp(-x))


def test_three_steps_by_hand():
    f, i = np.array([0.5, 0.25, 0.9]), np.array([1.0, 2, -1])
    decay, added = (jnp.asarray(a, jnp.float32).reshape(1, 3, 1) for a in (f, (1 - f) * silu(i)))
    for parallel in (False, True):
        h = linear_recurrence(decay, added, jnp.zeros((1, 1)), parallel=parallel)
        np.testing.assert_allclose(h.ravel(), [0.3655293, 1.4125779, 1.2444260], rtol=1e-6)


def test_the_layer_in_float64():
    """From a carried state, with a lower bound, and padding that leaves the state."""
    x: Any = RNG.normal(size=(2, 5, 4)).astype(np.float32)
    bound: Any = np.array([0, 0.3, 0.6, 1], np.float32)
    start: Any = RNG.normal(size=(2, 4)).astype(np.float32)
    layer = MLGRU()
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    variables: Any = jax.tree.map(lambda s: RNG.normal(size=s.shape).astype(s.dtype), shapes)
    apply = jax.jit(
        lambda *given: layer.apply(
            *given[:2], lengths=given[2], lower_bound=bound, mutable=["carry"]
        )
    )
    y, after = apply(variables | {"carry": {"state": start}}, x, np.array([3, 5]))
    w: Any = jax.tree.map(np.float64, variables["params"])
    h = np.float64(start)
    for t in range(5):
        f = bound + (1 - bound) / (1 + np.exp(-x[:, t] @ w["forget"]["kernel"]))
        new = f * h + (1 - f) * silu(x[:, t] @ w["input"]["kernel"])
        h = np.where(np.array([[t < 3], [True]]), new, h)
        g = x[:, t] @ w["gate"]["kernel"]
        g = g / np.sqrt((g**2).mean(-1, keepdims=True) + 1e-6) * w["gate_norm"]["scale"]
        real = [1] if t >= 3 else [0, 1]
        expected = (g * silu(h)) @ w["output"]["kernel"]
        np.testing.assert_allclose(y[real, t], expected[real], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["carry"]["state"], h, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"the carried state must be \[1, 4\], not \[2, 4\]"):
        layer.apply(variables | {"carry": {"state": start}}, x[:1])


@pytest.mark.slow
def test_lower_bounds_grow_with_depth():
    """At the start of 4 blocks they are 0, 1/4, 1/2 and 3/4, seen in the states."""
    model: Any = MatMulFreeLM(symbols=5, features=4, layers=4, hidden=8)
    symbols: Any = np.zeros((1, 3), np.int32)
    variables: Any = model.init(jax.random.key(0), symbols)
    params = variables["params"]
    for number in range(4):  # gates of 1/2 and constant inputs
        mixer = params[f"layer_{number}"]["mixer"]
        mixer["forget"]["kernel"] = np.zeros((4, 4), np.float32)
    _, after = model.apply(
        variables,
        symbols,
        mutable=["carry", "intermediates"],
        capture_intermediates=lambda module, _: module.name == "input",
    )
    for number, bound in enumerate((0, 0.25, 0.5, 0.75)):
        f = bound + (1 - bound) / 2
        mixer = after["intermediates"][f"layer_{number}"]["mixer"]
        added = (1 - f) * silu(np.float64(mixer["input"]["__call__"][0]))[0]
        state = f**2 * added[0] + f * added[1] + added[2]
        carried = after["carry"][f"layer_{number}"]["mixer"]["state"][0]
        np.testing.assert_allclose(carried, state, rtol=1e-4)


class Normalised(nn.Module):
    """A product with an RMSNorm before it, as every one of the published network has."""

    features: int
    use_bias: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.features, self.use_bias)(nn.RMSNorm()(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "layers", "parameters"),
    [(1024, 24, 374_108_160), (2048, 24, 1_364_779_008), (2560, 32, 2_702_357_504)],
)
def test_parameters_as_published(features, layers, parameters):
    normalised = dataclasses.replace(FLOAT, dense=Normalised)
    model = MatMulFreeLM(
        features=features, layers=layers, arithmetic=normalised, classifier=normalised
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters
