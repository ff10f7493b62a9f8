"""Layers of products: their parameters and how they start, their options, their own state.

What they compute in each arithmetic is tested in `tests/contracts/test_arithmetics.py`.
"""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import kernels, layers
from nnlab.arithmetics import FLOAT, lp_adder
from nnlab.costs import count, stored_bytes
from nnlab.layers import ProductConv, ProductDense
from nnlab.models import SmallCNN
from nnlab.ops.adder import adder_conv, adder_dense
from nnlab.ops.binary import binary_conv, binary_dense, binary_weights
from nnlab.ops.convolution import conv
from nnlab.ops.lp_adder import lp_adder_conv
from nnlab.optim import adder_recipe
from nnlab.training import init, train_step

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
CONV, DENSE = (3, 2, 3, 4), (3, 4)  # of a window of (3, 2), 3 inputs and 4 features
SQUARE = {CONV: (3, 2, 4, 4), DENSE: (4, 4)}
NAMES = {
    "Conv": ["kernel"],
    "Product": ["kernel"],
    "Adder": ["adder_kernel"],
    "LpAdder": ["adder_kernel"],
    "Binary": ["binary_kernel"],
    "ShiftPS": ["shift_exponent_kernel", "shift_sign_kernel"],
    "ShiftAdd": ["kernel", "adder_kernel"],
}
KINDS = [
    (getattr(layers, name), shape, names)
    for kind, names in NAMES.items()
    for name, shape in ((f"{kind}Conv", CONV), (f"{kind}Dense", DENSE))
    if kind != "Conv"
] + [(layers.Conv, CONV, NAMES["Conv"])]


def normal(*shape) -> Any:
    return np.asarray(np.random.default_rng(0).normal(size=shape), np.float32)


IMAGES, VECTORS = normal(2, 7, 6, 3), normal(2, 4, 3)
OPTIONS: Any = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "kernel_dilation": 2}


@pytest.mark.parametrize(("kind", "shape", "names"), KINDS)
def test_parameters_and_dtypes(kind, shape, names):
    x = IMAGES if shape == CONV else VECTORS
    given = (4, (3, 2)) if shape == CONV else (4,)
    for param_dtype in (jnp.float32, jnp.bfloat16):
        layer = kind(*given, use_bias=True, param_dtype=param_dtype, dtype=jnp.bfloat16)
        y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
        expected = {name: (shape, param_dtype) for name in names} | {"bias": ((4,), param_dtype)}
        if "kernel" in names[:1] and len(names) == 2:
            expected["adder_kernel"] = SQUARE[shape], param_dtype
        found = {name: (leaf.shape, leaf.dtype) for name, leaf in variables["params"].items()}
        assert found == expected
        assert y.dtype == jnp.bfloat16
    assert "bias" not in jax.eval_shape(kind(*given).init, jax.random.key(0), x)["params"]


def start(layer, x, name):
    params: Any = jax.jit(layer.init, compiler_options=QUICK)(jax.random.key(0), x)["params"]
    return np.asarray(params[name], np.float64)


@pytest.mark.parametrize("layer", [layers.AdderDense(300), layers.LpAdderDense(300)])
def test_distances_start_as_standard_normal(layer):
    w = start(layer, jnp.ones((1, 300)), "adder_kernel")
    # Five standard errors of the mean, the second and the fourth moment: variances 1, 2 and 96.
    bounds = 5 * np.sqrt(np.array([1, 2, 96]) / w.size)
    moments = np.array([w.mean(), np.square(w).mean(), (w**4).mean()])
    assert (np.abs(moments - [0, 1, 3]) < bounds).all(), moments


def test_signs_start_as_glorot_uniform():
    w = start(layers.BinaryConv(90, (3, 3)), jnp.ones((1, 4, 4, 110)), "binary_kernel")
    limit = np.sqrt(6 / (9 * (110 + 90)))
    # Of 89,100 uniform numbers the largest is below 0.999 of the limit once in 1e39.
    assert 0.999 * limit < np.abs(w).max() <= limit * (1 + 2**-23)
    # Five standard errors: variances of u and u^2 on [-1, 1] are 1/3 and 4/45.
    assert abs(w.mean()) < 5 * limit * np.sqrt(1 / 3 / w.size)
    assert abs(np.square(w / limit).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / w.size)


