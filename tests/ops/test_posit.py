"""Posits against an enumeration of all codes, each decoded from its bits in exact fractions."""

import functools
import re
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.ops.posit import posit_decode, posit_encode, posit_round
from nnlab.testing import check_gradient_rule

FEW = {(2, 0), (3, 2), (5, 3), (8, 1), (16, 1)}
FORMATS = [
    pytest.param(n, es, marks=[] if (n, es) in FEW else pytest.mark.slow)
    for n in (2, 3, 5, 8, 16)
    for es in range(4)
]


def value(code: int, n: int, es: int) -> Fraction:
    """The definition, read off the string of bits."""
    if code == 0:
        return Fraction(0)
    if code >= 1 << (n - 1):
        return -value((1 << n) - code, n, es)
    bits = format(code, f"0{n}b")[1:]
    first = re.match("0+|1+", bits)
    assert first is not None
    run = first.end()
    k = run - 1 if bits[0] == "1" else -run
    rest = bits[run + 1 :]
    exponent = int(rest[:es].ljust(es, "0") or "0", 2)
    fraction = rest[es:]
    f = Fraction(int(fraction or "0", 2), 2 ** len(fraction))
    return Fraction(2) ** (2**es * k + exponent) * (1 + f)


@functools.cache
def positive(n: int, es: int) -> np.ndarray:
    """The numbers of the codes 1 to 2^(n-1) - 1, exact in float32."""
    values = [value(code, n, es) for code in range(1, 1 << (n - 1))]
    result = np.array([float(v) for v in values], np.float32)
    assert [Fraction(float(v)) for v in result] == values
    return result


@pytest.mark.parametrize(("n", "es"), FORMATS)
def test_every_code(n, es):
    v = positive(n, es)
    assert (np.diff(v) > 0).all()
    assert v[-1] == 2.0 ** (2**es * (n - 2)) == 1 / v[0]
    every = np.concatenate([[0], v, [np.nan], -v[::-1]]).astype(np.float32)
    codes = np.arange(1 << n)
    encode, rounding, decode = (
        jax.jit(fn, static_argnums=(1, 2)) for fn in (posit_encode, posit_round, posit_decode)
    )
    encoded = encode(jnp.asarray(every), n, es)
    assert encoded.dtype == (jnp.uint8 if n <= 8 else jnp.uint16)
    np.testing.assert_array_equal(encoded, codes)
    np.testing.assert_array_equal(decode(encoded, n, es), every)
    np.testing.assert_array_equal(rounding(jnp.asarray(every), n, es), every)


@pytest.mark.parametrize(("n", "es"), FORMATS)
def test_midpoints_and_their_neighbours(n, es):
    # What lies in the middle of two codes has their bits and a 1 behind: a posit of n + 1 bits.
    v = positive(n, es)
    middle = np.array([float(value(2 * c + 1, n + 1, es)) for c in range(1, len(v))], np.float32)
    lower, upper = v[:-1], v[1:]
    code = np.arange(1, len(v))
    cases = {
        "tie": (middle, np.where(code % 2 == 0, lower, upper)),
        "above": (np.nextafter(middle, np.float32(np.inf)), upper),
        "below": (np.nextafter(middle, np.float32(0)), lower),
        "next to a posit": (np.nextafter(upper, np.float32(0)), upper),
        "next to the lower posit": (np.nextafter(lower, np.float32(np.inf)), lower),
    }
    if n == 16:  # where float32 is dense enough in the last two, for any es
        assert (np.nextafter(upper, np.float32(0)) > middle).all()
    x, expected = (np.stack(arrays) for arrays in zip(*cases.values(), strict=True))
    both = np.stack([x, -x])
    got = jax.jit(posit_round, static_argnums=(1, 2))(both, n, es)
    for what, row, opposite, wanted in zip(cases, *got, expected, strict=True):
        np.testing.assert_array_equal(row, wanted, what)
        np.testing.assert_array_equal(opposite, -wanted, what)


