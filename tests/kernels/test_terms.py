"""Libraries of own terms: what they compute, when there is none, and how processes share them."""

import functools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnlab import kernels
from nnlab.kernels import native, term_libraries
from nnlab.kernels.adder_xla import filter_sum, input_sum, window_sum
from nnlab.kernels.term_programs import NotNativeError, program_of
from nnlab.kernels.term_source import source_of
from nnlab.kernels.terms import Term, term_conv, term_conv_filter_gradient, term_conv_input_gradient
from nnlab.kernels.window import POINT, Window

needs_library = pytest.mark.skipif(
    kernels.status()["adder_conv"]["cpu"] == "xla", reason="the native kernels are not built"
)
WHOLES = jnp.asarray([3, 1, 4, 1])
TABLE = np.asarray(np.random.default_rng(0).normal(size=100), np.float32)


def normal(seed, *shape) -> Any:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)


def relu(x, w):
    return jax.nn.relu(x - w) * jnp.where(w > 0, 1.5, -0.25)


def rounded(x, w):
    return jnp.floor(4 * x) + jnp.ceil(w) / jnp.round(3 * w + 0.5) + jnp.sqrt(jnp.abs(w))


def whole(x, w):
    a, b = jnp.int32(10 * jnp.clip(x, -99, 99)), jnp.int32(5 * jnp.clip(w, -99, 99))
    return jnp.maximum(a - b, -b) * 2 + (a * b > 3) + (jnp.minimum(a, 7) ^ 3) + jnp.int32(x) * 0.5


def logic(x, w):
    return jnp.where(((x > 0) & ~(w > 0)) | (x == w), x, w) * (x != 0) + (x >= 1) - (w <= x)


TERMS: dict[str, Any] = {
    "distance": lambda x, w: -jnp.abs(x - w),
    "minimum": lambda x, w: jnp.minimum(x, w) * jnp.maximum(x, -w),
    "relu": relu,
    "rounded": rounded,
    "logic": logic,
    "whole": whole,
    "sign": lambda x, w: jnp.sign(x) * jnp.sign(w) + jnp.clip(x, -0.5, 0.25),
    "powers": lambda x, w: (x - w) ** 5 - jnp.square(x) / w**2 + (x * w) ** -3 + lax.rsqrt(x * x),
    "table": lambda x, w: jnp.asarray(TABLE)[jnp.int32(10 * x + 50)] + TABLE[3] * w,
    "table of pairs": lambda x, w: jnp.asarray(TABLE.reshape(20, 5))[
        jnp.int32(x * 9), jnp.int32(w + 2)
    ],
    "table, filled": lambda x, w: w + jnp.take(TABLE, jnp.int32(60 * x), mode="fill", fill_value=2),
    "constants": lambda x, w: x * jnp.inf + w * -0.1,
}


def slow_but(*names):
    return [pytest.param(n, marks=[] if n in names else pytest.mark.slow) for n in TERMS]


@needs_library
@pytest.mark.parametrize("name", slow_but("distance"))
def test_native_terms_are_those_of_jax(name):
    """On all pairs of numbers of every kind; one term a sum, so that nothing is rounded between."""
    term = (
        Term(TERMS[name]) if name != "table, filled" else Term(lambda x, w: w + TERMS[name](x, w))
    )
    odd = [0.0, -0.0, 1.0, -1.0, 0.25, np.inf, -np.inf, np.nan, 3e9, -3e9, 1e38, 0.5, -2.5]
    numbers = np.asarray([*odd, *normal(0, 50)], np.float32)
    x, kernel = numbers.reshape(-1, 1, 1, 1), numbers.reshape(1, 1, 1, -1)
    with kernels.use("native"):
        assert kernels.term_status(term)["term_conv"]["cpu"].startswith("native")
        y = jax.jit(functools.partial(term_conv, window=POINT, term=term))(x, kernel)[:, 0, 0]
    # Compiled together XLA's compiler may fuse a product and a sum, as a C++ compiler may.
    expected = jax.jit(term.value)(numbers[:, None], numbers)
    np.testing.assert_allclose(y, np.broadcast_to(expected, y.shape), rtol=4e-6, atol=1e-6)


