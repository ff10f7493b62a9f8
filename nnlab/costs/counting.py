"""Count arithmetic in the traced program, not by a formula per layer.

`count` traces a function to its jaxpr and adds up what every equation computes, so whatever runs is
counted: normalisation, activations, a forgotten upcast. The conventions are those of the field:

* a convolution or a matrix product is one multiplication and one addition a term, including terms
  that meet padding; where zeros lie between the elements of a dilated input, as in the gradient of
  a strided convolution, a term is an element that meets a weight;
* an operation is counted at the dtype of its operands, so the 32-bit accumulator of an int8
  product adds int8 terms;
* absolute value, negation, conversion and all data movement cost nothing;
* taking the larger of two numbers is a comparison; a sort is n log2 n of them;
* what hardware does not do in one simple step (a quotient, a root, an exponential, a random
  number) is `other`, once an element;
* integers of a single element computed from such integers are the bookkeeping of loops and
  indices, and cost nothing;
* the quantisation of weights happens once, when they are stored (`nnlab.ops.straight_through`),
  and costs nothing;
* a loop counts its body times its length; a choice counts its most expensive branch, and
  `jax.lax.platform_dependent` appears as a choice; a mapped shard counts once a device.

The kernels of nnlab are written for speed, with blocks, phases and padding of their own, so they
are not entered but recognised by the name of their jitted function and counted by the table
`_KERNELS`; those of an own term (`nnlab.ops.terms`) by their names as well, and by the steps of
the term, each once a term. A program is counted as traced, including dead code that the compiler
would remove.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from nnlab.costs.primitives import (
    ADDITION,
    ARITHMETIC,
    BIT,
    COMPARISON,
    FREE,
    MULTIPLICATION,
    OTHER,
    Arrays,
)
from nnlab.errors import InputError
from nnlab.kernels.derivatives import program_of
from nnlab.kernels.terms import term_of_kernel

UNKNOWN = "unknown"


class Counts(NamedTuple):
    """Operations of one call, each kind as {dtype name: number}.

    `unknown` is {primitive name: times executed} for primitives without a rule here; while it is
    not empty, the other figures are lower bounds.
    """

    multiplications: dict[str, int]
    additions: dict[str, int]
    comparisons: dict[str, int]
    bit_operations: dict[str, int]
    other: dict[str, int]
    unknown: dict[str, int]

    def totals(self) -> dict[str, int]:
        """Return each kind summed over dtypes, as {kind: number}."""
        return {kind: sum(numbers.values()) for kind, numbers in self._asdict().items()}


def count(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Counts:
    """Count the arithmetic of `fn(*args, **kwargs)` without running it.

    Args:
        fn: any traceable function; bind what is not an array with a lambda or `functools.partial`.
        *args: arrays or `jax.ShapeDtypeStruct`s, in any pytree.
        **kwargs: the same by keyword.

    Raises:
        InputError: a `while` loop does arithmetic but its number of trips is not in the program.
    """
    tally = _jaxpr(jax.make_jaxpr(fn)(*args, **kwargs).jaxpr)
    kinds: dict[str, dict[str, int]] = {kind: {} for kind in Counts._fields}
    for (kind, name), number in sorted(tally.items()):
        kinds[kind][name] = number
    return Counts(**kinds)


# The work of nnlab's kernels by the name of the jitted function: how many arrays it takes and what
# one term costs, at the dtype of the first array unless the table names another. A function of
# that name with another number of arrays is something else (the transpose that JAX derives from a
# straight-through gradient keeps the name) and is entered.
_Cost = tuple[int, dict[tuple[str, str | None], int]]
_KERNELS: dict[str, _Cost] = {
    # (x, kernel) -> y; |x - w| is a difference, an absolute value for nothing, and a sum
    "adder_conv": (2, {(ADDITION, None): 2}),
    # (g, x, kernel) -> dx; a difference, its clip at both ends, the product with g, and a sum
    "adder_conv_input_gradient": (
        3,
        {(ADDITION, None): 2, (COMPARISON, None): 2, (MULTIPLICATION, None): 1},
    ),
    # (g, x, kernel) -> dkernel; a difference, its sign, the product with g, and a sum
    "adder_conv_filter_gradient": (
        3,
        {(ADDITION, None): 2, (COMPARISON, None): 1, (MULTIPLICATION, None): 1},
    ),
    # (x, kernel) -> y; an XNOR of two bits, and the population count that sums them
    "binary_conv": (2, {(BIT, "bool"): 1, (ADDITION, "int8"): 1}),
    # (x, kernel) -> y; the smaller of |x| and |w|, added or subtracted as the signs say
    "conjugate_adder_conv": (2, {(COMPARISON, None): 1, (ADDITION, None): 1}),
    # (x, p, kernel) -> y; a difference, its power, and a sum
    "lp_adder_conv": (3, {(ADDITION, None): 2, (OTHER, None): 1}),
    # (g, x, p, kernel) -> dx or dkernel; a difference, its sign, its power, the product with g, and
    # a sum; the factor p is taken a term
    **dict.fromkeys(
        ("lp_adder_conv_input_gradient", "lp_adder_conv_filter_gradient"),
        (
            4,
            {
                (ADDITION, None): 2,
                (COMPARISON, None): 1,
                (OTHER, None): 1,
                (MULTIPLICATION, None): 2,
            },
        ),
    ),
    # (x, kernel) -> y by weights of few kinds, see `nnlab.ops.products`
    "signed_conv": (2, {(ADDITION, None): 1}),
    "signed_int8_conv": (2, {(ADDITION, "int8"): 1}),
    "shift_conv": (2, {(BIT, "int32"): 1, (ADDITION, None): 1}),
    "int8_conv": (2, {(MULTIPLICATION, "int8"): 1, (ADDITION, "int8"): 1}),
    # (x, kernel) -> y; the sum of two floats' bits as integers, and a sum
    "l_mul_conv": (2, {(ADDITION, "int32"): 1, (ADDITION, None): 1}),
    # (x, kernel) -> y of words of 32 signs, bits past the last channel included
    "binary_conv_packed": (2, {(BIT, "bool"): 32, (ADDITION, "int8"): 32}),
    # (x, padding value, kernel) -> y, as `adder_conv`
    "adder_conv_uint8": (3, {(ADDITION, None): 2}),
    # (x, packed) -> y; every output is a sum over the inputs
    "ternary_dense_packed": (2, {(ADDITION, None): 1}),
    # (x) -> y
    "sign_ste": (1, {(COMPARISON, None): 1}),
    "pack_signs": (1, {(COMPARISON, None): 1}),
    # (x) -> x in a number format, see `nnlab.ops.formats`; hardware has it where a result leaves
    "format_conversion": (1, {}),
}


def kernel_name(equation: JaxprEqn) -> str | None:
    """Return the name of the kernel that an equation calls, or None."""
    name = str(equation.params.get("name"))
    if equation.primitive.name == "jit" and (cost := _cost_of(name)):
        return name if len(equation.invars) == cost[0] else None
    return None


def _cost_of(name: str) -> _Cost | None:
    return _KERNELS.get(name) or _cost_of_own_term(name)


@functools.cache
def _cost_of_own_term(name: str) -> _Cost | None:
    function = term_of_kernel(name)
    if function is None:
        return None
    two = jax.ShapeDtypeStruct((2,), jnp.float32)  # one would be taken for a loop's bookkeeping
    tally = _jaxpr(jax.make_jaxpr(jax.vmap(function))(two, two).jaxpr)
    operands = 3 if name.endswith("_gradient") else 2
    if operands == 3:
        tally[MULTIPLICATION, "float32"] += 2
    tally[ADDITION, "float32"] += 2
    own = {
        (kind, None if dtype == "float32" else dtype): number // 2
        for (kind, dtype), number in tally.items()
    }
    return operands, own


def bits_at_rest(equation: JaxprEqn) -> int | None:
    """Return the bits per stored weight if this equation is a marked quantiser, else None."""
    match = re.fullmatch(r"stored_in_(\d+)_bits", str(equation.params.get("name")))
    return int(match[1]) if match and equation.primitive.name == "jit" else None


def called_jaxpr(equation: JaxprEqn) -> Jaxpr | None:
    """Return the jaxpr that an equation runs once on all of its operands in order, or None."""
    if equation.primitive.name in _CALLS:
        return next(jaxprs_in_params(equation.params))
    return program_of(equation)


_CALLS = frozenset(
    [
        *("jit", "closed_call", "call", "remat2", "shard_map"),
        *("custom_jvp_call", "custom_vjp_call", "custom_vmap_call"),
    ]
)


def _kernel(name: str, arrays: Arrays) -> Counter:
    first, last = arrays.operands[0], arrays.operands[-1]
    if len(arrays.operands) == 1:
        terms = first.size
    elif name == "ternary_dense_packed":
        terms = arrays.results[0].size * first.shape[-1]
    else:
        # Every element of y, or of its cotangent g, is a sum over a kernel [kh, kw, in, out] of
        # kh kw in terms; vmap may put its axis before these.
        y = first if name.endswith("_gradient") else arrays.results[0]
        terms = y.size * math.prod(last.shape[-4:-1])
    _, cost = _cost_of(name) or (0, {})
    return Counter(
        {(kind, dtype or first.dtype.name): n * terms for (kind, dtype), n in cost.items()}
    )


def _jaxpr(jaxpr: Jaxpr) -> Counter:
    return sum((_equation(equation) for equation in jaxpr.eqns), Counter())


def _equation(equation: JaxprEqn) -> Counter:
    primitive, params = equation.primitive.name, equation.params
    if bits_at_rest(equation):
        return Counter()
    if called := called_jaxpr(equation):
        if kernel := kernel_name(equation):
            return _kernel(kernel, _arrays(equation))
        axes = params["newly_manual_axes"] if primitive == "shard_map" else ()
        return _times(math.prod(params["mesh"].shape[axis] for axis in axes), _jaxpr(called))
    if primitive == "scan":
        return _times(params["length"], _jaxpr(params["jaxpr"].jaxpr))
    if primitive == "cond":
        return _dearest(params)
    if primitive == "while":
        return _while(params)
    if primitive in ARITHMETIC:
        arrays = _arrays(equation)
        if all(map(_is_index, (*arrays.operands, *arrays.results))):
            return Counter()
        dtype = arrays.operands[0].dtype.name
        return Counter({(kind, dtype): rule(arrays) for kind, rule in ARITHMETIC[primitive]})
    return Counter() if primitive in FREE else Counter({(UNKNOWN, primitive): 1})


def _arrays(equation: JaxprEqn) -> Arrays:
    operands: list[Any] = [v.aval for v in equation.invars]
    results: list[Any] = [v.aval for v in equation.outvars]
    return Arrays(operands, results, equation.params)


def _is_index(array: ShapedArray) -> bool:
    whole = jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_
    return array.size == 1 and whole


def _times(trips: int, tally: Counter) -> Counter:
    return Counter({key: trips * number for key, number in tally.items()})


def _dearest(params: dict[str, Any]) -> Counter:
    branches = [_jaxpr(branch.jaxpr) for branch in params["branches"]]
    dearest = max(branches, key=Counter.total)
    if "branches_platforms" not in params:
        # What no rule covers may be dearer than it looks; bodies for platforms compute the same.
        for branch in branches:
            dearest |= Counter({key: n for key, n in branch.items() if key[0] == UNKNOWN})
    return dearest


def _while(params: dict[str, Any]) -> Counter:
    tally = _jaxpr(params["cond_jaxpr"].jaxpr) + _jaxpr(params["body_jaxpr"].jaxpr)
    if tally:
        work = ", ".join(sorted({kind for kind, _ in tally}))
        raise InputError(
            f"a while loop does arithmetic ({work}) but the program does not say how many times;"
            " expected a loop of known length, such as `jax.lax.scan` or `fori_loop` with"
            " constant bounds."
        )
    return tally
