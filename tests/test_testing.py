"""The checker accepts right rules, and says in one sentence what is wrong with each wrong one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.core import Tracer

from nnlab.ops.binary import sign_ste
from nnlab.testing import check_gradient_rule, image_windows

X: Any = jnp.asarray([[-1.75, 0.5, 0.25], [0.75, -0.5, 1.5]])
W = jnp.asarray([0.5, -0.25, 1.25])


def right_dx(x, w, g):
    return (g * w).astype(x.dtype)


def right_dw(x, w, g):
    return (g * x).astype(w.dtype)


def scale(value=jnp.multiply, dx=right_dx, dw=right_dw):
    """The op x * w of x [n, k] and w [k]; the tests replace parts of it by wrong ones."""

    @jax.custom_vjp
    def product(x, w):
        return value(x, w)

    def backward(residuals, g):
        x, w = residuals
        return dx(x, w, g), dw(x, w, g).sum(0)

    product.defvjp(lambda x, w: (value(x, w), (x, w)), backward)

    def scale(x, w):
        if x.shape[-1] != w.shape[-1]:
            raise ValueError(f"scale needs equal sizes, not {x.shape[-1]} and {w.shape[-1]}.")
        return product(x, w)

    return scale


def check(op, args=(X, W), potentials=(jnp.multiply, jnp.multiply), **options):
    defaults: Any = dict(value=np.multiply, rtol=0, atol=0, potentials=potentials)
    check_gradient_rule(op, args, **defaults | options)


def test_the_lines_of_the_docstring():
    x = jnp.linspace(-2.0, 2.0, 8)
    check_gradient_rule(
        sign_ste,
        [x],
        value=lambda x: np.where(x >= 0, 1.0, -1.0),
        potentials=[lambda x: jnp.clip(x, -1, 1)],
    )


@pytest.mark.slow
def test_accepts_right_rules():
    check(scale(), errors=[((X, W[:2]), "^scale needs equal sizes, not 3 and 2")])
    check(scale(), potentials=(jnp.multiply, None))  # w is held, in float32
    nan = X.at[0, 0].set(jnp.nan).at[1, 1].set(jnp.inf)
    check(scale(), args=(nan, W))


def shifted_if_traced(x, w):
    return x * w + isinstance(x, Tracer)


def needs_numbers(x, w, g):
    return g * w if float(jnp.max(x)) < 1e9 else g


@jax.custom_batching.custom_vmap
def wrong_in_batches(x, w):
    return x * w


@wrong_in_batches.def_vmap
def _(axis_size, in_batched, x, w):
    return x * w - 1, True


def narrow(x, w):
    return (x * w).astype(jnp.bfloat16)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            dict(value=lambda x, w: x * w + 0.5),
            r"value in float32, eager .* by 0\.5, at \(\d, \d\): ",
        ),
        (dict(value=lambda x, w: x * w * jnp.nan), "value in float32, eager .* by inf"),
        (dict(value=lambda x, w: (x * w)[:1]), r"float32, eager raised .* shape \(1, 3\) but"),
        (dict(value=narrow), "value in float32, eager has dtype bfloat16, not float32"),
        (dict(value=shifted_if_traced), "value in float32, jitted differs most, by 1,"),
        (dict(value=wrong_in_batches), "value under vmap over argument 0 differs most, by 1,"),
        (dict(dx=lambda x, w, g: g * x), "cotangent of argument 0 in float32, eager differs"),
        (dict(dw=lambda x, w, g: g), "cotangent of argument 1 in float32, eager differs"),
        (dict(dw=lambda x, w, g: 2 * g * x), "cotangent of argument 1 in float32, eager differs"),
        (dict(dx=needs_numbers), "scale in float32, jitted raised ConcretizationTypeError"),
        (
            dict(dx=lambda x, w, g: wrong_in_batches(g, w).astype(x.dtype)),
            "cotangent of argument 0 under vmap over argument 0 differs most, by 1,",
        ),
        (
            dict(dw=lambda x, w, g: (x * g).astype(jnp.bfloat16)),
            "cotangent of argument 1 in float32, eager has dtype bfloat16, not float32",
        ),
        (dict(dx=lambda x, w, g: g * w), "argument 0 in both, eager has dtype float32, not bf"),
        (
            dict(value=lambda x, w: (x * w).astype(jnp.float32)),
            "value in bfloat16, eager has dtype float32, not bfloat16",
        ),
    ],
)
def test_rejects_wrong_rules(wrong, message):
    thirds = X / 3, W  # not exact in bfloat16
    with pytest.raises(AssertionError, match=message):
        check(scale(**wrong), thirds, rtol=1e-6)
    assert not jax.config.read("jax_enable_x64")


def fails(error, message):
    def op(x, w):
        raise error(message)

    return op


@pytest.mark.parametrize(
    "op, message",
    [
        (fails(ValueError, "Sizes differ."), r"\(float32\(2, 3\), 1\) says 'Sizes differ\.', not"),
        (fails(ValueError, "sizes"), "should say one sentence, not 'sizes'"),
        (fails(TypeError, "sizes\ndiffer."), "should say one sentence"),
        (fails(KeyError, "sizes differ."), "raised KeyError"),
        (scale(), "raised AttributeError"),
        (lambda x, w: x, "raised nothing, but 'sizes' was expected"),
    ],
)
def test_rejects_wrong_errors(op, message):
    with pytest.raises(AssertionError, match=message):
        check(op, errors=[((X, 1), "sizes")])


def test_references_run_in_float64_and_x64_is_restored():
    seen = []

    def value(x, w):
        seen.append((x.dtype, w.dtype))
        raise KeyboardInterrupt

    for ambient in (False, True):
        with jax.enable_x64(ambient), pytest.raises(KeyboardInterrupt):
            check(scale(), value=value)
            assert jax.config.read("jax_enable_x64") == ambient
    assert seen == [(np.float64, np.float64)] * 2


def test_a_potential_has_the_shape_of_the_output():
    with pytest.raises(AssertionError, match=r"\(2, 3\)"):
        check(scale(), potentials=(lambda x, w: (x * w).sum(), None))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_image_windows_are_those_of_a_convolution(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    rng = np.random.default_rng(0)
    x, kernel = (rng.integers(-8, 9, s).astype(np.float32) for s in (shape, kernel_shape))

    @jax.jit
    def both(x, kernel):
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            np.broadcast_to(options["strides"], 2).tolist(),
            options["padding"],
            rhs_dilation=np.broadcast_to(options["kernel_dilation"], 2).tolist(),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return image_windows(x, kernel_shape[:2], **options), y

    windows, expected = both(x, kernel)
    np.testing.assert_array_equal(np.einsum("nijabc,abco->nijo", windows, kernel), expected)