SHAPES = {  # of x and kernel, and the window
    "columns": ((2, 8, 16, 3), (3, 3, 3, 2), Window(padding=((1, 1), (1, 1)))),
    "widths": ((2, 6, 5, 21), (2, 3, 21, 45), Window((2, 1), ((1, 0), (1, 1)), (1, 2))),
    "dense": ((40, 1, 1, 70), (1, 1, 70, 10), POINT),
}


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("case", SHAPES)
def test_native_sums_are_those_of_xla(case):
    x_shape, kernel_shape, window = SHAPES[case]
    term = Term(lambda x, w: jnp.abs(x * w - 0.5), jnp.maximum, lambda x, w: jnp.abs(w + x))
    x, kernel = normal(0, *x_shape), normal(1, *kernel_shape)
    g = normal(2, x_shape[0], *window.positions(x_shape[1:], kernel_shape), kernel_shape[3])
    results = {}
    for body in ("xla", "native"):
        with kernels.use(body):
            results[body] = [
                jax.jit(functools.partial(kernel_of, window=window, term=term))(*operands)
                for kernel_of, operands in (
                    (term_conv, (x, kernel)),
                    (term_conv_input_gradient, (g, x, kernel)),
                    (term_conv_filter_gradient, (g, x, kernel)),
                )
            ]
    for ours, theirs in zip(results["native"], results["xla"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", SHAPES)
def test_sums_that_are_convolutions(case):
    x_shape, kernel_shape, window = SHAPES[case]
    x, kernel = normal(0, *x_shape), normal(1, *kernel_shape)
    g = normal(2, x_shape[0], *window.positions(x_shape[1:], kernel_shape), kernel_shape[3])

    terms = [
        Term(
            lambda x, w: (x + 1) * jnp.sign(w) * 2, lambda x, w: x - w, lambda x, w: 3 - w - x * x
        ),
        Term(lambda x, w: -(jnp.exp(x) * -w), lambda x, w: x, lambda x, w: jnp.abs(w)),
        Term(lambda x, w: x * w, lambda x, w: jnp.cos(w), lambda x, w: 1.0),
    ]
    x, kernel, g = map(jnp.asarray, (x, kernel, g))
    for term in terms:
        status = kernels.term_status(term)
        assert {body for by in status.values() for body in by.values()} == {"convolution"}
        value, input_rule, filter_rule = map(term.part, ("value", "input_rule", "filter_rule"))
        pairs = [
            (
                term_conv(x, kernel, window=window, term=term),
                window_sum(value, x, kernel, window, jnp.float32),
            ),
            (
                term_conv_input_gradient(g, x, kernel, window=window, term=term),
                input_sum(input_rule, g, x, kernel, window),
            ),
            (
                term_conv_filter_gradient(g, x, kernel, window=window, term=term),
                filter_sum(filter_rule, g, x, kernel, window),
            ),
        ]
        for ours, expected in pairs:
            np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda x, w: jnp.exp(x * w), "exp has no native form"),
        (lambda x, w: WHOLES[jnp.int32(x)] * w, r"a table of int32\[4\] has"),
        (lambda x, w: x.astype(jnp.float16) * w, "float16 have no native form"),
        (lambda x, w: x * w**17, "power of 17"),
        (lambda x, w: lax.fori_loop(0, 3, lambda i, y: y * w, x), "scan|while"),
    ],
)
def test_what_has_no_native_form_says_why(value, reason):
    with pytest.raises(NotNativeError, match=reason):
        source_of(program_of(value), "value")


def test_status_says_what_keeps_a_term_from_a_native_body(monkeypatch):
    status = kernels.term_status(Term(lambda x, w: jnp.exp(x * w)))
    assert status.keys() == {
        f"term_{n}" for n in ("conv", "conv_input_gradient", "conv_filter_gradient")
    }
    if "native" in kernels.status()["adder_conv"]["cpu"]:
        assert status["term_conv"]["cpu"] == "xla (exp has no native form)"
        monkeypatch.setenv("CXX", "no-such-compiler")
        term_libraries._compiler.cache_clear()
        status = kernels.term_status(Term(lambda x, w: x - w))
        term_libraries._compiler.cache_clear()
        assert "no C++ compiler called no-such-compiler" in status["term_conv"]["cpu"]
    with kernels.use("xla"):
        assert kernels.term_status(Term(lambda x, w: x + w))["term_conv"]["cpu"] == "xla"


def test_a_program_is_what_a_term_costs():
    # JAX's derivative of a product multiplies with a tangent of 1, and computes the value as well.
    slope = Term(lambda x, w: x * w - jnp.abs(x)).part("filter_rule")
    assert program_of(slope).steps == () and program_of(slope).result == 0
    for extremum, relation, values in (
        (jnp.maximum, "ge", [0, 0.5, 1]),
        (jnp.minimum, "le", [1, 0.5, 0]),
    ):
        slope = program_of(Term(extremum).part("input_rule"))  # in which JAX divides by 1 or 2
        names = [step.primitive.name for step in slope.steps]
        assert sorted(names) == [relation, relation, "select_n", "select_n"]
        x, three = jnp.asarray([2, 3, 4, np.nan]), jnp.asarray(3.0)
        assert [slope(a, three) for a in x] == [*values, 0]
    names = [s.primitive.name for s in program_of(lambda x, w: jnp.clip(w - x, -1, 1)).steps]
    assert names == ["sub", "max", "min"]
    first, second = (program_of(lambda x, w, c=c: x * w + c).digest for c in (1.0, 2.0))
    assert first != second


@needs_library
def test_a_rule_that_a_process_does_not_know_is_an_error():
    x: Any = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(Exception, match="does not know"):
        jax.block_until_ready(native.conv(x, x, rule="of another process", window=POINT))


SCRIPT = """
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(name)s %(message)s")
import jax.numpy as jnp
from nnlab.ops.terms import Term, term_dense
y = term_dense(jnp.ones((1, 3)), jnp.zeros((3, 1)), Term(lambda x, w: 2 * jnp.abs(x - w)))
print("sum", y.item())
"""


def start(folder):
    environment = dict(os.environ, XDG_CACHE_HOME=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True
    )


@needs_library
@pytest.mark.slow
def test_processes_share_libraries_and_mend_a_damaged_one(tmp_path):
    for process in [start(tmp_path) for _ in range(3)]:
        out, _ = process.communicate()
        assert "sum 6.0" in out and process.returncode == 0
    (library,) = (tmp_path / "nnlab" / "terms").iterdir()
    out, _ = start(tmp_path).communicate()
    assert "sum 6.0" in out and "Compiled" not in out
    library.write_bytes(library.read_bytes()[:1000])
    out, _ = start(tmp_path).communicate()
    assert "sum 6.0" in out and out.count("Compiled") == 1
