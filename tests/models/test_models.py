"""What models of images promise: an arithmetic for each part, and layers that all learn."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.models import (
    CifarResNet,
    LeNet5,
    SmallCNN,
    VGGSmall,
)
from nnlab.optim import adder_recipe
from nnlab.training import State, train_step

# The smallest images that each takes, and the features before its classifier at that size.
MODELS = [
    (LeNet5, 16, 84),
    (SmallCNN, 4, 64),
    (VGGSmall, 8, 512),
    (functools.partial(CifarResNet, 8), 4, 64),
]
CLASSES = 11  # no other width
every_model = pytest.mark.parametrize(("model", "size", "features"), MODELS)


def kernels(network, size):
    """The names of the weights of the layer that sees the image, of the others, of the last."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    first, inner, last = set(), set(), set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key.endswith("kernel"):
            inputs, features = leaf.shape[-2:]
            group = first if inputs == 3 else last if features == CLASSES else inner
            group.add(path[-1].key)
    return first, inner, last


@every_model
def test_the_first_convolution_and_the_classifier_are_float_unless_told(
    model, size, features, marked
):
    model = functools.partial(model, classes=CLASSES)
    network = model(arithmetic=marked("own_kernel"))
    assert kernels(network, size) == ({"kernel"}, {"own_kernel"}, {"kernel"})
    network = model(first=marked("first_kernel"), classifier=marked("last_kernel"))
    assert kernels(network, size) == ({"first_kernel"}, {"kernel"}, {"last_kernel"})


@every_model
def test_features(model, size, features):
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    init = functools.partial(model().init_with_output, mutable=True)
    logits, variables = jax.eval_shape(init, jax.random.key(0), images)
    (named,) = variables["intermediates"]["features"]
    assert logits.shape == (2, 10) and named.shape == (2, features)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "arithmetic"),
    [
        (LeNet5, 16, ADDER),
        (SmallCNN, 4, ADDER),
        (SmallCNN, 4, BINARY),
        (VGGSmall, 8, FLOAT),
        (functools.partial(CifarResNet, 8), 4, BINARY),
    ],
)
def test_a_step_reaches_every_parameter_and_evaluation_keeps_statistics(model, size, arithmetic):
    network = model(classes=4, arithmetic=arithmetic)
    optimizer = adder_recipe(10, weight_decay=0.0)  # so that only a gradient moves a parameter
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(4, size, size, 1)), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes["batch_stats"])
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(-1, 1, leaf.shape), leaf.dtype), shapes["params"]
    )

    def run(params):
        state = State(jnp.int32(0), params, stats, optimizer.init(params), jax.random.key(0))
        state, metrics = train_step(network, optimizer)(state, (images, jnp.arange(4)))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits, kept = network.apply(variables, images, mutable=["batch_stats"])
        return state, metrics, logits, kept["batch_stats"]

    # What takes time is to compile, not to run.
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    after, metrics, logits, kept = jax.jit(run, compiler_options=quick)(params)
    assert np.isfinite(metrics["loss"]) and np.isfinite(logits).all()
    for before, now in ((params, after.params), (stats, after.batch_stats)):
        leaves = jax.tree_util.tree_leaves_with_path(before)
        for (path, old), new in zip(leaves, jax.tree.leaves(now), strict=True):
            assert np.isfinite(new).all() and (old != new).any(), path
    chex.assert_trees_all_equal(kept, after.batch_stats)
