"""What one JAX primitive computes: the conventions of `nnlab.costs.counting`, as a table.

A rule maps the arrays of an equation to a number of operations; `ARITHMETIC` says of which kind. A
primitive in neither `ARITHMETIC` nor `FREE` is unknown, and is reported as such.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.core import ShapedArray

MULTIPLICATION = "multiplications"
ADDITION = "additions"
COMPARISON = "comparisons"
BIT = "bit_operations"
OTHER = "other"


class Arrays(NamedTuple):
    """The shapes and dtypes that an equation of a jaxpr works on, and its parameters."""

    operands: Sequence[ShapedArray]
    results: Sequence[ShapedArray]
    params: dict[str, Any]


Rule = Callable[[Arrays], int]


def _results(a: Arrays) -> int:
    return sum(result.size for result in a.results)


def _twice_results(a: Arrays) -> int:
    return 2 * _results(a)


def _reduced(a: Arrays) -> int:
    return a.operands[0].size - a.results[0].size


def _prefix(a: Arrays) -> int:
    array = a.operands[0]
    return array.size - array.size // max(array.shape[a.params["axis"]], 1)


def _window(a: Arrays) -> int:
    return a.results[0].size * (math.prod(a.params["window_dimensions"]) - 1)


def _selected(a: Arrays) -> int:
    return a.operands[0].size * (math.prod(a.params["window_dimensions"]) - 1)


def _scattered_back(a: Arrays) -> int:
    return a.operands[0].size


def _updates(a: Arrays) -> int:
    return a.operands[2].size


def _sorted(a: Arrays) -> int:
    array = a.operands[0]
    return array.size * math.ceil(math.log2(max(array.shape[a.params["dimension"]], 1)))


def _power(a: Arrays) -> int:
    exponent = abs(a.params["y"])
    squarings, products = exponent.bit_length() - 1, exponent.bit_count() - 1
    return _results(a) * max(squarings + products, 0)


def _reciprocal(a: Arrays) -> int:
    return _results(a) if a.params["y"] < 0 else 0


def _dot_terms(a: Arrays) -> int:
    (contracted, _), _ = a.params["dimension_numbers"]
    return _results(a) * math.prod(a.operands[0].shape[axis] for axis in contracted)


def _conv_terms(a: Arrays) -> int:
    image, kernel = a.operands
    out_axis, in_axis = a.params["dimension_numbers"].rhs_spec[:2]
    terms = _results(a) * (kernel.size // max(kernel.shape[out_axis], 1))
    if any(step > 1 for step in a.params["lhs_dilation"]):
        groups = a.params["feature_group_count"] * a.params["batch_group_count"]
        meetings = image.size * (kernel.size // max(kernel.shape[in_axis], 1)) // groups
        terms = min(terms, meetings)
    return terms


# {primitive: ((kind, rule), ...)}; the dtype is that of the equation's first operand.
ARITHMETIC: dict[str, tuple[tuple[str, Rule], ...]] = {
    name: tuple(rules)
    for names, *rules in [
        ("mul square", (MULTIPLICATION, _results)),
        ("add sub add_any psum psum_invariant", (ADDITION, _results)),
        ("eq ne lt le gt ge max min pmax pmin sign is_finite", (COMPARISON, _results)),
        ("and or xor not population_count clz", (BIT, _results)),
        ("shift_left shift_right_logical shift_right_arithmetic", (BIT, _results)),
        ("div rem pow sqrt rsqrt cbrt exp exp2 expm1 log log1p logistic", (OTHER, _results)),
        ("sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh", (OTHER, _results)),
        ("erf erfc erf_inv lgamma digamma floor ceil round nextafter", (OTHER, _results)),
        ("random_bits threefry2x32 rng_bit_generator", (OTHER, _results)),
        ("clamp", (COMPARISON, _twice_results)),
        ("integer_pow", (MULTIPLICATION, _power), (OTHER, _reciprocal)),
        ("reduce_sum", (ADDITION, _reduced)),
        ("reduce_prod", (MULTIPLICATION, _reduced)),
        ("reduce_max reduce_min argmax argmin", (COMPARISON, _reduced)),
        ("reduce_and reduce_or reduce_xor", (BIT, _reduced)),
        ("cumsum", (ADDITION, _prefix)),
        ("cumprod", (MULTIPLICATION, _prefix)),
        ("cummax cummin", (COMPARISON, _prefix)),
        ("cumlogsumexp", (OTHER, _prefix)),
        ("reduce_window_sum", (ADDITION, _window)),
        ("reduce_window_max reduce_window_min select_and_gather_add", (COMPARISON, _window)),
        ("select_and_scatter_add", (COMPARISON, _selected), (ADDITION, _scattered_back)),
        ("scatter-add scatter-sub", (ADDITION, _updates)),
        ("scatter-mul", (MULTIPLICATION, _updates)),
        ("scatter-max scatter-min", (COMPARISON, _updates)),
        ("sort", (COMPARISON, _sorted)),
        ("dot_general", (MULTIPLICATION, _dot_terms), (ADDITION, _dot_terms)),
        ("conv_general_dilated", (MULTIPLICATION, _conv_terms), (ADDITION, _conv_terms)),
    ]
    for name in names.split()
}

FREE = frozenset(
    name
    for names in [
        "broadcast_in_dim reshape transpose squeeze rev pad slice dynamic_slice gather scatter",
        "dynamic_update_slice concatenate split stack unstack tile select_n iota copy zeros_like",
        "abs neg real imag conj complex",
        "convert_element_type bitcast_convert_type reduce_precision",
        "stop_gradient name optimization_barrier debug_callback debug_print platform_index",
        "sharding_constraint layout_constraint reshard device_put pvary axis_index",
        "all_gather all_to_all ppermute pbroadcast empty2",
        "random_wrap random_unwrap random_seed random_split random_fold_in random_clone",
    ]
    for name in names.split()
)
