"""Printed JavaScript computes what JAX computes, for every primitive that is printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnlab.errors import InputError
from nnlab.playground import primitives
from nnlab.playground.printer import print_function
from nnlab.playground.program import shapes, trace
from tests.playground.node import needs_node, run

X = np.array([[-2.5, -1.0, -0.5, 0.0], [0.5, 1.0, 1.5, 2.5], [3.5, -3.25, 1e-3, 40.0]], np.float32)
Y = np.array([[1.0, -1.0, 2.0, 0.0], [0.5, 1.5, -0.5, 3.0], [2.0, 7.0, 1.0, -2.0]], np.float32)
POSITIVE = np.abs(X) + np.float32(0.25)
INT = np.array([[-7, 3, 0, 2**31 - 1], [5, -5, 9, 12], [1, 2, 3, -(2**31)]], np.int32)
SMALL = np.array([[1, 3, 0, 31], [5, 2, 9, 12], [1, 2, 3, 4]], np.int32)
UINT = np.array([[7, 3, 0, 2**32 - 1], [5, 2**31, 9, 12], [1, 2, 3, 4]], np.uint32)


def _compared(name):
    return lambda x, y: getattr(lax, name)(x, y).astype(jnp.float32)


# By name: the function, and its operands, all "n,m" unless said otherwise.
CASES = {
    "add": (lax.add, X, Y),
    "add_int": (lax.add, INT, SMALL),
    "add_uint": (lax.add, UINT, UINT),
    "sub": (lax.sub, X, Y),
    "sub_int": (lax.sub, INT, SMALL),
    "sub_uint": (lax.sub, UINT, UINT + 1),
    "mul": (lax.mul, X, Y),
    "mul_int": (lax.mul, INT, INT),
    "mul_uint": (lax.mul, UINT, UINT),
    "div": (lax.div, X, Y),
    "div_int": (lax.div, INT, SMALL + 1),
    "div_uint": (lax.div, UINT, UINT // 3 + 1),
    "rem": (lax.rem, X, Y + 10),
    "rem_int": (lax.rem, INT, SMALL + 1),
    "max": (lax.max, X, Y),
    "min": (lax.min, X, Y),
    "pow": (lax.pow, POSITIVE, Y),
    "atan2": (lax.atan2, X, Y),
    "neg": (lax.neg, X),
    "neg_int": (lax.neg, INT),
    "abs": (lax.abs, X),
    "sign": (lax.sign, X),
    "square": (lax.square, X),
    "sqrt": (lax.sqrt, POSITIVE),
    "rsqrt": (lax.rsqrt, POSITIVE),
    "exp": (lax.exp, X),
    "exp2": (lax.exp2, Y),
    "expm1": (lax.expm1, Y),
    "log": (lax.log, POSITIVE),
    "log1p": (lax.log1p, POSITIVE),
    "tanh": (lax.tanh, X),
    "logistic": (lax.logistic, X),
    "sin": (lax.sin, X),
    "cos": (lax.cos, X),
    "floor": (lax.floor, X),
    "ceil": (lax.ceil, X),
    "round": (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), X),
    "integer_pow": (lambda x: lax.integer_pow(x, 3), Y),
    "and": (lax.bitwise_and, INT, SMALL),
    "or": (lax.bitwise_or, UINT, UINT // 3),
    "xor": (lax.bitwise_xor, UINT, UINT // 3),
    "not": (lax.bitwise_not, INT),
    "shift_left": (lax.shift_left, INT, SMALL),
    "shift_right_arithmetic": (lax.shift_right_arithmetic, INT, SMALL),
    "shift_right_logical": (lax.shift_right_logical, INT, SMALL),
    "shift_right_logical_uint": (lax.shift_right_logical, UINT, SMALL.astype(np.uint32)),
    **{name: (_compared(name), X, Y) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "is_finite": (lambda x: lax.is_finite(1 / x).astype(jnp.int32), X),
    "select_n": (lambda x, y: jnp.where(x > y, x, -y), X, Y),
    "clamp": (lambda x: lax.clamp(-1.0, x, 1.0), X),
    "to_int": (lambda x: x.astype(jnp.int32), X),
    "to_float": (lambda i: i.astype(jnp.float32), INT),
    "bits": (lambda x: lax.bitcast_convert_type(x, jnp.int32), X),
    "float": (lambda i: lax.bitcast_convert_type(i >> 4, jnp.float32), UINT),
    "reduce_sum": (lambda x: x.sum(0), X),
    "reduce_sum_all": (lambda x: (2 * x).sum(), X),
    "reduce_max": (lambda x: x.max(1), X),
    "reduce_min": (lambda x: x.min(1), X),
    "reduce_or": (lambda x: (x > 3).any(1).astype(jnp.float32), X),
    "reduce_and": (lambda x: (x > -3).all(1).astype(jnp.float32), X),
    "transpose": (lambda x: x.T + 1, X),
    "reshape": (lambda x: x.reshape(-1), X),
    "broadcast": (lambda x, y: x[:, None] * y[None] + x.sum(1)[:, None, None], X, Y),
    "rev": (lambda x: lax.rev(x, (1,)), X),
    "slice": (lambda x: lax.slice_in_dim(x, 0, 1, axis=0) + 1, X),
    "concatenate": (lambda x, y: lax.concatenate([x, 2 * y], 0), X, Y),
    "stack": (lambda x, y: jnp.stack([x, y * y, x - y], 1), X, Y),
    "iota": (lambda x: x + jnp.arange(x.shape[1]), X),
    "dim_as_value": (lambda x: x / x.shape[0] + x.size, X),
    "dot_general": (lambda x, y: x @ y.T, X, Y),
    "dot_batched": (lambda x, y: jnp.einsum("nm,nm->n", x, y), X, Y),
    "stop_gradient": (lax.stop_gradient, X),
    "two_results": (lambda x: (x, (x + 1) * 2), X),
    "constant": (lambda x: x * jnp.asarray(Y[:, :1]), X),
}


@needs_node
def test_every_primitive_is_that_of_jax():
    texts, calls, given = [], [], {}
    for name, (function, *operands) in CASES.items():
        # "constant" has a size of its own, which no name can meet.
        size = "3,m" if name == "constant" else "n,m"
        arguments = {f"x{k}": f"{size}:{a.dtype}" for k, a in enumerate(operands)}
        texts.append(print_function(f"f_{name}", function, arguments))
        given[name] = [a.ravel().tolist() for a in operands]
        made = ", ".join(
            f"{primitives.kind_of(a.dtype).array}.from(given.{name}[{k}])"
            for k, a in enumerate(operands)
        )
        sizes = "4" if name == "constant" else "3, 4"
        calls.append(f"{name}: f_{name}({sizes}, {made})")
    results = run("\n".join(texts), "{" + ", ".join(calls) + "}", given)
    for name, (function, *operands) in CASES.items():
        expected = jax.tree.leaves(function(*map(jnp.asarray, operands)))
        assert len(results[name]) == len(expected), name
        for got, want in zip(results[name], expected, strict=True):
            numbers = np.asarray(got, float).ravel()
            want = np.asarray(want, float).ravel()
            np.testing.assert_allclose(numbers, want, rtol=3e-7, atol=1e-30, err_msg=name)


def test_cases_name_every_primitive():
    seen = set()
    for function, *operands in CASES.values():
        program = trace(function, [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in operands])
        seen |= {equation.primitive for equation in program.equations}
    aside = {"copy", "copy_p", "add_any", "reduce_precision"}  # made by derivatives and optax
    tables = (primitives.ELEMENTWISE, primitives.COMPARISONS, primitives.REDUCTIONS)
    assert {name for table in tables for name in table} - seen <= aside


def _distance(x, w):
    return -jnp.abs(x[:, :, None] - w).sum(1)


@needs_node
def test_one_function_serves_every_size_and_makes_no_array_of_terms():
    text = print_function("distance", _distance, {"x": "b,i", "w": "i,o"})
    assert text.startswith("function distance(b, i, o, x, w) {")
    assert "b * i * o" not in text and text.count("new Float32Array(b * o)") == 2
    for b, i, o in ((1, 1, 1), (2, 5, 3)):
        x, w = np.random.default_rng(b).normal(size=(2, 64)).astype(np.float32)
        got = run(text, f"distance({b}, {i}, {o}, given[0], given[1])", [x.tolist(), w.tolist()])
        x, w = x[: b * i].reshape(b, i), w[: i * o].reshape(i, o)
        np.testing.assert_allclose(got[0], np.asarray(_distance(x, w)).ravel(), rtol=1e-6)


def test_what_cannot_be_printed_is_named():
    with pytest.raises(InputError, match="'sort'"):
        print_function("f", jnp.sort, {"x": "n"})
    with pytest.raises(InputError, match="int8"):
        print_function("f", lambda x: x.astype(jnp.int8), {"x": "n"})
    with pytest.raises(InputError, match="floordiv"):
        print_function("f", lambda x: jnp.zeros(x.shape[0] // 2) + x.sum(), {"x": "n"})


def test_calls_are_entered_and_dead_code_is_dropped():
    @jax.jit
    def called(x):
        jnp.sin(x)
        return jax.nn.relu(x) * 2

    program = trace(called, shapes("n"))
    assert {equation.primitive for equation in program.equations} == {"max", "mul"}
