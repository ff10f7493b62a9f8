"""Derivatives of what JAX cannot differentiate, or not in the fastest way; in both modes.

`jax.custom_vjp` takes forward mode away, and inside a loop JAX forgets `jax.custom_jvp` in part
once the loop has been differentiated. Hence two primitives, which it keeps:

*   `differentiated_as(body, reference)` computes `body`, a foreign call or Pallas, and has the
    derivatives of `reference`, which is written in XLA operations.
*   `linear_map(run, transpose, …)` ends the rule of a `jax.custom_jvp`: forward mode runs the map,
    reverse mode its transpose, and each may again be differentiated with respect to everything that
    it reads. It is `jax.custom_derivatives.linear_call` with `vmap` and derivatives of the
    residuals. The program of a gradient holds nothing but the transpose.

Rules that are not the gradient of what they belong to stay with `jax.custom_vjp`, as
`reverse_rule`, which also says what forward mode lacks.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from nnlab.errors import InputError

Arrays = Sequence[jax.Array]
Map = Callable[[Arrays, Arrays], Arrays]  # of residuals and of what it is linear in

_ZERO: Any = ad.Zero
_body = Primitive("nnlab_body")
_linear_map = Primitive("nnlab_linear_map")
_linear_map.multiple_results = True
_forward = Primitive("nnlab_forward_mode")


def differentiated_as(
    body: Callable[..., jax.Array], reference: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    """Return `body` with the derivatives of `reference`, which computes the same."""

    def compute(*operands: jax.Array) -> jax.Array:
        jaxpr = jax.make_jaxpr(body)(*operands)
        return _body.bind(*operands, jaxpr=jaxpr, reference=reference)

    return compute


def linear_map(
    run: Map,
    transpose: Map,
    residuals: Arrays,
    operands: Arrays,
    like: Arrays,
    program: ClosedJaxpr | None = None,
) -> list[jax.Array]:
    """Return `run(residuals, operands)`, of which `transpose` is the transpose.

    Args:
        run: linear in `operands`.
        transpose: takes `residuals` and cotangents of the results; returns those of `operands`.
        residuals: arrays that both read.
        operands: arrays of floating dtype.
        like: arrays of the types of the results.
        program: what `run` calls and is foreign, if anything. JAX looks into it for what needs to
            know the devices.
    """
    return _linear_map.bind(
        *residuals,
        *operands,
        run=run,
        transpose=transpose,
        number=len(residuals),
        results=tuple(jax.typeof(array) for array in like),
        program=program,
    )


class reverse_rule(jax.custom_vjp):
    """`jax.custom_vjp` of arrays whose functions raise an InputError in forward mode.

    Let the function that `defvjp` takes first call the function itself for its value. Derivatives
    of every order, reverse over reverse, then follow the rule.
    """

    def __call__(self, *args: Any) -> Any:
        name = self.__name__.lstrip("_")
        held = self.nondiff_argnums
        each = (arg if i in held else _in_reverse(arg, name) for i, arg in enumerate(args))
        return super().__call__(*each)


def _in_reverse(x: Any, name: str) -> Any:
    differentiable = isinstance(x, Tracer) and jnp.issubdtype(x.dtype, jnp.inexact)
    return _guarded(x, name) if differentiable else x


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _guarded(x, name):
    """`x`, whose tangent may be transposed and not computed."""
    return x


@_guarded.defjvp
def _guarded_jvp(name, primals, tangents):
    return _guarded(*primals, name), _forward.bind(*tangents, name=name)


def program_of(equation: JaxprEqn) -> Jaxpr | None:
    """Return what an equation of the two primitives computes, in XLA operations; else None."""
    params, given = equation.params, [v.aval for v in equation.invars]
    if equation.primitive is _body:
        return jax.make_jaxpr(params["reference"])(*given).jaxpr
    if equation.primitive is _linear_map:
        return jax.make_jaxpr(functools.partial(_run, **params))(*given).jaxpr
    return None


def perturbed(tangents: Sequence[Any]) -> list[int]:
    """Return the places of tangents that are not symbolic zeros."""
    return [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero | ad.Zero)]


def _tangent(fn: Callable[..., Any], primals: Arrays, tangents: Sequence[Any]) -> Any:
    """Return the tangent of `fn(*primals)`, where some tangents are symbolic zeros."""
    along = perturbed(tangents)

    def of_some(*some: jax.Array) -> Any:
        every = list(primals)
        for place, array in zip(along, some, strict=True):
            every[place] = array
        return fn(*every)

    return jax.jvp(of_some, [primals[i] for i in along], [tangents[i] for i in along])[1]


def _run_body(*operands, jaxpr, **_):
    return jaxpr_as_fun(jaxpr)(*operands)[0]


def _body_jvp(primals, tangents, *, jaxpr, reference):
    value = _body.bind(*primals, jaxpr=jaxpr, reference=reference)
    if not (perturbed(tangents) and jnp.issubdtype(value.dtype, jnp.inexact)):
        return value, _ZERO.from_primal_value(value)
    return value, _tangent(reference, primals, tangents)


def _body_batch(operands, axes, *, jaxpr, reference):
    run = functools.partial(_run_body, jaxpr=jaxpr)
    each, reference = (jax.vmap(fn, tuple(axes)) for fn in (run, reference))
    return differentiated_as(each, reference)(*operands), 0


_body.def_impl(_run_body)
_body.def_abstract_eval(lambda *_, jaxpr, **__: jaxpr.out_avals[0])
mlir.register_lowering(_body, mlir.lower_fun(_run_body, multiple_results=False))
ad.primitive_jvps[_body] = _body_jvp
batching.primitive_batchers[_body] = _body_batch


def _run(*arrays, run, number, **_):
    return list(run(arrays[:number], arrays[number:]))


def _linear_map_jvp(primals, tangents, *, run, number, **params):
    params = dict(run=run, number=number, **params)
    value = _linear_map.bind(*primals, **params)
    residuals, operands = primals[:number], primals[number:]
    parts = []
    if perturbed(tangents[number:]):
        moves = map(ad.instantiate_zeros, tangents[number:])
        parts.append(_linear_map.bind(*residuals, *moves, **params))
    if perturbed(tangents[:number]):

        def of_residuals(*residuals):
            return list(run(residuals, operands))

        parts.append(_tangent(of_residuals, residuals, tangents[:number]))
    return value, [sum(part[1:], part[0]) for part in zip(*parts, strict=True)]


def _linear_map_transpose(cotangents, *arrays, transpose, number, results, **_):
    given = [
        jnp.zeros(like.shape, like.dtype) if isinstance(cotangent, ad.Zero) else cotangent
        for cotangent, like in zip(cotangents, results, strict=True)
    ]
    # Plain code, which brings its own derivatives.
    return [None] * number + list(transpose(arrays[:number], given))


def _linear_map_batch(arrays, axes, *, run, transpose, number, **_):
    first, rest = list(axes[:number]), list(axes[number:])

    def run_each(residuals, operands):
        return jax.vmap(run, (first, rest))(list(residuals), list(operands))

    def transpose_each(residuals, cotangents):
        found = jax.vmap(transpose, (first, 0))(list(residuals), list(cotangents))
        return [
            each.sum(axis=0) if axis is None else jnp.moveaxis(each, 0, axis)
            for each, axis in zip(found, rest, strict=True)
        ]

    program = jax.make_jaxpr(run_each)(arrays[:number], arrays[number:])
    results = tuple(program.out_avals)
    params = dict(transpose=transpose_each, number=number, results=results, program=program)
    return _linear_map.bind(*arrays, run=run_each, **params), [0] * len(results)


_linear_map.def_impl(_run)
_linear_map.def_abstract_eval(lambda *_, results, **__: results)
mlir.register_lowering(_linear_map, mlir.lower_fun(_run, multiple_results=True))
ad.primitive_jvps[_linear_map] = _linear_map_jvp
ad.primitive_transposes[_linear_map] = _linear_map_transpose
batching.primitive_batchers[_linear_map] = _linear_map_batch


def _refuse(_, *, name):
    raise InputError(
        f"{name} has a gradient rule for reverse mode only: take jax.grad, jax.vjp or jax.jacrev,"
        " of each other for higher orders, and not jax.jvp, jax.linearize, jax.jacfwd or"
        " jax.hessian, which float operations have."
    )


_forward.def_impl(_refuse)
_forward.def_abstract_eval(lambda tangent, **_: tangent)
mlir.register_lowering(_forward, mlir.lower_fun(_refuse, multiple_results=False))
ad.deflinear2(_forward, lambda cotangent, _, **__: [cotangent])
batching.defvectorized(_forward)
