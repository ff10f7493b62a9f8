"""Arithmetics: the calls that models make of them, and variants by replacing a field."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import kernels
from nnlab.arithmetics import (
    ADDER,
    ADDER_SR,
    BIBERT,
    BINARY,
    BINARY_CONNECT,
    BINARY_CONNECT_STOCHASTIC,
    BINARY_SWISH,
    BIREAL,
    BIT,
    BITNET,
    CONJUGATE_ADDER,
    FLOAT,
    L_MUL,
    SHIFT_ADD,
    SHIFT_ADD_VIT,
    SHIFT_PS,
    SHIFT_Q,
    SQUARED_DISTANCE,
    TERNARY,
    WINOGRAD_ADDER,
    XNOR,
    Arithmetic,
    bitnet,
    deep_shift_q,
    dorefa,
    l_mul,
    lp_adder,
    of_term,
)
from nnlab.costs import count, stored_bytes
from nnlab.layers import AdderConv, AdderDense, BinaryDense
from nnlab.models import SmallCNN
from nnlab.ops.terms import Term

IMAGES: Any = np.asarray(np.random.default_rng(0).normal(size=(2, 6, 5, 3)), np.float32)


@pytest.mark.parametrize(
    ("arithmetic", "name"),
    [(FLOAT, "kernel"), (ADDER, "adder_kernel"), (BINARY, "binary_kernel")],
)
@pytest.mark.parametrize("use_bias", [False, True])
def test_layers_take_the_documented_arguments(arithmetic, name, use_bias):
    bias = {"bias": (4,)} if use_bias else {}
    conv = arithmetic.conv(4, (3, 2), strides=2, padding="VALID", use_bias=use_bias)
    y, variables = jax.eval_shape(conv.init_with_output, jax.random.key(0), IMAGES)
    assert y.shape == (2, 2, 2, 4)
    assert jax.tree.map(jnp.shape, variables["params"]) == {name: (3, 2, 3, 4)} | bias
    dense = arithmetic.dense(4, use_bias=use_bias)
    y, variables = jax.eval_shape(dense.init_with_output, jax.random.key(0), IMAGES[:, 0, 0])
    assert y.shape == (2, 4)
    assert jax.tree.map(jnp.shape, variables["params"]) == {name: (3, 4)} | bias


RELATIVES = [
    (CONJUGATE_ADDER, ["adder_kernel"]),
    (SQUARED_DISTANCE, ["adder_kernel"]),
    (WINOGRAD_ADDER, ["adder_kernel"]),
    (ADDER_SR, ["adder_kernel"]),
    (lp_adder(optax.linear_schedule(2.0, 1.0, 9)), ["adder_kernel"]),
    (SHIFT_ADD, ["adder_kernel", "kernel"]),
]


@pytest.mark.parametrize(("arithmetic", "names"), RELATIVES)
def test_relatives_of_the_adder_start_and_learn_as_the_adder(arithmetic, names):
    network = SmallCNN(arithmetic=arithmetic, classifier=arithmetic)
    with kernels.use("cpu"):  # nothing to trace for other platforms
        variables = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    layers = [layer for name, layer in variables["params"].items() if "Norm" not in name]
    inner = [sorted(layer) for layer in layers if "adder_kernel" in layer]
    assert inner == [names] * 3
    hash(network)
    layer = arithmetic.dense(100)
    params = jax.jit(layer.init)(jax.random.key(0), jnp.ones((1, 100)))["params"]
    w = np.asarray(params["adder_kernel"], np.float64)
    # Five standard errors of the mean and the second moment of 10,000 standard normals.
    assert abs(w.mean()) < 5 / 100 and abs(np.square(w).mean() - 1) < 5 * 2**0.5 / 100


def test_without_the_argument_there_is_no_bias():
    for arithmetic in (FLOAT, ADDER, BINARY):
        for layer, x in ((arithmetic.conv(4, (1, 1)), IMAGES), (arithmetic.dense(4), IMAGES)):
            params = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
            assert "bias" not in params and len(params) == 1


def test_activations():
    x = jnp.array([-3.0, -0.5, 0.5, 3.0])
    assert FLOAT.activation(x).tolist() == ADDER.activation(x).tolist() == [0, 0, 0.5, 3]
    assert BINARY.activation(x).tolist() == [-1, -0.5, 0.5, 1]


def test_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ADDER.activation = jnp.tanh  # pyright: ignore[reportAttributeAccessIssue]
    assert len({FLOAT, ADDER, BINARY, dataclasses.replace(ADDER)}) == 3
    assert hash(SmallCNN(arithmetic=ADDER)) == hash(SmallCNN(arithmetic=ADDER))


def test_a_rule_by_partial_changes_the_gradient_and_not_the_value():
    rough = dataclasses.replace(ADDER, dense=functools.partial(AdderDense, filter_rule="sign"))
    kernel = np.asarray([[0.5], [2.0]], np.float32)

    def y(arithmetic: Arithmetic, kernel) -> Any:
        variables = {"params": {"adder_kernel": kernel}}
        return arithmetic.dense(1).apply(variables, np.asarray([3, 1], np.float32))[0]

    for arithmetic, expected in ((ADDER, [[2.5], [-1.0]]), (rough, [[1.0], [-1.0]])):
        both = jax.jit(jax.value_and_grad(functools.partial(y, arithmetic)))
        value, gradient = both(kernel)
        assert value == -3.5 and gradient.tolist() == expected


def test_a_variant_reaches_the_layers_of_a_model():
    calls = []

    def activation(x):
        calls.append(x.shape)
        return jnp.tanh(x)

    def narrow(features, kernel_size, **options):
        return AdderConv(features, kernel_size, param_dtype=jnp.bfloat16, **options)

    mixed = Arithmetic(conv=narrow, dense=BinaryDense, activation=activation)
    network = SmallCNN(arithmetic=mixed, classifier=mixed)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))["params"]
    assert params["Conv_0"]["kernel"].dtype == jnp.float32
    for name in ("AdderConv_0", "AdderConv_1"):
        assert params[name]["adder_kernel"].dtype == jnp.bfloat16
    assert params["BinaryDense_0"]["binary_kernel"].shape == (256, 10)
    assert calls == [(1, 8, 8, 16), (1, 8, 8, 32), (1, 4, 4, 64)]


BINARY_FAMILY = {
    "BINARY_CONNECT": BINARY_CONNECT,
    "BINARY_CONNECT_STOCHASTIC": BINARY_CONNECT_STOCHASTIC,
    "XNOR": XNOR,
    "BIREAL": BIREAL,
    "BINARY_SWISH": BINARY_SWISH,
    "TERNARY": TERNARY,
    "dorefa(1, 2)": dorefa(1, 2),
    "dorefa(3, 4, 6)": dorefa(3, 4, 6),
    "SHIFT_Q": SHIFT_Q,
    "SHIFT_PS": SHIFT_PS,
    "BIBERT": BIBERT,
    "bitnet(norm=False)": bitnet(norm=False),
}


@pytest.mark.parametrize("name", BINARY_FAMILY)
def test_bytes_that_a_layer_stores(name):
    arithmetic = BINARY_FAMILY[name]
    signs, scales = 10 * 4 // 8, {"XNOR": 16, "BIREAL": 16, "TERNARY": 4, "dorefa(1, 2)": 4}
    scales |= {"BIBERT": 16, "bitnet(norm=False)": 4}
    bits = {
        "TERNARY": 2,
        "bitnet(norm=False)": 2,
        "SHIFT_Q": 5,
        "SHIFT_PS": 5,
        "dorefa(3, 4, 6)": 3,
    }
    bits["BINARY_CONNECT_STOCHASTIC"] = 32  # real weights, see `nnlab.ops.binary_connect`
    expected = signs * bits.get(name, 1) + scales.get(name, 0)
    layer, x = arithmetic.dense(4), jnp.ones((2, 10))
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert stored_bytes(layer.apply, variables, x) == expected
    layer, x = arithmetic.conv(4, (5, 1)), jnp.ones((1, 5, 5, 2))
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert stored_bytes(layer.apply, variables, x) == expected


def test_the_same_bits_are_the_same_arithmetic():
    assert dorefa(1, 2) is dorefa(1, 2) and dorefa(1, 2) != dorefa(2, 2)
    assert bitnet(norm=False) is bitnet(norm=False) and l_mul() is L_MUL
    assert deep_shift_q(5) is SHIFT_Q and deep_shift_q(4) != SHIFT_Q
    assert len(set(BINARY_FAMILY.values())) == len(BINARY_FAMILY)
    with pytest.raises(ValueError, match=r"^weight_bits must be an integer from 1 to 8, or 32"):
        dorefa(16, 2)


@pytest.mark.parametrize("name", ["BINARY_CONNECT_STOCHASTIC", "dorefa(3, 4, 6)"])
def test_draws_come_from_the_dropout_stream(name):
    layer = BINARY_FAMILY[name].dense(4)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(3, 10)).astype(np.float32)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    variables = jax.tree.map(
        lambda s: np.asarray(rng.uniform(-0.5, 0.5, s.shape), np.float32), shapes
    )

    @jax.jit
    def passes(rngs):
        y, pull = jax.vjp(lambda v: layer.apply(v, x, rngs=rngs), variables)
        return y, pull(y)

    def value_and_gradient(rngs):
        return np.concatenate([np.ravel(a) for a in jax.tree.leaves(passes(rngs))])

    first, again, other = (value_and_gradient({"dropout": jax.random.key(k)}) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != value_and_gradient({})).any()


def test_bounded_activations():
    x = jnp.array([-3.0, -0.5, 0.5, 3.0])
    assert dorefa(1, 2).activation(x).tolist() == [0, 0, 0.5, 1]
    assert XNOR.activation(x).tolist() == [-1, -0.5, 0.5, 1]
    assert BIREAL.activation(x).tolist() == BINARY_SWISH.activation(x).tolist() == x.tolist()


def near(x, w):
    """Negative distance, of 1 at most.

    More of it.
    """
    return -jnp.minimum(jnp.abs(x - w), 1)


def test_an_arithmetic_says_what_it_is():
    assert repr(ADDER) == "<Arithmetic adder: -|x - w| (AdderNet, CVPR 2020)>"
    assert ADDER.__doc__ == "adder: -|x - w| (AdderNet, CVPR 2020)."
    mine = of_term(near)
    assert repr(mine) == "<Arithmetic near: Negative distance, of 1 at most>"
    renamed = dataclasses.replace(mine, name="mine", about="")
    assert repr(renamed) == "<Arithmetic mine>" and renamed.__doc__ == Arithmetic.__doc__
    assert repr(of_term(lambda x, w: x * w)) == "<Arithmetic custom>"


def test_layers_of_an_own_term_count_each_of_its_steps():
    mine = of_term(near, kernel_name="adder_kernel", kernel_init=jax.nn.initializers.ones)
    conv: Any = mine.conv(4, (3, 3))
    y, variables = jax.eval_shape(conv.init_with_output, jax.random.key(0), IMAGES)
    assert variables["params"]["adder_kernel"].shape == (3, 3, 3, 4)
    terms = y.size * 27

    def gradients(variables, x):
        return jax.vjp(conv.apply, variables, x)[1](jnp.ones(y.shape))

    with kernels.use("xla"):  # without a C++ compiler
        totals = count(conv.apply, variables, IMAGES).totals()  # a difference, a minimum, the sum
    assert (totals["additions"], totals["comparisons"]) == (2 * terms, terms)
    rules = Term(near, lambda x, w: x - w, lambda x, w: jnp.clip(w - x, -1, 1))
    conv = of_term(rules).conv(4, (3, 3))
    variables = {"params": {"kernel": variables["params"]["adder_kernel"]}}
    with kernels.use("xla"):
        totals = count(gradients, variables, IMAGES).totals()
    assert totals["additions"] == 6 * terms  # forward as well
    assert totals["multiplications"] == 2 * terms and totals["comparisons"] == 3 * terms


QUERIES: Any = np.asarray(np.random.default_rng(1).normal(size=(2, 5, 4, 8)), np.float32)
ATTENTIONS = [ADDER, BIT, BIBERT, L_MUL, SHIFT_ADD_VIT]


def attention_of(arithmetic: Arithmetic) -> Any:
    """Its attention as a function of queries, keys and values."""
    attention: Any = arithmetic.attention
    if not (isinstance(attention, type) and issubclass(attention, nn.Module)):
        return attention
    module = attention()
    variables = jax.eval_shape(module.init, jax.random.key(0), QUERIES, QUERIES, QUERIES)
    made = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), variables)
    return functools.partial(module.apply, made)


@pytest.mark.parametrize("arithmetic", ATTENTIONS, ids=lambda a: a.name)
def test_attentions_have_one_face(arithmetic):
    attend = attention_of(arithmetic)
    keys, mask = QUERIES[:, :, :2], np.ones((2, 1, 1, 5), bool)
    with kernels.use("xla"), jax.numpy_rank_promotion("raise"):
        y = jax.eval_shape(functools.partial(attend, mask=mask), QUERIES, keys, keys)
        narrow = jnp.asarray(QUERIES, jnp.bfloat16)
        z = jax.eval_shape(lambda q: jax.grad(lambda q: attend(q, q, q).sum())(q), narrow)
    assert (y.shape, y.dtype) == (QUERIES.shape, jnp.float32)
    assert (z.shape, z.dtype) == (QUERIES.shape, jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ATTENTIONS[:4], ids=lambda a: a.name)
def test_attentions_do_not_see_what_comes_later(arithmetic):
    attend = functools.partial(attention_of(arithmetic), is_causal=True)
    other = QUERIES.copy()
    other[:, 3:] = -9 * other[:, 3:]
    with kernels.use("xla"):
        causal = jax.jit(lambda q: attend(q, q, q))
        y, z = causal(QUERIES), causal(other)
    np.testing.assert_array_equal(y[:, :3], z[:, :3])
    assert (y[:, 3:] != z[:, 3:]).any()


def test_others_attend_by_products_and_bit_has_bits_after_a_relu():
    assert FLOAT.attention is None and BITNET.attention is None and SHIFT_PS.attention is None
    assert ADDER_SR.attention is ADDER.attention
    make: Any = BIT.dense_after_relu
    assert make(4) == dataclasses.replace(BIT.dense(4), signed=False)
    assert FLOAT.dense_after_relu is None
