"""Options of a model's computation: its dtype, and an axis of devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.models import (
    CifarResNet,
    LeNet5,
    SmallCNN,
    VGGSmall,
)
from nnlab.training import cross_entropy

MODELS = [(LeNet5, 16), (SmallCNN, 4), (VGGSmall, 8), (functools.partial(CifarResNet, 8), 4)]
BFLOAT16 = 2**-8  # relative rounding
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def batch(size, count=8):
    images = np.random.default_rng(0).normal(size=(count, size, size, 3))
    return images.astype(np.float32), np.arange(count) % 10


def gradients(network, variables, images, labels):
    """Gradients of the parameters, and what `apply` gives with all outputs of layers."""

    def loss(params):
        logits, updates = network.apply(
            variables | {"params": params},
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        return cross_entropy(logits, labels), (logits, updates)

    return jax.grad(loss, has_aux=True)(variables["params"])


def paths_and_types(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}


@pytest.mark.parametrize(
    ("model", "size", "arithmetic"),
    [
        (SmallCNN, 4, BINARY),
        *(pytest.param(*each, ADDER, marks=pytest.mark.slow) for each in MODELS),
    ],
)
def test_in_bfloat16_all_layers_compute_and_all_that_is_kept_stays_float32(model, size, arithmetic):
    wide, narrow = model(arithmetic=arithmetic), model(arithmetic=arithmetic, dtype=jnp.bfloat16)
    images, labels = batch(size, 2)
    shapes = [jax.eval_shape(n.init, jax.random.key(0), images) for n in (wide, narrow)]
    assert paths_and_types(shapes[0]) == paths_and_types(shapes[1])
    for train in (False, True):
        apply = functools.partial(
            narrow.apply, train=train, mutable=["batch_stats", "intermediates"]
        )
        apply = functools.partial(apply, capture_intermediates=True)
        logits, updates = jax.eval_shape(apply, shapes[1], images)
        assert logits.dtype == jnp.float32
        assert paths_and_types(updates["batch_stats"]) == paths_and_types(shapes[0]["batch_stats"])
        outputs = paths_and_types(updates["intermediates"])
        inner = {path: dtype for path, (shape, dtype) in outputs.items() if shape[-1] != 10}
        assert set(inner.values()) == {jnp.dtype("bfloat16")}, inner
    grads, _ = jax.eval_shape(functools.partial(gradients, narrow), shapes[1], images, labels)
    assert paths_and_types(grads) == paths_and_types(shapes[0]["params"])


def relative(got, expected):
    got, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (got, expected)
    )
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER, BINARY], ids=["float", "adder", "binary"])
def test_bfloat16_differs_from_float32_by_its_roundings(arithmetic):
    networks: Any = [SmallCNN(arithmetic=arithmetic, dtype=d) for d in (None, jnp.bfloat16)]
    images, labels = batch(8, 32)
    variables = networks[0].init(jax.random.key(0), images)
    results: Any = [
        jax.jit(functools.partial(gradients, n), compiler_options=QUICK)(variables, images, labels)
        for n in networks
    ]
    (grads, (logits, updates)), (narrow_grads, (narrow_logits, _)) = results
    named = updates["intermediates"]
    inner = sorted(name for name in named if "Conv" in name and name != "Conv_0")

    # Images, weights and outputs of a layer are rounded; normalisation, which takes the mean away,
    # makes the last of these errors larger by rms / standard deviation of the outputs. Errors of
    # layers add up, with a gain near 1 because every layer is normalised.
    error, flipped = 0.0, 0.0
    for name in ("Conv_0", *inner, "Dense_0"):
        if arithmetic is BINARY and name in inner:
            # A share of 0.8 error of normal numbers lies nearer to 0 than the error; their signs
            # may flip, by 2. The sums of signs are below 256 and exact.
            error = 2 * np.sqrt(0.8 * error)
        else:
            y = np.asarray(named[name]["__call__"][0], np.float64)
            y = y.reshape(-1, y.shape[-1])
            error += BFLOAT16 * (2 + np.sqrt((np.square(y).mean(0) / y.var(0)).mean()))
        if name != "Dense_0":  # no activation follows it
            flipped += 0.8 * error  # in the same way, slopes of activations between 0 and 1
    assert BFLOAT16 / 2 < relative(narrow_logits, logits) <= error < 1
    if arithmetic is not BINARY:  # whose flipped signs leave little of the gradient's digits
        assert BFLOAT16 / 2 < relative(narrow_grads, grads) <= error + np.sqrt(flipped) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size"), [MODELS[1], MODELS[3]])
def test_batches_of_devices_are_one_along_an_axis(model, size):
    images, _ = batch(size)
    network = model(axis_name="devices")
    variables = jax.jit(network.init)(jax.random.key(0), images)
    shares = images.reshape(2, 4, *images.shape[1:])
    run = functools.partial(network.apply, variables, train=True, mutable=["batch_stats"])
    _, along = jax.jit(jax.vmap(run, axis_name="devices"), compiler_options=QUICK)(shares)
    for path, leaf in jax.tree_util.tree_leaves_with_path(along):
        assert (leaf[0] == leaf[1]).all(), path  # every normalisation of the network

    run = functools.partial(model().apply, variables, train=True, mutable=["batch_stats"])
    _, whole = jax.jit(run, compiler_options=QUICK)(images)
    # Each mean of up to 8 · 16 · 16 numbers rounds every number and partial sum, 2^-24 of the mean
    # size, below 2 here; further layers would amplify that.
    ours, expected = (tree["batch_stats"]["BatchNorm_0"] for tree in (along, whole))
    np.testing.assert_allclose(ours["mean"][0], expected["mean"], rtol=0, atol=2048 * 2 * 2**-24)


@pytest.mark.parametrize(("model", "size"), MODELS)
def test_every_normalisation_sees_the_axis(model, size):
    network = model(axis_name="devices")
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    run = functools.partial(network.apply, train=True, mutable=["batch_stats"])
    program = jax.make_jaxpr(run, axis_env=[("devices", 2)])(variables, images)
    sums = sum(equation.primitive.name.startswith("psum") for equation in program.eqns)
    assert sums == len(flatten_dict(variables["batch_stats"]))  # of the mean and of the variance
