"""Count the bytes at rest of a network's parameters from its traced inference program.

A binary layer trains float weights but multiplies by their signs, so only one bit a weight has to
be stored. Whether that is so is a property of the program, not of a layer's name. A leaf takes one
bit a weight if it is floating, is used, and every use ends in `sign_ste`. If every use ends in
another quantiser of weights, it takes as many bits as that says
(`nnlab.ops.straight_through.stored_in`), plus whatever else that quantiser returns.

Uses are followed through jitted, checkpointed, branching and custom-gradient functions, through a
scan's constants and slices, and through changes of shape and dtype. A weight minus its own
`stop_gradient`, the zero that a straight-through estimator adds, is not a use. A leaf is stored at
its dtype where a use cannot be followed (as in a loop's carry), where the program returns it, and
where the program never uses it: it is in the file all the same.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Var

from nnlab.costs.counting import bits_at_rest, called_jaxpr, kernel_name

_KEEPS_WEIGHTS = frozenset(
    [
        *("reshape", "transpose", "squeeze", "broadcast_in_dim", "rev", "copy"),
        *("convert_element_type", "stop_gradient"),
    ]
)


def stored_bytes(fn: Callable[..., Any], variables: Any, *args: Any) -> int:
    """Return the bytes at rest of `variables` for the program `fn(variables, *args)`.

    Args:
        fn: the inference function, such as `functools.partial(model.apply, train=False)`.
        variables: a pytree of arrays or `jax.ShapeDtypeStruct`s; each leaf is rounded up to bytes.
        *args: what else `fn` takes, arrays or `jax.ShapeDtypeStruct`s.
    """
    return sum(jax.tree.leaves(bytes_by_leaf(fn, variables, *args)))


def bytes_by_leaf(fn: Callable[..., Any], variables: Any, *args: Any) -> Any:
    """Return the same for each leaf, as a pytree of integers like `variables`."""
    return at_rest(fn, variables, *args)[1]


def at_rest(fn: Callable[..., Any], variables: Any, *args: Any) -> tuple[Any, Any]:
    """Return the bits of one number, and the bytes, of each leaf, as pytrees of integers.

    What a quantiser stores beside the numbers, such as a scale for each filter, is in the bytes
    alone; a leaf that becomes part of another's numbers takes 0 bits.
    """
    leaves, structure = jax.tree.flatten(variables)
    found = [*zip(leaves, _quantised_uses(fn, variables, *args), strict=True)]
    bits = [max(uses).bits if uses else 8 * leaf.dtype.itemsize for leaf, uses in found]
    return structure.unflatten(bits), structure.unflatten(_bytes(*each) for each in found)


def kept_as_signs(fn: Callable[..., Any], variables: Any, *args: Any) -> Any:
    """Return whether each leaf is used only through `sign_ste`, as a pytree of bools."""
    structure = jax.tree.structure(variables)
    uses = _quantised_uses(fn, variables, *args)
    return structure.unflatten(bool(use) and all(u.signs for u in use) for use in uses)


class _Use(NamedTuple):
    """One use: bits a weight, bytes beside all of them, whether the bits are the signs."""

    bits: int
    beside: int = 0
    signs: bool = False


def _quantised_uses(fn: Callable[..., Any], variables: Any, *args: Any) -> Iterator[list[_Use]]:
    """Yield the uses of each leaf if it is floating and all of them are by quantisers, else []."""
    jaxpr = jax.make_jaxpr(fn)(variables, *args).jaxpr
    for leaf, variable in zip(jax.tree.leaves(variables), jaxpr.invars, strict=False):
        uses, returned = _uses(jaxpr, variable)
        quantised = [use for use in uses if use is not None]
        known = len(quantised) == len(uses) and not returned
        yield quantised if known and jnp.issubdtype(leaf.dtype, jnp.floating) else []


def _bytes(leaf: Any, uses: list[_Use]) -> int:
    if not uses:
        return leaf.size * leaf.dtype.itemsize
    use = max(uses)
    return math.ceil(leaf.size * use.bits / 8) + use.beside


def _quantiser(equation: JaxprEqn, position: int) -> _Use | None:
    if kernel_name(equation) == "sign_ste":
        return _Use(1, signs=True)
    bits = bits_at_rest(equation)
    if bits is None:
        return None
    beside: list[Any] = [v.aval for v in equation.outvars[1:]]
    return _Use(0) if position else _Use(bits, sum(a.size * a.dtype.itemsize for a in beside))


def _uses(jaxpr: Jaxpr, variable: Var) -> tuple[list[_Use | None], list[int]]:
    """Return a variable's uses, None if not by a quantiser, and which outputs carry it out."""
    uses: list[_Use | None] = []
    values = {variable: variable}  # what carries the weights: equal to which variable
    for equation in jaxpr.eqns:
        carried = [values.get(v) if isinstance(v, Var) else None for v in equation.invars]
        primitive = equation.primitive.name
        if primitive == "sub" and carried[0] is not None and carried[0] is carried[1]:
            continue
        for position, value in enumerate(carried):
            if value is None:
                continue
            if use := _quantiser(equation, position):
                uses.append(use)
            elif primitive in _KEEPS_WEIGHTS:
                (out,) = equation.outvars
                values[out] = value if primitive == "stop_gradient" else out
            elif inner := list(_inner(equation, position)):
                for inner_jaxpr, inner_variable in inner:
                    inner_uses, returned = _uses(inner_jaxpr, inner_variable)
                    uses += inner_uses
                    values |= {v: v for v in (equation.outvars[index] for index in returned)}
            else:
                uses.append(None)
    return uses, [i for i, v in enumerate(jaxpr.outvars) if isinstance(v, Var) and v in values]


def _inner(equation: JaxprEqn, position: int) -> Iterator[tuple[Jaxpr, Var]]:
    """Yield the jaxprs that receive an operand, each with its variable for the operand."""
    params = equation.params
    if called := called_jaxpr(equation):
        yield called, called.invars[position]
    elif equation.primitive.name == "cond" and position > 0:
        for branch in params["branches"]:
            yield branch.jaxpr, branch.jaxpr.invars[position - 1]
    elif equation.primitive.name == "scan":
        body = params["jaxpr"].jaxpr
        if position not in _carry(equation, body):
            yield body, body.invars[position]


def _carry(equation: JaxprEqn, body: Jaxpr) -> range:
    """Return the positions of a scan's carry, between its constants and what it slices.

    A sliced operand and a stacked result have one axis more outside the body than inside, in every
    release of JAX; the names of the scan's parameters change.
    """

    def kept(outside, inside):
        pairs = zip(outside, inside, strict=True)
        return sum(len(a.aval.shape) == len(b.aval.shape) for a, b in pairs)

    whole = kept(equation.invars, body.invars)
    return range(whole - kept(equation.outvars, body.outvars), whole)
