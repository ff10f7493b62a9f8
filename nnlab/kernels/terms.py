"""Sums of any elementwise term and of its slopes: the bodies of an arithmetic of your own.

XLA's are the blocked sums of `nnlab.kernels.adder_xla`, so that nothing of size
[positions, in, out] exists. On a CPU the native loops sum terms whose steps have a native form
(`nnlab.kernels.term_source`), in float32, from a library that is compiled when a program with the
term is first traced (`nnlab.kernels.term_libraries`). Sums that are convolutions are computed as
such (`nnlab.kernels.term_products`).

Operands are float32 or wider, of one dtype. Every kernel is jitted under a name of its own, by
which `nnlab.costs.count` finds its term.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError
from nnlab.kernels import native, selection, term_products
from nnlab.kernels.adder_xla import filter_sum, input_sum, window_sum
from nnlab.kernels.batch import sum_over_images
from nnlab.kernels.derivatives import differentiated_as
from nnlab.kernels.term_libraries import add
from nnlab.kernels.term_programs import Function, NotNativeError, program_of
from nnlab.kernels.term_source import Kind, source_of
from nnlab.kernels.window import Window

# What looks at more than one pair of numbers.
_NOT_ELEMENTWISE = ("reduce_", "cum", "arg", "sort", "dot_general", "conv_general", "fft", "psum")
_SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
_KERNELS: dict[Kind, str] = {
    "value": "conv",
    "input_rule": "conv_input_gradient",
    "filter_rule": "conv_filter_gradient",
}

_traced: dict[str, Function] = {}  # what a term of a kernel computes, by the kernel's name


@dataclasses.dataclass(frozen=True)
class Term:
    r"""A term :math:`f(x, w)` of an input and a weight, and its slopes.

    Attributes:
        value: elementwise function of two floating arrays that broadcast, as in
            `lambda x, w: -jnp.abs(x - w)`.
        filter_rule: the same; what the cotangent of w is multiplied with. None is the derivative
            of `value` by w, with JAX's own choices at kinks.
        input_rule: that of x.

    Raises:
        InputError: one of them is no such function.
    """

    value: Function
    filter_rule: Function | None = None
    input_rule: Function | None = None

    def __post_init__(self):
        for kind, function in vars(self).items():
            if function is not None or kind == "value":
                _check(kind, function)

    def part(self, kind: Kind) -> Function:
        """The function of a kind, of the operands' dtype and broadcast shape."""
        value = _whole(self.value)
        if kind == "value":
            return value
        if (rule := getattr(self, kind)) is not None:
            return _whole(rule)

        def slope(x: jax.Array, w: jax.Array) -> jax.Array:
            if kind == "input_rule":
                return jax.jvp(lambda x: value(x, w), (x,), (jnp.ones_like(x),))[1]
            return jax.jvp(lambda w: value(x, w), (w,), (jnp.ones_like(w),))[1]

        return slope


def term_conv(x: jax.Array, kernel: jax.Array, *, window: Window, term: Term) -> jax.Array:
    """`sum_k value(x_k, w_k)` of every window of `x` and every filter.

    Args:
        x: images [batch, height, width, in].
        kernel: filters [kh, kw, in, out].
        window: strides, padding (with zeros, whose terms count) and dilation.

    Returns:
        [batch, out height, out width, out].
    """
    return _kernel(term, "value")(x, kernel, window=window)


def term_conv_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, window: Window, term: Term
) -> jax.Array:
    """`sum_o g_o input_rule(x, w_o)` over the windows that hold a pixel.

    `g` is the cotangent of the output [batch, out height, out width, out]; returns that of `x`.
    """
    return _kernel(term, "input_rule")(g, x, kernel, window=window)


def term_conv_filter_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, *, window: Window, term: Term
) -> jax.Array:
    """`sum_p g_p filter_rule(x_p, w)` over all positions p, padded pixels included.

    `g` is the cotangent of the output; returns that of `kernel`.
    """
    return _kernel(term, "filter_rule")(g, x, kernel, window=window)


def term_status(term: Term) -> dict[str, dict[str, str]]:
    """Report the body that serves each kernel of a term, as `nnlab.kernels.status` does.

    Where that is XLA's on a CPU although there are native kernels, the reason is said as well, as
    in "xla (exp has no native form)". "convolution" means that the sums are those of a float layer,
    as for x - w or x sgn(w). Libraries are compiled if they are not there yet.
    """
    report = {}
    for kind, name in _KERNELS.items():
        if _parts(term, kind):
            report[f"term_{name}"] = dict.fromkeys(("cpu", "gpu", "tpu"), "convolution")
            continue
        body = "xla"
        if selection.chooses_native():
            try:
                _library(term, kind)
                body = f"native ({selection.instructions()})"
            except NotNativeError as reason:
                body = f"xla ({reason})"
        report[f"term_{name}"] = {"cpu": body, "gpu": "xla", "tpu": "xla"}
    return report


