"""The multilayer perceptron: its size, PyTorch's logits, and what each option changes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import InputError
from nnlab.models import MLP
from nnlab.optim import deep_recipe
from nnlab.training import init, train_step

KEY = jax.random.key(0)
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def shapes(model, *size):
    return jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((1, *size), jnp.float32))["params"]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameters():
    # 3 layers of 5 for 12 numbers: 60 + 2 · 25 weights, 15 biases; 6 · 7 of the classifier.
    params = shapes(MLP(7, depth=3, width=5, norm=False), 2, 2, 3)
    assert count(params) == 60 + 50 + 15 + 42
    assert list(params) == ["classifier", "dense1", "dense2", "dense3"]
    assert "bias" in params["dense1"]
    params = shapes(MLP(7, depth=3, width=5), 12)
    assert count(params) == 60 + 50 + 30 + 42 and "bias" not in params["dense1"]


def test_arithmetics_of_the_layers():
    def names(**options):
        params = shapes(MLP(depth=3, width=4, **options), 6)
        layers = (params[name] for name in ("dense1", "dense2", "dense3", "classifier"))
        return [next(n for n in layer if n.endswith("kernel")) for layer in layers]

    assert names() == ["kernel"] * 4
    assert names(arithmetic=ADDER) == ["kernel", "adder_kernel", "adder_kernel", "kernel"]
    assert names(first=BINARY, classifier=ADDER)[::3] == ["binary_kernel", "adder_kernel"]


@pytest.mark.parametrize("norm", [True, False])
def test_logits_are_pytorchs(norm):
    layers = []
    for inputs in (12, 5, 5):
        layers.append(torch.nn.Linear(inputs, 5, bias=not norm))
        if norm:
            layers.append(torch.nn.BatchNorm1d(5))
        layers.append(torch.nn.ReLU())
    layers.append(torch.nn.Linear(5, 4))
    theirs = torch.nn.Sequential(*layers).eval()
    rng = np.random.default_rng(0)
    params, stats, number = {}, {}, 0

    def drawn(tensor, low=-1.0):
        values = rng.uniform(low, 1, tensor.shape).astype(np.float32)
        with torch.no_grad():
            tensor.copy_(torch.tensor(values))
        return values.T

    for layer in layers:
        if isinstance(layer, torch.nn.Linear):
            number += 1
            name = "classifier" if number == 4 else f"dense{number}"
            params[name] = {"kernel": drawn(layer.weight)}
            if layer.bias is not None:
                params[name]["bias"] = drawn(layer.bias)
        elif isinstance(layer, torch.nn.BatchNorm1d):
            affine = {"scale": drawn(layer.weight), "bias": drawn(layer.bias)}
            params[f"bn{number}"] = affine
            mean, var = layer.running_mean, layer.running_var
            stats[f"bn{number}"] = {"mean": drawn(mean), "var": drawn(var, 0.5)}
    x = rng.normal(size=(3, 2, 6)).astype(np.float32)
    model = MLP(4, depth=3, width=5, norm=norm)
    logits = jax.jit(model.apply)({"params": params, "batch_stats": stats}, x)
    expected = theirs(torch.tensor(x.reshape(3, 12))).detach().numpy()
    np.testing.assert_allclose(np.asarray(logits), expected, rtol=0, atol=1e-4)


def test_features_dtypes_and_start():
    model: Any = MLP(7, depth=2, width=4, kernel_init=jax.nn.initializers.constant(0.5))
    x = np.ones((3, 2, 3), np.float32)
    variables = jax.jit(model.init, compiler_options=QUICK)(KEY, x)
    for name in ("dense1", "dense2", "classifier"):
        assert (np.asarray(variables["params"][name]["kernel"]) == 0.5).all()
    narrow: Any = MLP(7, depth=2, width=4, dtype=jnp.bfloat16)
    apply = functools.partial(narrow.apply, mutable=["intermediates"])
    logits, kept = jax.eval_shape(apply, variables, x)
    (features,) = kept["intermediates"]["features"]
    assert (logits.shape, logits.dtype) == ((3, 7), jnp.float32)
    assert (features.shape, features.dtype) == ((3, 4), jnp.bfloat16)


def test_dropout_draws_in_training_alone():
    model: Any = MLP(depth=1, width=1000, norm=False, dropout=0.25)
    x = np.ones((1, 8), np.float32)
    variables = jax.jit(model.init, compiler_options=QUICK)(KEY, x)

    def features(variables, **options):
        updates = model.apply(variables, x, mutable=["intermediates"], **options)[1]
        return updates["intermediates"]["features"][0]

    def both(variables):
        return features(variables), features(variables, train=True, rngs={"dropout": KEY})

    all_of_them, kept = map(np.asarray, jax.jit(both, compiler_options=QUICK)(variables))
    alive = all_of_them > 0
    dropped = (kept[alive] == 0).mean()
    assert abs(dropped - 0.25) < 5 * np.sqrt(0.25 * 0.75 / alive.sum())  # standard deviations
    np.testing.assert_allclose(kept[kept != 0], all_of_them[kept != 0] / 0.75, rtol=2**-22)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER], ids=["float", "adder"])
def test_a_step_by_the_default_recipe_moves_every_parameter(arithmetic):
    model, optimizer = MLP(arithmetic=arithmetic, depth=3, width=6), deep_recipe(10)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(8, 3, 3, 1)), jnp.float32)
    state = init(KEY, model, optimizer, images)
    step = jax.jit(train_step(model, optimizer), compiler_options=QUICK)
    after, metrics = step(state, (images, jnp.arange(8)))
    assert metrics["nonfinite"] == -1 and np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, after.params)
    assert all(jax.tree.leaves(moved)), moved


@pytest.mark.parametrize("options", [{"depth": 0}, {"width": -1}])
def test_bad_sizes(options):
    with pytest.raises(InputError):
        shapes(MLP(**options), 4)