def test_products_start_as_he_normal():
    w = start(layers.Conv(100, (3, 3)), jnp.ones((1, 4, 4, 100)), "kernel")
    # Standard deviation sqrt(2 / fan in). The distribution is cut off, so its kurtosis is below 3
    # and five standard errors of the variance below 5 sqrt(2 / n).
    scaled = w * np.sqrt(900 / 2)
    assert abs(scaled.mean()) < 5 / np.sqrt(w.size)
    assert abs(np.square(scaled).mean() - 1) < 5 * np.sqrt(2 / w.size)


def test_exponents_and_signs_start_uniform_over_their_ranges():
    for name, low, high in (("shift_exponent_kernel", -14, 0), ("shift_sign_kernel", -1, 1)):
        # Of 10,000 uniform numbers some come closer to an end than a hundredth of the range.
        w, slack = start(layers.ShiftPSDense(100), jnp.ones(100), name), (high - low) / 100
        assert low <= w.min() < low + slack and high - slack < w.max() <= high
        # The mean has a standard deviation of range / sqrt(12 n), range / 346.
        assert abs(w.mean() - (low + high) / 2) < 5 * (high - low) / 346


def test_another_initialiser_and_a_bias():
    layer: Any = layers.AdderDense(4, kernel_init=nn.initializers.constant(0.5), use_bias=True)
    # Ones are half a unit from each of five weights.
    ones = np.ones(5, np.float32)
    params = jax.device_get(jax.jit(layer.init)(jax.random.key(0), ones))["params"]
    assert (params["bias"] == 0).all()
    y = jax.jit(layer.apply)({"params": params | {"bias": params["bias"] + 1}}, ones)
    assert (np.asarray(y) == -1.5).all()


def test_float_convolution_has_the_parameters_of_flax():
    layer, theirs = (kind(4, (3, 2), use_bias=True) for kind in (layers.Conv, nn.Conv))
    shapes = [jax.eval_shape(each.init, jax.random.key(0), IMAGES) for each in (layer, theirs)]
    assert shapes[0] == shapes[1]


