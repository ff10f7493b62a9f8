"""Transposed convolution against Flax's and PyTorch's, by hand, and in every arithmetic.

On small integers every sum is an integer below 2^24, which float32 holds exactly in any order.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import (
    ADDER,
    BINARY,
    FLOAT,
    NAMED,
    lp_adder,
)
from nnlab.errors import InputError
from nnlab.layers import ConvTranspose
from nnlab.ops.adder import adder_conv

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
# One of each kind: two arrays of weights, draws at random, a state, errors in a format.
KINDS = {"shift_ps", "binary_connect_stochastic", "lp_adder", "posit8"}
EVERY = [
    pytest.param(name, marks=[] if name in KINDS else pytest.mark.slow)
    for name in (*NAMED, "lp_adder")
]


def integers(*shape):
    return np.asarray(np.random.default_rng(len(shape)).integers(-4, 5, shape), np.float32)


WINDOWS = [
    ((3, 3), {"strides": (2, 2)}),
    ((3, 2), {"strides": (2, 1), "padding": ((2, 1), (0, 3))}),
    ((2, 3), {"strides": (2, 2), "kernel_dilation": (3, 2)}),
    ((4,), {"strides": (3,)}),
    ((2, 3, 1), {"strides": (1, 2, 3), "padding": "VALID"}),
]


@pytest.mark.parametrize(("kernel_size", "options"), WINDOWS)
def test_float_is_that_of_flax(kernel_size, options):
    x = integers(2, *(3, 4, 2)[: len(kernel_size)], 3)
    ours = ConvTranspose(FLOAT.conv, 4, kernel_size, use_bias=True, **options)
    theirs = nn.ConvTranspose(4, kernel_size, **options)
    shapes: Any = jax.eval_shape(theirs.init, jax.random.key(0), x)
    own: Any = jax.eval_shape(ours.init, jax.random.key(0), x)
    assert own["params"]["Conv_0"] == shapes["params"]
    params = jax.tree.map(lambda leaf: integers(*leaf.shape), shapes["params"])
    y = jit(ours.apply)({"params": {"Conv_0": params}}, x)
    np.testing.assert_array_equal(y, jit(theirs.apply)({"params": params}, x))


@pytest.mark.slow
@pytest.mark.parametrize("extra", [0, 1])
def test_float_is_that_of_pytorch_with_its_kernel_flipped(extra):
    torch = pytest.importorskip("torch")
    x, weight = integers(2, 4, 5, 3), integers(3, 2, 3, 4)  # in, out, height, width
    expected = torch.nn.functional.conv_transpose2d(
        torch.tensor(np.asarray(x)).permute(0, 3, 1, 2),
        torch.tensor(np.asarray(weight)),
        stride=2,
        padding=1,
        output_padding=extra,
    )
    kernel = weight.transpose(2, 3, 0, 1)[::-1, ::-1]
    padding = (3 - 1 - 1, 3 - 1 - 1 + extra), (4 - 1 - 1, 4 - 1 - 1 + extra)
    layer = ConvTranspose(FLOAT.conv, 2, (3, 4), strides=2, padding=padding)
    y = layer.apply({"params": {"Conv_0": {"kernel": kernel}}}, x)
    np.testing.assert_array_equal(y, expected.permute(0, 2, 3, 1).numpy())


def test_adder_by_hand():
    # Steps [1, 3] at stride 2, "VALID", filter [0.5, -1]: windows [0, 1], [1, 0], [0, 3], [3, 0]
    # give -(0.5 + 2), -(0.5 + 1), -(0.5 + 4), -(2.5 + 1).
    layer: Any = ConvTranspose(ADDER.conv, 1, (2,), strides=2, padding="VALID")
    kernel = np.asarray([0.5, -1], np.float32).reshape(2, 1, 1)
    params = {"AdderConv_0": {"adder_kernel": kernel}}
    y = layer.apply({"params": params}, np.asarray([1.0, 3.0], np.float32).reshape(1, 2, 1))
    assert np.ravel(y).tolist() == [-2.5, -1.5, -4.5, -3.5]


def test_adder_gradients_are_those_of_images_with_zeros_between():
    x, kernel = integers(2, 3, 4, 3), integers(3, 2, 3, 2)
    layer: Any = ConvTranspose(ADDER.conv, 2, (3, 2), strides=(2, 3), padding=((1, 1), (0, 2)))

    def ours(kernel, x):
        return layer.apply({"params": {"AdderConv_0": {"adder_kernel": kernel}}}, x)

    def written_out(kernel, x):
        zeros = jnp.zeros((2, 3 * 2 - 1, 4 * 3 - 2, 3)).at[:, ::2, ::3].set(x)
        return adder_conv(zeros, kernel, padding=((1, 1), (0, 2)))

    compiled = jit(passes, static_argnums=0)
    for ys in zip(*(compiled(fn, kernel, x) for fn in (ours, written_out)), strict=True):
        np.testing.assert_array_equal(*ys)


def passes(fn, kernel, x):
    y, pull = jax.vjp(fn, kernel, x)
    return y, *pull(integers(*y.shape))


@pytest.mark.parametrize("name", EVERY)
def test_every_arithmetic_has_it(name):
    arithmetic = NAMED.get(name, lp_adder(optax.constant_schedule(1.5)))
    layer: Any = ConvTranspose(arithmetic.conv, 4, 3, strides=2, use_bias=True)
    keys: Any = dict(zip(("params", "dropout"), jax.random.split(jax.random.key(1)), strict=True))

    def gradients(x):
        variables = layer.init(keys, x)

        def total(params):
            inputs = variables | {"params": params}
            y, _ = layer.apply(inputs, x, rngs=keys, mutable=["batch_stats"])
            assert y.shape == (2, 10, 8, 4)
            return y.sum()

        return jax.grad(total)(variables["params"])

    (of_layer,) = jax.eval_shape(gradients, integers(2, 5, 4, 3)).values()
    assert of_layer["bias"].shape == (4,)


def test_dtype_is_of_the_computation():
    layer = ConvTranspose(BINARY.conv, 4, (3,), strides=2, dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), integers(2, 5, 3))
    assert (y.shape, y.dtype) == ((2, 10, 4), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (ConvTranspose(FLOAT.conv, 4, (3,)), InputError, r"of kernel_size \(3,\) expects x of 3 "),
        (ConvTranspose(FLOAT.conv, 4, 3, strides=0), ValueError, "^strides must .*, not 0"),
        (ConvTranspose(FLOAT.conv, 4, 0), ValueError, "^kernel_size must .*, not 0"),
        (ConvTranspose(FLOAT.conv, 4, 3, padding=-1), ValueError, "^padding must .*, not -1"),
        (ConvTranspose(NAMED["xnor"].conv, 4, (3,)), InputError, "expects x of 3 axes"),
    ],
)
def test_errors_name_what_was_given(layer, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(layer.init, jax.random.key(0), integers(2, 5, 4, 3))