def term_of_kernel(name: str) -> Function | None:
    """Return what a term of the kernel of this name computes of two scalars, or None.

    That is without what the sum makes of it: a product with the cotangent, and an addition.
    """
    function = _traced.get(name)
    if function is None:
        return None
    try:
        return program_of(function)
    except NotNativeError:
        return function


@functools.cache
def _kernel(term: Term, kind: Kind) -> Callable[..., jax.Array]:
    function, parts = term.part(kind), _parts(term, kind)

    def kernel(*operands: jax.Array, window: Window) -> jax.Array:
        if parts and operands[0].dtype == jnp.float32:  # as the program was traced
            return getattr(term_products, _KERNELS[kind])(parts, *operands, window)

        def xla(*operands: Any) -> jax.Array:
            if kind == "value":
                x, weights = operands
                return window_sum(function, x, weights, window, x.dtype)
            g, x, weights = operands
            sum_of = input_sum if kind == "input_rule" else filter_sum
            return sum_of(function, g, x, weights, window)

        body = xla
        if kind == "filter_rule" and not has_tables:
            body = differentiated_as(sum_over_images(xla), xla)
        return selection.by_platform(body, *operands, native=_native(term, kind, window, operands))

    has_tables = bool(jax.make_jaxpr(function)(_SCALAR, _SCALAR).consts)  # a partition takes none
    kernel.__name__ = f"term_{_digest(function)}_{_KERNELS[kind]}"
    _traced[kernel.__name__] = function
    return jax.jit(kernel, static_argnames="window")


@functools.cache
def _parts(term: Term, kind: Kind) -> term_products.Parts | None:
    try:
        parts = term_products.parts_of(program_of(term.part(kind)))
    except NotNativeError:
        return None
    return parts if parts and (kind != "value" or parts.is_product) else None


def _native(term: Term, kind: Kind, window: Window, operands: tuple[jax.Array, ...]):
    """The native body, or None where there is no such library or this program has no use for it."""
    if not selection.is_for_cpu() or not selection.chooses_native():
        return None
    if not selection.are_native(operands):
        return None
    try:
        rule = _library(term, kind)
    except NotNativeError:
        return None
    call = {
        "value": native.conv,
        "input_rule": native.conv_input_gradient,
        "filter_rule": native.conv_filter_gradient,
    }[kind]
    return functools.partial(call, rule=rule, window=window)


def _library(term: Term, kind: Kind) -> str:
    found = _found(term, kind, selection.instructions())
    if isinstance(found, NotNativeError):
        raise found
    return found


@functools.cache
def _found(term: Term, kind: Kind, instructions: str) -> str | NotNativeError:
    try:
        program = program_of(term.part(kind))
        return add(source_of(program, kind), selection.library(), instructions)
    except NotNativeError as error:
        return error


def _digest(function: Function) -> str:
    try:
        return program_of(function).digest
    except NotNativeError:
        text = str(jax.make_jaxpr(function)(_SCALAR, _SCALAR))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _whole(function: Function) -> Function:
    @functools.wraps(function)
    def whole(x: jax.Array, w: jax.Array) -> jax.Array:
        shape = jnp.broadcast_shapes(x.shape, w.shape)
        return jnp.broadcast_to(jnp.asarray(function(x, w)).astype(x.dtype), shape)

    return whole


def _check(kind: str, function: Any) -> None:
    """Raise unless a function is elementwise; of a rule, a constant may come."""
    if not callable(function):
        raise InputError(f"{kind} must be a function of x and w, not {function!r}.")
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((5, 1), (1, 3)))
    try:
        traced, shape = jax.make_jaxpr(function, return_shape=True)(x, w)
    except TypeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{kind} must be a function of two arrays x and w: {reason}.") from error
    result = np.shape(shape) if not hasattr(shape, "shape") else shape.shape
    steps = (equation.primitive.name for equation in traced.jaxpr.eqns)
    mixing = next((step for step in steps if step.startswith(_NOT_ELEMENTWISE)), None)
    fits = result == (5, 3) or (kind != "value" and result in ((5, 1), (1, 3), ()))
    if mixing or not fits:
        what = f"has a {mixing}" if mixing else f"gave an array of shape {result} for (5, 3)"
        raise InputError(
            f"{kind} must be elementwise, a number for each input and each weight, but it {what}."
        )
