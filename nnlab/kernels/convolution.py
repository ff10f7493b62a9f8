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


def _matrix_product(a: jax.Array, b: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.matmul(a, b, preferred_element_type=wide).astype(a.dtype)


def convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Cross-correlation of x [batch, height, width, in] with kernel [kh, kw, in, out].

    Pixels of padding are zeros. Returns [batch, out height, out width, out].
    """
    return _forward(x, kernel, window)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _forward(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    if _is_dense(x, kernel, window):
        return _matrix_product(x[:, 0, 0], kernel[0, 0])[:, None, None]
    return by_platform(
        functools.partial(_convolve, window=window),
        x,
        kernel,
        native=functools.partial(native.conv, rule="product", window=window),
    )


@functools.partial(_forward.defjvp, symbolic_zeros=True)
def _forward_jvp(window, primals, tangents):
    def cotangents(primals, g):
        x, kernel = primals
        return (
            lambda: convolve_input_gradient(g, x, kernel, window),
            lambda: convolve_filter_gradient(g, x, kernel, window),
        )

    run = functools.partial(convolve, window=window)
    return _bilinear(run, cotangents, primals, tangents)


def _convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    strides, padding, dilation = window
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_ORDER
    )


def convolve_input_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """Cotangent of `x` in `convolve`, given that of the output, `g`; reads of `x` its shape."""
    return _input_gradient(g, x, kernel, window)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _input_gradient(g, x, kernel, window) -> jax.Array:
    if _is_dense(x, kernel, window):
        return _matrix_product(g[:, 0, 0], kernel[0, 0].T)[:, None, None]
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


@functools.partial(_input_gradient.defjvp, symbolic_zeros=True)
def _input_gradient_jvp(window, primals, tangents):
    g, x, kernel = primals

    def cotangents(primals, u):
        g, kernel, _ = primals
        return (
            lambda: convolve(u, kernel, window),
            lambda: convolve_filter_gradient(g, u, kernel, window),
        )

    def run(g, kernel, x):
        return convolve_input_gradient(g, x, kernel, window)

    return _bilinear(run, cotangents, (g, kernel, x), (tangents[0], tangents[2]))


def convolve_filter_gradient(
    g: jax.Array, x: jax.Array, kernel: jax.Array, window: Window
) -> jax.Array:
    """Cotangent of `kernel` in `convolve`, given that of the output, `g`; reads only its shape."""
    return _filter_gradient(g, x, kernel, window)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _filter_gradient(g, x, kernel, window) -> jax.Array:
    if _is_dense(x, kernel, window):
        return _matrix_product(x[:, 0, 0].T, g[:, 0, 0])[None, None]

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


@functools.partial(_filter_gradient.defjvp, symbolic_zeros=True)
def _filter_gradient_jvp(window, primals, tangents):
    g, x, kernel = primals

    def cotangents(primals, u):
        g, x, _ = primals
        return (
            lambda: convolve(x, u, window),
            lambda: convolve_input_gradient(g, x, u, window),
        )

    def run(g, x, kernel):
        return convolve_filter_gradient(g, x, kernel, window)

    return _bilinear(run, cotangents, (g, x, kernel), tangents[:2])


def _bilinear(run, cotangents, primals, tangents):
    """Value and tangent of `run(a, b, …)`, linear in a and in b, the only ones with tangents.

    `cotangents(primals, u)` returns, given the cotangent u of the result, one function for each of
    these two. Neither function may hold arrays of its own.
    """
    program = jax.make_jaxpr(run)(*primals)
    [value] = jaxpr_as_fun(program)(*primals)
    along = perturbed(tangents)

    def tangent(primals, moves):
        terms = [
            run(*(move if at == i else primal for at, primal in enumerate(primals)))
            for i, move in zip(along, moves, strict=True)
        ]
        return [functools.reduce(jnp.add, terms)]

    def transpose(primals, u):
        each = cotangents(primals, *u)
        return [each[i]() for i in along]

    moves = [tangents[i] for i in along]
    [moved] = linear_map(tangent, transpose, primals, moves, [value], program)
    return value, moved
