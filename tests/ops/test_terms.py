"""Products of one's own term: values, rules, derivatives left out, and what is refused."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import kernels
from nnlab.errors import InputError
from nnlab.ops.terms import Term, term_conv, term_dense
from nnlab.testing import check_gradient_rule, term_sum

NATIVE = "native" in kernels.status()["adder_conv"]["cpu"]
SLOW_NATIVE = pytest.param("native", marks=pytest.mark.slow)  # the C++ compiler takes a second
BODIES = ["xla", *([SLOW_NATIVE] if NATIVE else [])]


def normal(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)


def near(x, w):
    return 1 - jnp.minimum(jnp.abs(x - w), 1)  # 1 for two zeros: what fills a block must not count


def of_weights(x, w):
    return -((x - w) ** 2) / 2


def of_inputs(x, w):
    d = jnp.abs(w - x)
    return -jnp.where(d < 1, d**2 / 2, d - 0.5)


RULES = Term(near, lambda x, w: x - w, lambda x, w: jnp.clip(w - x, -1, 1))


def passes(op, x, kernel, g):
    y, pull = jax.vjp(op, x, kernel)
    return y, *pull(g)


def test_golden():
    # max(x, w) over (3, -1) and (1, 2): 3 + 2. The larger of two has the slope 1.
    term = Term(jnp.maximum)
    x, kernel, g = (np.asarray(a, np.float32) for a in ([[3, -1]], [[1], [2]], [[2]]))
    with kernels.use("xla"):
        y, dx, dw = passes(functools.partial(term_dense, term=term), x, kernel, g)
    assert np.array_equal(y, [[5]]) and np.array_equal(dx, [[2, 0]])
    assert np.array_equal(dw, [[0], [2]])


# 35 inputs and 33 outputs are no multiples of a block, nor of a vector.
@pytest.mark.parametrize("body", BODIES)
def test_rules_are_the_gradients_of_their_potentials(body):
    with kernels.use(body):
        check_gradient_rule(
            functools.partial(term_dense, term=RULES),
            [normal(0, 3, 35), normal(1, 35, 33)],
            value=term_sum(near),
            potentials=[term_sum(of_inputs), term_sum(of_weights)],
            thorough=False,
        )


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
def test_rules_of_windows_in_every_transformation(body):
    options: Any = dict(strides=(2, 1), padding=((1, 0), (2, 1)), kernel_dilation=(1, 2))
    with kernels.use(body):
        check_gradient_rule(
            functools.partial(term_conv, term=RULES, **options),
            [normal(0, 2, 5, 6, 5), normal(1, 3, 2, 5, 3)],
            value=term_sum(near, **options),
            potentials=[term_sum(of_inputs, **options), term_sum(of_weights, **options)],
            errors=[([normal(0, 2, 5), normal(1, 5, 3)], r"^term_conv expects x \[batch")],
        )


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
def test_a_rule_left_out_is_the_derivative(body):
    def value(x, w):
        return jnp.where(x > w, jnp.abs(x * w), -((x - w) ** 3)) + jnp.minimum(x, 0.3 * w)

    of = term_sum(value)
    with kernels.use(body):
        check_gradient_rule(
            functools.partial(term_conv, term=Term(value)),
            [normal(0, 2, 5, 6, 5), normal(1, 3, 2, 5, 3)],
            value=of,
            potentials=[of, of],
            thorough=False,
        )


def test_what_fills_up_blocks_is_no_nan_where_slopes_are_infinite_at_zero():
    term = Term(lambda x, w: jnp.sqrt(jnp.abs(w)) * x)
    # 7 taps fill blocks of 4 channels, of which 5 make two; 33 positions fill two lots of 32.
    x, kernel = normal(0, 1, 1, 33, 5), 1 + np.abs(normal(1, 1, 7, 5, 5))
    op = functools.partial(term_conv, term=term, padding="VALID")
    with kernels.use("xla"):
        results = jax.jit(functools.partial(passes, op))(x, kernel, normal(2, 1, 1, 27, 5))
    assert all(np.isfinite(result).all() for result in results)


def test_float64_stays_float64():
    term = Term(lambda x, w: 1.5 * x * w, filter_rule=lambda x, w: 1.5 * x - w)
    with jax.enable_x64(True):
        x, kernel, g = np.ones((2, 3)), np.full((3, 1), 0.1), np.ones((2, 1))
        results = jax.jit(functools.partial(passes, functools.partial(term_dense, term=term)))
        y, dx, dw = results(x, kernel, g)
        assert y.dtype == dx.dtype == dw.dtype == np.float64
        np.testing.assert_allclose(y, np.full((2, 1), 0.45), rtol=1e-15)
        np.testing.assert_allclose(dw, np.full((3, 1), 2.8), rtol=1e-15)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda x, w: (x * w).sum(), "has a reduce_sum"),
        (lambda x, w: x, r"an array of shape \(5, 1\)"),
        (lambda x: x, "1 positional argument but 2"),
        (lambda x, w: x @ w, "has a dot_general"),
        ("max", "function of x and w, not 'max'"),
    ],
)
def test_what_is_not_elementwise_is_refused(value, reason):
    with pytest.raises(InputError, match=f"^value must be .*{reason}.*\\.$"):
        Term(value)


def test_the_rule_has_derivatives_of_its_own_and_no_forward_mode():
    op = functools.partial(term_dense, term=Term(lambda x, w: jnp.sqrt(1 + (x - w) ** 2)))
    x, kernel = normal(0, 2, 3), normal(1, 3, 2)

    def penalty(op):
        return lambda x: jnp.sum(jax.grad(lambda x: jnp.sin(op(x, kernel)).sum())(x) ** 2)

    with kernels.use("xla"), jax.numpy_rank_promotion("raise"):
        ours = jax.jit(jax.grad(penalty(op)))(x)
        with pytest.raises(InputError, match="term_conv has a gradient rule"):
            jax.jvp(lambda x: op(x, kernel), (x,), (x,))
    written_out = term_sum(lambda x, w: jnp.sqrt(1 + (x - w) ** 2))
    np.testing.assert_allclose(ours, jax.jit(jax.grad(penalty(written_out)))(x), 1e-4, 1e-5)


def test_a_rule_may_be_a_constant():
    term = Term(lambda x, w: x + w, filter_rule=lambda x, w: 1.0, input_rule=lambda x, w: w / w)
    x, kernel = normal(0, 2, 3), normal(1, 3, 4)
    with kernels.use("xla"):
        _, dx, dw = passes(
            functools.partial(term_dense, term=term), x, kernel, np.ones((2, 4), "f")
        )
    assert np.array_equal(dx, np.full((2, 3), 4)) and np.array_equal(dw, np.full((3, 4), 2))
