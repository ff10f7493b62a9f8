"""Formats against enumerations, the layer scale against float64, products against their rules."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nnlab.costs import count, stored_bytes
from nnlab.errors import InputError
from nnlab.ops.adder import adder_conv
from nnlab.ops.binary import binary_conv, binary_weights, sign_ste
from nnlab.ops.convolution import conv
from nnlab.ops.formats import (
    BFLOAT16,
    FLOAT8_E4M3,
    FLOAT8_E5M2,
    formatted,
    posit,
    scaled,
)
from nnlab.ops.posit import posit_round

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
RNG = np.random.default_rng(0)


def floats(*shape, spread=3.0) -> Any:
    return np.asarray(RNG.normal(size=shape) * 2.0 ** RNG.normal(0, spread, shape), np.float32)


@pytest.mark.parametrize(
    ("form", "dtype", "largest"),
    [
        (FLOAT8_E4M3, ml_dtypes.float8_e4m3fn, 448),
        (FLOAT8_E5M2, ml_dtypes.float8_e5m2, 57344),
        (BFLOAT16, ml_dtypes.bfloat16, 2.0**127 * (2 - 2**-7)),
    ],
    ids=["e4m3", "e5m2", "bfloat16"],
)
def test_small_floats_at_all_codes_midpoints_and_neighbours(form, dtype, largest):
    codes = np.arange(1 << form.bits).astype(f"uint{form.bits}")
    with np.errstate(invalid="ignore"):  # some codes are NaN
        v = codes.view(dtype).astype(np.float64)
    v = np.unique(v[np.isfinite(v)])
    normal = np.abs(v) >= 2.0**-126  # below, bfloat16 shares float32's flush to 0 on some platforms
    v = v[normal | (v == 0)]
    lower, upper = v[:-1], v[1:]
    middle = (lower + upper) / 2
    inside = np.abs(middle) >= 2.0**-126
    lower, upper, middle = lower[inside], upper[inside], middle[inside].astype(np.float32)

    def even(x):  # the last bit of the code
        return x.astype(dtype).view(codes.dtype) % 2 == 0

    tie = np.where(even(lower), lower, upper)
    nearest = jit(form.round)
    for x, expected in (
        (v.astype(np.float32), v),
        (middle, tie),
        (np.nextafter(middle, np.float32(np.inf)), upper),
        (np.nextafter(middle, np.float32(-np.inf)), lower),
    ):
        np.testing.assert_array_equal(nearest(jnp.asarray(x)), expected.astype(np.float32))
    beyond = np.asarray([3.4e38, -3.4e38, np.inf, -np.inf, np.nan], np.float32)
    expected = np.array([largest, -largest, largest, -largest, np.nan], np.float32)
    np.testing.assert_array_equal(nearest(beyond), expected)


@pytest.mark.parametrize(("size", "sigma"), [(1e-12, 2), (3e7, 0)])
def test_scale(size, sigma):
    x = floats(200) * np.asarray(size, np.float32)
    x[:3] = 0
    values, scale = jit(scaled(posit(8, 1), sigma).split)(x)
    wide = np.asarray(x, np.float64)
    center = np.round(np.log2(np.abs(wide[wide != 0])).mean())
    assert float(scale) == 2.0 ** (center + sigma)
    reduced = np.asarray(wide / 2.0 ** (center + sigma), np.float32)  # exact
    expected = np.asarray(jit(lambda x: posit_round(x, 8, 1))(reduced), np.float64) * 2.0 ** (
        center + sigma
    )
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert (np.asarray(values[:3]) == 0).all()


def test_scale_golden():
    # log2 of 1/2, 4, 16 is -1, 2, 4, mean 5/3, rounded 2: S = 2^4. posit(4, 0) holds 1/4, 1/2,
    # 3/4, 1, 3/2, 2, 4: of 1/32, 1/4 and 1 it has the last two, and 1/4 is its smallest.
    values, scale = jit(scaled(posit(4, 0)).split)(jnp.array([0.5, 4.0, 16.0]))
    assert float(scale) == 16 and values.tolist() == [4, 4, 16]


def test_scale_of_nothing_and_of_what_is_not_finite():
    form = scaled(FLOAT8_E5M2)
    rounded = jit(form.round)
    assert rounded(np.zeros(2, np.float32)).tolist() == [0, 0]
    assert jax.eval_shape(form.round, np.zeros((0, 2), np.float32)).shape == (0, 2)
    np.testing.assert_array_equal(rounded(jnp.array([jnp.nan, 1.0])), [np.nan, 1])


def test_formats_keep_the_dtype_and_are_straight_through():
    for form in (posit(16, 2), scaled(posit(8, 2)), FLOAT8_E4M3):
        x = floats(5).astype(jnp.bfloat16)
        g = np.arange(5).astype(jnp.bfloat16)
        y, dx = jit(lambda x, g, form=form: (form.round(x), *jax.vjp(form.round, x)[1](g)))(x, g)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(dx, g)


WEIGHTS, INPUTS, ERRORS = scaled(posit(8, 1)), posit(8, 1), scaled(posit(8, 2))


def signs(x, kernel, **options) -> Any:
    return binary_conv(sign_ste(x), binary_weights(kernel), **options)


@pytest.mark.parametrize(
    ("product", "dtype"),
    [
        (conv, jnp.float32),
        *(pytest.param(op, jnp.float32, marks=pytest.mark.slow) for op in (adder_conv, signs)),
        *(pytest.param(op, jnp.bfloat16, marks=pytest.mark.slow) for op in (conv, adder_conv)),
    ],
)
def test_a_product_in_formats_is_that_of_rounded_operands(product, dtype):
    x, kernel = floats(2, 5, 4, 3).astype(dtype), floats(3, 2, 3, 4).astype(dtype)
    options = dict(strides=(2, 1), padding="VALID")
    op = formatted(product, kernel=WEIGHTS, inputs=INPUTS, errors=ERRORS)
    g = floats(2, 2, 3, 4).astype(dtype)

    @functools.partial(jit, static_argnums=0)
    def both(op, x, kernel, g):
        y, pull = jax.vjp(functools.partial(op, **options), x, kernel)
        return y, *pull(g)

    forms = (INPUTS, x), (WEIGHTS, kernel), (ERRORS, g)
    x_rounded, kernel_rounded, g_rounded = (jit(form.round)(a) for form, a in forms)
    for rounded, real in ((x_rounded, x), (kernel_rounded, kernel), (g_rounded, g)):
        assert not np.array_equal(rounded, real)
    expected = both(product, x_rounded, kernel_rounded, g_rounded)
    for got, wanted in zip(both(op, x, kernel, g), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_parts_without_a_format_stay_as_they_are():
    x, kernel = floats(1, 4, 4, 2), floats(3, 3, 2, 2)
    g = floats(1, 4, 4, 2)

    @functools.partial(jit, static_argnums=0)
    def both(op, g):
        y, pull = jax.vjp(op, x, kernel)
        return y, *pull(g)

    expected = both(conv, jit(lambda g: posit_round(g, 8, 2))(g))
    for got, wanted in zip(both(formatted(errors=posit(8, 2)), g), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_under_vmap_each_has_its_own_scale():
    x = np.stack([floats(7), 1000 * floats(7)])
    rounded = jit(WEIGHTS.round)
    expected = np.stack([rounded(row) for row in x])
    np.testing.assert_array_equal(jit(jax.vmap(WEIGHTS.round))(x), expected)
    assert not np.array_equal(rounded(x), expected)


def test_conversions_cost_nothing_and_weights_are_stored_in_their_bits():
    x = jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)
    op = formatted(kernel=WEIGHTS, inputs=INPUTS, errors=ERRORS)
    assert count(op, x, kernel) == count(conv, x, kernel)
    # 135 weights of a byte, and the scale in float32
    assert stored_bytes(lambda w, x: op(x, w), kernel, x) == 135 + 4
    op = formatted(kernel=posit(6, 1))
    assert stored_bytes(lambda w, x: op(x, w), kernel, x) == 102  # 810 bits


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: posit(17, 1), r"^posit\(17, 1\) was given; expected 2 to 16 bits"),
        (lambda: scaled(WEIGHTS), r"^scaled posit\(8, 1\) has a scale already"),
        (lambda: scaled(INPUTS, 99), "^sigma must be an integer from -32 to 32, not 99"),
    ],
)
def test_bad_formats_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
