"""Under `jax_enable_x64` numbers are as wide as what they are made of, and states keep their types.

Nothing relies on what JAX repeats by itself, nor do tasks on what it converts.

By tracing alone: nothing is computed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import kernels, models, training
from nnlab.layers import GravesLSTMCell, GRUCell, LSTMCell, Recurrent
from nnlab.ops.packed import binary_conv_packed
from nnlab.ops.packed_ternary import pack_ternary, ternary_dense_packed
from nnlab.sequences import algorithmic_tasks as tasks
from nnlab.series.series_detector import init as init_detector
from nnlab.vision import standardize

SHAPES = {
    "SmallCNN": (models.SmallCNN(classes=3), (8, 8, 1)),
    "OriginalLeNet5": (models.OriginalLeNet5(norm=True), (32, 32, 1)),
    "NTM": (models.NTM(2, GravesLSTMCell, width=4, locations=5, size=3), (4, 3)),
}
TASKS = [tasks.copy, tasks.repeat_copy, tasks.associative_recall, tasks.ngrams, tasks.priority_sort]


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"), kernels.use("cpu"):
        yield


def dtypes(tree):
    return jax.tree.map(lambda leaf: leaf.dtype, tree)


@pytest.mark.parametrize("name", SHAPES)
def test_networks_train_on_wide_inputs_with_narrow_states(name):
    model, shape = SHAPES[name]
    optimizer = optax.adam(0.1)
    key = jax.eval_shape(lambda: jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((4, *shape), jnp.float64)
    state = jax.eval_shape(lambda k, x: training.init(k, model, optimizer, x), key, inputs)
    assert jnp.float64 not in {*jax.tree.leaves(dtypes(state.params))}
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    assert jax.eval_shape(model.apply, variables, inputs).dtype == jnp.float64
    step = training.train_step(model, optimizer, lambda y, _: y.mean(), metrics=lambda *_: {})
    after, _ = jax.eval_shape(training.train_steps(step, 2), state, (inputs, inputs), 2)
    assert dtypes(after) == dtypes(state)


@pytest.mark.parametrize("cell", [GRUCell, LSTMCell])
def test_carries_are_as_wide_as_the_inputs(cell):
    layer = Recurrent(cell(2))
    for dtype in (jnp.float32, jnp.float64):
        x = jax.ShapeDtypeStruct((2, 3, 1), dtype)
        apply = functools.partial(layer.apply, mutable=["carry"])
        variables = jax.eval_shape(layer.init, jax.random.key(0), x)
        y, after = jax.eval_shape(apply, variables, x)
        assert {y.dtype, *jax.tree.leaves(dtypes(after))} == {jnp.dtype(dtype)}


def test_tasks_convert_nothing_by_themselves():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("strict"):
        for task in TASKS:
            jax.eval_shape(lambda k, task=task: task(k, 2), jax.random.key(0))


def test_data_and_states_are_float32_and_packed_products_int32():
    made = [jax.eval_shape(lambda k, task=task: task(k, 2), jax.random.key(0)) for task in TASKS]
    made += [jax.eval_shape(tasks.ngram_estimates, jax.ShapeDtypeStruct((2, 9, 1), jnp.float32))]
    images = jax.ShapeDtypeStruct((2, 3, 3, 1), jnp.float32)
    made += [jax.eval_shape(lambda x: standardize(x, np.ones(1), np.ones(1)), images)]
    model = models.NextValue()
    variables = jax.eval_shape(
        lambda k: model.init(k, jnp.ones((1, 4, 5), jnp.float32)), jax.random.key(0)
    )
    made += [jax.eval_shape(lambda v: init_detector(model, v, 2, 1, 3).errors[1:], variables)]
    assert {*jax.tree.leaves(dtypes(made))} == {jnp.dtype("float32")}

    x, kernel = (jax.ShapeDtypeStruct((1, 4, size, 1), jnp.uint32) for size in (4, 1))
    product = functools.partial(binary_conv_packed, channels=3)
    assert jax.eval_shape(product, x, kernel).dtype == jnp.int32
    with jax.numpy_dtype_promotion("strict"):
        weights = jax.eval_shape(pack_ternary, jax.ShapeDtypeStruct((5, 3), jnp.int8))
        assert weights.scale.dtype == jnp.float32
        tokens = jax.ShapeDtypeStruct((2, 5), jnp.float32)
        assert jax.eval_shape(ternary_dense_packed, tokens, weights).dtype == jnp.float32
