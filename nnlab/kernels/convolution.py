r"""The multiplying convolution in its three passes.

Where images and filters are one pixel, all three are products of matrices, which every platform has
in a fast form and a mesh can split in any way. Otherwise:

For float32 and narrower floats on a CPU they run on the same native loops as the adder
(`nnlab/kernels/cpp`). Without these, XLA runs the gradients that JAX derives from a convolution
many times slower inside a loop (and a compiled epoch is a loop) than outside: there it does not
bring their unusual dimension orders into the one that its fast body takes. Written out as forward
convolutions in the usual order, they run as fast inside as outside and give the same bits. Other
platforms recognise the derived form and keep it.

The three are the partial gradients of one form, linear in x, w and g,

.. math:: T(x, w, g) = \sum_{pko} x_{p + k} w_{ko} g_{po},

so that the derivatives of each, of every order and in both modes, are the other two.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import jaxpr_as_fun

from nnlab.kernels import native
from nnlab.kernels.derivatives import linear_map, perturbed
from nnlab.kernels.selection import by_platform
from nnlab.kernels.window import POINT, Window

_ORDER = ("NHWC", "HWIO", "NHWC")


def _is_dense(x: jax.Array, kernel: jax.Array, window: Window) -> bool:
    """Whether images and filters are one pixel, so that the convolution is a matrix product."""
    return window == POINT and x.shape[1:3] == kernel.shape[:2] == (1, 1)


def _rows(x: jax.Array) -> jax.Array:
    return lax.squeeze(x, (1, 2))


def _matrix(kernel: jax.Array) -> jax.Array:
    return lax.squeeze(kernel, (0, 1))


def _matrix_product(a: jax.Array, b: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.matmul(a, b, preferred_element_type=wide).astype(a.dtype)


def convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Cross-correlation of x [batch, height, width, in] with kernel [kh, kw, in, out].

    Pixels of padding are zeros. Returns [batch, out height, out width, out].
    """
    return _partial(2, window, x, kernel)


def convolve_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """Cotangent of `x` in `convolve`, given that of the output, `g`; reads of `x` its shape."""
    return _partial(0, window, x, kernel, g)


def convolve_filter_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """Cotangent of `kernel` in `convolve`, given that of the output, `g`; reads only its shape."""
    return _partial(1, window, x, kernel, g)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _partial(place: int, window: Window, *operands: jax.Array) -> jax.Array:
    """Gradient of T by the one at `place` of (x, kernel, g), of which it reads the shape if any."""
    x, kernel, *rest = operands
    if place == 2:
        return _output(x, kernel, window)
    gradient = _filter_gradient if place else _input_gradient
    return gradient(rest[0], x, kernel, window)


@functools.partial(_partial.defjvp, symbolic_zeros=True)
def _partial_jvp(place, window, primals, tangents):
    along = [i for i in perturbed(tangents) if i != place]
    run = functools.partial(_partial, place, window)
    program = jax.make_jaxpr(run)(*primals)
    [value] = jaxpr_as_fun(program)(*primals)
    if not along:
        return value, jnp.zeros_like(value)

    def with_one(operands, i, other):
        return [*operands[:i], other, *operands[i + 1 :]]

    def tangent(operands, moves):
        terms = (run(*with_one(operands, i, t)) for i, t in zip(along, moves, strict=True))
        return [functools.reduce(jnp.add, terms)]

    def transpose(operands, u):
        return [_partial(i, window, *with_one(operands, place, *u)) for i in along]

    moves = [tangents[i] for i in along]
    [moved] = linear_map(tangent, transpose, primals, moves, [value], program)
    return value, moved


def _output(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    if _is_dense(x, kernel, window):
        return _matrix_product(_rows(x), _matrix(kernel))[:, None, None]
    return by_platform(
        functools.partial(_convolve, window=window),
        x,
        kernel,
        native=functools.partial(native.conv, rule="product", window=window),
    )


def _convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    strides, padding, dilation = window
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_ORDER
    )


def _input_gradient(g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    if _is_dense(x, kernel, window):
        return _matrix_product(_rows(g), _matrix(kernel).T)[:, None, None]
    (pads_h, pads_w), dilation = window.padding, window.dilation

    def sides(axis, pads):
        reach = (kernel.shape[axis] - 1) * dilation[axis]
        low = reach - pads[0]
        spread = (g.shape[1 + axis] - 1) * window.strides[axis] + 1
        return low, x.shape[1 + axis] + reach - spread - low

    def written_out(g, x, kernel):
        return lax.conv_general_dilated(
            g,
            lax.rev(kernel, (0, 1)).swapaxes(2, 3),
            (1, 1),
            (sides(0, pads_h), sides(1, pads_w)),
            lhs_dilation=window.strides,
            rhs_dilation=dilation,
            dimension_numbers=_ORDER,
        )

    def derived(g, x, kernel):
        return jax.linear_transpose(lambda x: _convolve(x, kernel, window), x)(g)[0]

    def xla(g, x, kernel):
        return lax.platform_dependent(g, x, kernel, cpu=written_out, default=derived)

    body = functools.partial(native.conv_input_gradient, rule="product", window=window)
    return by_platform(xla, g, x, kernel, native=body)


def _filter_gradient(g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    if _is_dense(x, kernel, window):
        return _matrix_product(_rows(x).T, _rows(g))[None, None]

    def written_out(g, x, kernel):
        dw = lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            g.transpose(1, 2, 0, 3),
            window.dilation,
            window.padding,
            rhs_dilation=window.strides,
            dimension_numbers=_ORDER,
        )
        return dw.transpose(1, 2, 0, 3)[: kernel.shape[0], : kernel.shape[1]]

    def derived(g, x, kernel):
        return jax.linear_transpose(lambda w: _convolve(x, w, window), kernel)(g)[0]

    def xla(g, x, kernel):
        return lax.platform_dependent(g, x, kernel, cpu=written_out, default=derived)

    body = functools.partial(native.conv_filter_gradient, rule="product", window=window)
    return by_platform(xla, g, x, kernel, native=body)