def test_golden():
    # posit(8, 1) next above 1 is 1 + 1/16; 1024 and 4096 are its last two, 2048 their middle as
    # bits, and 1024 has the even code 0b1111110.
    x = jnp.array([1.03, 1.04, 2048.0, 2049.0, 1e9, 1e-9, -1e-30, 0.0, -0.0, 3.0])
    expected = [1.0, 1.0625, 1024, 4096, 4096, 2**-12, -(2**-12), 0, 0, 3]
    assert jax.jit(posit_round, static_argnums=(1, 2))(x, 8, 1).tolist() == expected
    # sign 0, regime 10 (k = 0), exponent 1, fraction 1000: 2 (1 + 1/2) = 3
    assert jax.jit(posit_encode, static_argnums=(1, 2))(jnp.float32(3), 8, 1) == 0b01011000


def test_what_is_no_number_and_what_floats_call_denormal():
    x = np.array([np.inf, -np.inf, np.nan, 1e-45, -1e-40], np.float32)
    expected = [np.nan] * 3 + [2.0**-12, -(2.0**-12)]
    rounded, encoded = (jax.jit(fn, static_argnums=(1, 2)) for fn in (posit_round, posit_encode))
    np.testing.assert_array_equal(rounded(jnp.asarray(x), 8, 1), expected)
    assert encoded(jnp.asarray(x), 8, 1).tolist() == [128, 128, 128, 1, 255]
    low = jnp.array([1, 0x8001], jnp.uint16).view(jnp.bfloat16)
    assert rounded(low, 8, 1).astype(jnp.float32).tolist() == expected[3:]


@pytest.mark.parametrize(("dtype", "n", "es"), [("bfloat16", 16, 3), ("float16", 16, 0)])
def test_every_narrow_float_rounds_as_in_float32(dtype, n, es):
    # so that results are exact in the narrow dtype
    bits = np.arange(1 << 16, dtype=np.uint16)
    x = jnp.asarray(bits).view(dtype)
    rounded = jax.jit(posit_round, static_argnums=(1, 2))
    got = rounded(x, n, es)
    assert got.dtype == dtype
    wide = np.asarray(rounded(x.astype(jnp.float32), n, es))
    normal = ~((np.asarray(x, np.float32) != 0) & (np.abs(np.asarray(x, np.float32)) < 2.0**-126))
    np.testing.assert_array_equal(np.asarray(got, np.float32)[normal], wide[normal])


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_straight_through(thorough):
    x = np.asarray(np.random.default_rng(0).normal(size=(3, 5)) * 8, np.float32)
    codes = np.arange(1 << 7)[1:]
    v = np.array([float(value(int(c), 8, 1)) for c in codes])

    def nearest(x):  # the mean of two neighbours is their middle below 1024
        return np.sign(x) * v[np.abs(np.abs(np.asarray(x))[..., None] - v).argmin(-1)]

    errors = [([x.astype("int32")], r"posit\(8, 1\) .* not for int32; expected one of float32")]
    rule = functools.partial(posit_round, n=8, es=1)
    assert float(jnp.abs(x).max()) < 1024
    exact: dict[str, Any] = dict(rtol=0, atol=0, thorough=thorough)
    check_gradient_rule(rule, [x], value=nearest, potentials=[lambda x: x], errors=errors, **exact)


@pytest.mark.parametrize(("n", "es"), [(1, 0), (17, 0), (8, 4), (8, -1), (8.0, 1)])
def test_other_formats_are_refused(n, es):
    for fn in (posit_round, posit_encode, posit_decode):
        with pytest.raises(InputError, match="expected 2 to 16 bits, of which 0 to 3 of exponent"):
            fn(jnp.zeros(3), n, es)


def test_a_float_too_narrow_for_the_format_is_refused():
    with pytest.raises(InputError, match=r"2\^24, which is not for float16; expected .* bfloat16"):
        posit_round(jnp.zeros(3, jnp.float16), 8, 2)
