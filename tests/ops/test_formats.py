"""Formats against enumerations, the layer scale against float64, products against their rules."""

import functools

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

RNG = np.random.default_rng(0)


def floats(*shape, spread=3.0):
    return jnp.asarray(RNG.normal(size=shape) * 2.0 ** RNG.normal(0, spread, shape), jnp.float32)


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
    nearest = jax.jit(form.round)
    for x, expected in (
        (v.astype(np.float32), v),
        (middle, tie),
        (np.nextafter(middle, np.float32(np.inf)), upper),
        (np.nextafter(middle, np.float32(-np.inf)), lower),
    ):
        np.testing.assert_array_equal(nearest(jnp.asarray(x)), expected.astype(np.float32))
    beyond = jnp.array([3.4e38, -3.4e38, jnp.inf, -jnp.inf, jnp.nan])
    expected = np.array([largest, -largest, largest, -largest, np.nan], np.float32)
    np.testing.assert_array_equal(form.round(beyond), expected)


@pytest.mark.parametrize("size", [1e-12, 1.0, 3e7])
@pytest.mark.parametrize("sigma", [0, 2])
def test_scale(size, sigma):
    x = floats(200).at[:3].set(0.0) * size
    values, scale = scaled(posit(8, 1), sigma).split(x)
    wide = np.asarray(x, np.float64)
    center = np.round(np.log2(np.abs(wide[wide != 0])).mean())
    assert float(scale) == 2.0 ** (center + sigma)
    reduced = jnp.asarray(wide / 2.0 ** (center + sigma), jnp.float32)  # exact
    expected = np.asarray(posit_round(reduced, 8, 1), np.float64) * 2.0 ** (center + sigma)
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert (np.asarray(values[:3]) == 0).all()


def test_scale_golden():
    # log2 of 1/2, 4, 16 is -1, 2, 4, mean 5/3, rounded 2: S = 2^4. posit(4, 0) holds 1/4, 1/2,
    # 3/4, 1, 3/2, 2, 4: of 1/32, 1/4 and 1 it has the last two, and 1/4 is its smallest.
    values, scale = scaled(posit(4, 0)).split(jnp.array([0.5, 4.0, 16.0]))
    assert float(scale) == 16 and values.tolist() == [4, 4, 16]


def test_scale_of_nothing_and_of_what_is_not_finite():
    form = scaled(FLOAT8_E5M2)
    assert form.round(jnp.zeros(3)).tolist() == [0, 0, 0]
    assert form.round(jnp.zeros((0, 2))).shape == (0, 2)
    np.testing.assert_array_equal(form.round(jnp.array([jnp.nan, 1.0])), [np.nan, 1])


def test_formats_keep_the_dtype_and_are_straight_through():
    for form in (posit(16, 2), scaled(posit(8, 2)), FLOAT8_E4M3):
        x = floats(5).astype(jnp.bfloat16)
        y, pull = jax.vjp(form.round, x)
        g = jnp.arange(5.0, dtype=jnp.bfloat16)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(pull(g)[0], g)


WEIGHTS, INPUTS, ERRORS = scaled(posit(8, 1)), posit(8, 1), scaled(posit(8, 2))


def signs(x, kernel, **options):
    return binary_conv(sign_ste(x), binary_weights(kernel), **options)


@pytest.mark.parametrize("product", [conv, adder_conv, signs])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_product_in_formats_is_that_of_rounded_operands(product, dtype):
    x, kernel = floats(2, 5, 4, 3).astype(dtype), floats(3, 2, 3, 4).astype(dtype)
    options = dict(strides=(2, 1), padding="VALID")
    op = formatted(product, kernel=WEIGHTS, inputs=INPUTS, errors=ERRORS)
    g = floats(2, 2, 3, 4).astype(dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def both(op, x, kernel, g):
        y, pull = jax.vjp(functools.partial(op, **options), x, kernel)
        return y, *pull(g)

    x_rounded, kernel_rounded, g_rounded = INPUTS.round(x), WEIGHTS.round(kernel), ERRORS.round(g)
    for rounded, real in ((x_rounded, x), (kernel_rounded, kernel), (g_rounded, g)):
        assert (rounded != real).any()
    expected = both(product, x_rounded, kernel_rounded, g_rounded)
    for got, wanted in zip(both(op, x, kernel, g), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_parts_without_a_format_stay_as_they_are():
    x, kernel = floats(1, 4, 4, 2), floats(3, 3, 2, 2)
    y, pull = jax.vjp(formatted(errors=posit(8, 2)), x, kernel)
    expected, reference = jax.vjp(conv, x, kernel)
    np.testing.assert_array_equal(y, expected)
    g = floats(*y.shape)
    for got, wanted in zip(pull(g), reference(posit_round(g, 8, 2)), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_under_vmap_each_has_its_own_scale():
    x = jnp.stack([floats(7), 1000 * floats(7)])
    expected = jnp.stack([WEIGHTS.round(row) for row in x])
    np.testing.assert_array_equal(jax.vmap(WEIGHTS.round)(x), expected)
    assert (WEIGHTS.round(x) != expected).any()


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