def equal_passes(layer, x, kernel, name, op):
    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def passes(f, x, kernel):
        y, pull = jax.vjp(f, x, kernel)
        return y, *pull(y)

    ours = passes(lambda x, w: layer.apply({"params": {name: w}}, x), x, kernel)
    for got, expected in zip(ours, passes(op, x, kernel), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rules", [{}, {"filter_rule": "sign", "input_rule": "full"}])
def test_distances_learn_by_the_rules_that_are_given(rules):
    layer = layers.AdderConv(4, (3, 2), **OPTIONS, **rules)
    op = functools.partial(adder_conv, **OPTIONS, **rules)
    equal_passes(layer, IMAGES, normal(*CONV), "adder_kernel", op)
    op = functools.partial(adder_dense, **rules)
    equal_passes(layers.AdderDense(4, **rules), VECTORS, normal(*DENSE), "adder_kernel", op)


def test_signs_are_taken_by_the_quantisers_that_are_given():
    quantisers: Any = {"kernel_quantizer": binary_weights, "input_quantizer": jnp.sin}

    def op(product, **options):
        return lambda x, w: product(jnp.sin(x), binary_weights(w), **options)

    layer = layers.BinaryConv(4, (3, 2), **OPTIONS, **quantisers)
    equal_passes(layer, IMAGES, normal(*CONV), "binary_kernel", op(binary_conv, **OPTIONS))
    layer = layers.BinaryDense(4, **quantisers)
    equal_passes(layer, VECTORS, normal(*DENSE), "binary_kernel", op(binary_dense))


def test_the_op_and_the_name_of_its_weights():
    layer = ProductConv(4, 2, op=adder_conv, kernel_name="adder_kernel")
    equal_passes(layer, IMAGES, normal(2, 2, 3, 4), "adder_kernel", adder_conv)


def noisy(x, kernel, *, key, **options):
    return conv(x, kernel, **options) + (0 if key is None else jax.random.normal(key))


def test_randomness_is_for_training():
    layer = ProductDense(4, op=noisy, stochastic=True)
    x = IMAGES[0, 0]
    variables = {"params": {"kernel": normal(*DENSE)}}
    train = jax.jit(lambda key: layer.apply(variables, x, rngs={"dropout": key}))
    plain = np.asarray(jax.jit(layer.apply)(variables, x))
    one, same, other = (np.asarray(train(jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert float(np.ptp(one - plain)) < 1e-5 < float(abs(one - plain).max())
    assert float(abs(one - other).max()) > 1e-5


def test_bits_of_shifts_reach_their_weights():
    layer: Any = layers.ShiftPSDense(1, bits=3)  # exponents from -2 on
    one = np.ones((1, 1), np.float32)
    params = {"shift_exponent_kernel": -9 * one, "shift_sign_kernel": one}
    assert jax.jit(layer.apply)({"params": params}, one[0]).item() == 0.25
    layer = layers.ShiftAddDense(1, bits=3)
    params = {"kernel": np.asarray([[-1e-3]], np.float32), "adder_kernel": one}
    assert jax.jit(layer.apply)({"params": params}, one[0]).item() == -1.25
    variables = jax.eval_shape(layers.ShiftPSConv(6, 1).init, jax.random.key(0), IMAGES)
    stored = stored_bytes(layers.ShiftPSConv(6, 1).apply, variables, IMAGES)
    assert stored == 12  # 18 weights of 5 bits are 90 bits


SCHEDULE = optax.linear_schedule(2.0, 1.0, 2)


def test_p_follows_the_steps_of_training_and_stays_in_evaluation():
    x = IMAGES[:1, :3, :3]
    layer: Any = layers.LpAdderConv(4, (1, 1), p_schedule=SCHEDULE)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    assert variables["batch_stats"]["step"] == 0

    jit = functools.partial(jax.jit, compiler_options=QUICK)

    @jit
    def train(variables):
        y, updates = layer.apply(variables, x, mutable=["batch_stats"])
        return y, variables | updates

    evaluate, kernel = jit(layer.apply), variables["params"]["adder_kernel"]
    op = jit(lp_adder_conv)
    for p in (2.0, 1.5, 1.0, 1.0):
        expected = op(x, kernel, p=np.asarray(p, np.float32))
        for _ in range(2):
            np.testing.assert_array_equal(evaluate(variables, x), expected)
        y, variables = train(variables)
        np.testing.assert_array_equal(y, expected)
    assert variables["batch_stats"]["step"] == 4


def test_the_count_goes_through_a_training_step_in_parts():
    arithmetic = lp_adder(SCHEDULE)
    model = SmallCNN(arithmetic=arithmetic, classifier=FLOAT, widths=(2, 2, 2))
    optimizer = adder_recipe(8)
    images, labels = normal(4, 4, 4, 1), jnp.arange(4)
    step = train_step(model, optimizer, accumulate=2)
    with kernels.use("cpu"):  # nothing to trace for other platforms
        state = jax.eval_shape(lambda key: init(key, model, optimizer, images), jax.random.key(0))
        after, _ = jax.eval_shape(step, state, (images, labels))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


def test_with_p_a_number_no_powers_are_counted():
    kinds = [layers.LpAdderConv(4, 1, p_schedule=p) for p in (SCHEDULE, lambda step: 1)]
    terms = 2 * 7 * 6 * 4 * 3
    variables = jax.eval_shape(kinds[0].init, jax.random.key(0), IMAGES)
    powers, distances = (count(layer.apply, variables, IMAGES) for layer in kinds)
    assert powers.other == {"float32": terms + 1}  # the one is the schedule's quotient
    assert not powers.unknown and not distances.other
    assert distances.additions == {"float32": 2 * terms}
    dense = layers.LpAdderDense(4, p_schedule=lambda step: 1)
    variables = jax.eval_shape(dense.init, jax.random.key(0), VECTORS)
    assert not count(dense.apply, variables, VECTORS).other


ODD: Any = 1.5


@pytest.mark.parametrize(
    ("layer", "x", "words"),
    [
        (layers.AdderConv(4, (3, 3)), IMAGES[0], r"adder_conv .* not shapes \(7, 6, 3\)"),
        (layers.Conv(4, (3,)), IMAGES, r"conv expects x .* and \(3, 3, 4\)"),
        (layers.AdderDense(4).clone(input_rule="soft"), VECTORS, "input_rule must .* not 'soft'"),
        (layers.ShiftAddConv(4, ODD), IMAGES, r"^kernel_size must be .*, not 1\.5"),
    ],
)
def test_errors_name_what_was_given(layer, x, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(layer.init, jax.random.key(0), x)
