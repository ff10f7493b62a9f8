"""XNOR-Net's product against float64, its rules against the potentials of paper and code."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import count, stored_bytes
from nnlab.ops.xnor import xnor_conv
from nnlab.testing import check_gradient_rule, image_windows

OPTIONS: Any = dict(strides=(2, 1), padding=((1, 0), (0, 1)))
held = jax.lax.stop_gradient


def windows(x):
    return image_windows(x, (2, 2), **OPTIONS)


def conv_sum(x, w):
    return jnp.tensordot(windows(x), w, 3)


def sign(x):
    return jnp.where(x >= 0, 1.0, -1.0)


def clip(x):
    return jnp.clip(x, -1, 1)


def alpha(w):
    return held(jnp.abs(w).mean((0, 1, 2)))


def position_scale(x):
    return held(jnp.abs(windows(x)).mean((3, 4, 5)))[..., None]


def operands() -> Any:
    """Numbers of few bits off -1, 0 and 1, filters of mean size 1 or 1/2: exact in float32.

    In bfloat16 a result is rounded once, and once more where a scale or a slope follows.
    """
    rng = np.random.default_rng(0)
    x = rng.permutation(np.repeat([0.5, -0.5, 1.5, -1.5], 12)).reshape(2, 4, 3, 2)
    sizes = [rng.permutation(np.repeat(two, 4)) for two in ([0.25, 0.75], [0.5, 1.5], [0.25, 1.75])]
    w = np.stack(sizes, axis=-1) * rng.choice([-1, 1], (8, 3))
    return [np.asarray(x, np.float32), np.asarray(w.reshape(2, 2, 2, 3), np.float32)]


@pytest.mark.slow
@pytest.mark.parametrize(("filter_rule", "input_scale"), [("paper", True), ("code", False)])
def test_rules(filter_rule, input_scale):
    def scaled(x, y):
        return y * position_scale(x) if input_scale else y

    def latent(w):
        factor = 1 if filter_rule == "paper" else 1 - 1 / 2  # of 2 inputs
        return factor * (w / 8 + alpha(w) * clip(w))  # of 8 terms

    check_gradient_rule(
        functools.partial(xnor_conv, filter_rule=filter_rule, input_scale=input_scale, **OPTIONS),
        operands(),
        value=lambda x, w: np.asarray(scaled(x, conv_sum(sign(x), alpha(w) * sign(w)))),
        potentials=[
            lambda x, w: scaled(x, conv_sum(clip(x), alpha(w) * sign(w))),
            lambda x, w: scaled(x, conv_sum(sign(x), latent(w))),
        ],
        rtol=0,
        atol=0,
        bfloat16_rtol=2**-7,
    )


def test_the_edges_of_the_rules():
    rules: Any = (("paper", 1 / 2 + 1), ("code", 1 / 2 * 1 / 2))
    # One filter of two inputs: alpha is 1, 1/n and 1 - 1/c are 1/2.
    w = np.asarray([1.0, -1.0], np.float32).reshape(1, 1, 2, 1)
    x = jnp.ones((1, 1, 1, 2))
    for rule, expected in rules:
        gradient = jax.jit(jax.grad(lambda w, r=rule: xnor_conv(x, w, filter_rule=r).sum()))(w)
        assert np.ravel(gradient).tolist() == [expected] * 2


def test_golden():
    # Signs + - against + +: agree and disagree, 0; with the second filter, + -, 2. K is the mean
    # of 0.5 and 1.5; the scales of the filters are 0.25 and 2.
    x = np.asarray([0.5, -1.5], np.float32).reshape(1, 1, 1, 2)
    w = np.asarray([[0.125, 1.0], [0.375, -3.0]], np.float32).reshape(1, 1, 2, 2)
    op = jax.jit(xnor_conv, static_argnames="input_scale")
    assert op(x, w).ravel().tolist() == [0, 2 * 1 * 2]
    assert op(2 * x, w).ravel().tolist() == [0, 2 * 2 * 2]
    assert op(2 * x, w, input_scale=False).ravel().tolist() == [0, 2 * 2]


def test_what_a_term_and_a_weight_cost():
    x = jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 8, 5), jnp.float32)
    counts = count(xnor_conv, x, w)
    assert counts.bit_operations == {"bool": 16 * 5 * 72}
    # An output is multiplied by alpha and by K, a position of K by 1/n.
    assert counts.multiplications == {"float32": 2 * 16 * 5 + 16}
    # abs(x) over 8 inputs, then over 9 taps, once for all filters.
    assert counts.additions == {"int8": 16 * 5 * 72, "float32": 16 * 7 + 16 * 9}
    assert stored_bytes(lambda w, x: xnor_conv(x, w), w, x) == 360 // 8 + 4 * 5


def test_arguments_that_cannot_be():
    x, w = operands()
    wrong: Any = "both"
    with pytest.raises(
        ValueError, match=r'^filter_rule must be "paper" or "code", not \'both\'\.$'
    ):
        xnor_conv(x, w, filter_rule=wrong)
    with pytest.raises(
        ValueError, match=r'^filter_rule "code" needs 2 inputs .* \(2, 2, 1, 3\)\.$'
    ):
        xnor_conv(x[..., :1], w[:, :, :1], filter_rule="code")


def test_the_rule_of_the_code_counts_inputs_in_volumes_as_well():
    rng = np.random.default_rng(0)
    x = np.asarray(rng.normal(size=(1, 3, 2, 2, 3)), np.float32)
    w = np.asarray(rng.normal(size=(2, 1, 2, 3, 2)), np.float32)

    @jax.jit
    def cotangents(x, w):
        rules: Any = ("paper", "code")
        pulls = (jax.vjp(lambda w, r=r: xnor_conv(x, w, filter_rule=r), w)[1] for r in rules)
        return [pull(np.ones((1, 3, 2, 2, 2), np.float32))[0] for pull in pulls]

    paper, code = cotangents(x, w)
    np.testing.assert_allclose(code, paper * (1 - 1 / 3), rtol=1e-6)  # 3 inputs, no weight at 1
