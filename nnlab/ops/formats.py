r"""Number formats as values, and products whose operands and errors each have their own format.

============================  ====  =====================================  =============  =======
format                        bits  nearest value, ties to even            largest        inf
============================  ====  =====================================  =============  =======
posit(n, es)                  n     `nnlab.ops.posit`                      2^(2^es(n-2))  NaN
FLOAT8_E4M3                   8     4 bits of exponent, 3 of fraction      448            largest
FLOAT8_E5M2                   8     5 bits of exponent, 2 of fraction      57344          largest
BFLOAT16                      16    8 bits of exponent, 7 of fraction      3.39e38        largest
scaled(format, sigma)         same  S round(x / S)                    (1)  S largest      same
============================  ====  =====================================  =============  =======

All saturate: numbers beyond the largest value become that value. NaN stays NaN. Posits do not
underflow; the others do, gradually. The scale in (1) is a power of two for a whole array,

.. math:: S = 2^{c + \sigma}, \quad c = round(mean_{x \ne 0} \log_2 |x|),                (2)

so that it moves the numbers to where the format is precise without rounding them. That is meant for
the weights and the errors of a layer. Inputs that come out of a normalisation have the right scale
already, and a scale would make the answer to one image depend on the others of its batch.

`formatted(product, kernel=a, inputs=b, errors=c)` is itself a product:

=========  ========================================  ==========================================
           value                                     cotangent rule
=========  ========================================  ==========================================
y          product(b(x), a(w))                  (3)
x, w                                                 of the product, at b(x) and a(w), with c(g)
                                                     in place of g                           (4)
=========  ========================================  ==========================================

The potentials of (4) are those of the product, because rounding is straight-through. Emulated
products are summed in float32: accumulators are wide, as a quire is. `nnlab.costs.count` counts a
conversion as nothing, and a product at the dtype that carries it.

References:
    Lu et al., Training deep neural networks using posit number system, 2019,
    https://arxiv.org/abs/1909.03831, for (1) and (2). Micikevicius et al., FP8 formats for deep
    learning, 2022, https://arxiv.org/abs/2209.05433, for the float8 formats and their saturation.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from nnlab.errors import InputError
from nnlab.ops.convolution import conv
from nnlab.ops.posit import check_format, posit_value
from nnlab.ops.products import Product
from nnlab.ops.straight_through import (
    Quantizer,
    quantize_cotangent,
    stored_in,
    straight_through,
)


@dataclasses.dataclass(frozen=True)
class Format:
    """A number format.

    Attributes:
        name: such as "posit(8, 1)".
        bits: size of one number.
        nearest: takes float32 of any shape to the nearest numbers of the format; no gradient.
        sigma: exponent sigma of the scale (2), None without a scale.
    """

    name: str
    bits: int
    nearest: Quantizer
    sigma: int | None = None

    def split(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the nearest values of `x`, in its dtype, and the scale S, 1 without a scale.

        Args:
            x: any shape, floating.
        """
        dtype = x.dtype
        x = lax.stop_gradient(x).astype(jnp.float32)
        if self.sigma is None:
            return self.nearest(x).astype(dtype), jnp.ones(())
        exponent = _center(x) + self.sigma  # (2)
        scale = _power_of_two(exponent)
        return (self.nearest(x * _power_of_two(-exponent)) * scale).astype(dtype), scale  # (1)

    def round(self, x: jax.Array) -> jax.Array:
        """Round `x` (any shape, floating) to the nearest values, in its dtype, straight-through."""
        return straight_through(self.split(x)[0], x)


def scaled(form: Format, sigma: int = 2) -> Format:
    """Return `form` after a scale: the power of two (1) that fits an array.

    Raises:
        InputError: the format is scaled already, or `sigma` is not an integer from -32 to 32.
    """
    if form.sigma is not None:
        raise InputError(f"{form.name} has a scale already; expected a format without one.")
    if not (isinstance(sigma, int) and -32 <= sigma <= 32):
        raise InputError(f"sigma must be an integer from -32 to 32, not {sigma}.")
    return dataclasses.replace(form, name=f"scaled {form.name}", sigma=sigma)


def posit(n: int, es: int) -> Format:
    """Posits of n bits, 2 to 16, with es bits of exponent, 0 to 3.

    Raises:
        InputError: other numbers were given.
    """
    check_format(n, es)
    return Format(f"posit({n}, {es})", n, _conversion(functools.partial(posit_value, n=n, es=es)))


def _conversion(nearest: Quantizer) -> Quantizer:
    """`nearest`, jitted under the name by which `nnlab.costs` counts a conversion as nothing."""

    def format_conversion(x):
        return nearest(x)

    return jax.jit(format_conversion)


def _small_float(dtype: DTypeLike) -> Format:
    info = jnp.finfo(dtype)
    largest = float(info.max)

    def nearest(x):
        return jnp.clip(x, -largest, largest).astype(dtype).astype(x.dtype)

    return Format(jnp.dtype(dtype).name, info.bits, _conversion(nearest))


FLOAT8_E4M3 = _small_float(jnp.float8_e4m3fn)
FLOAT8_E5M2 = _small_float(jnp.float8_e5m2)
BFLOAT16 = _small_float(jnp.bfloat16)


def formatted(
    product: Product = conv,
    *,
    kernel: Format | None = None,
    inputs: Format | None = None,
    errors: Format | None = None,
) -> Product:
    """Make the product (3) with the rules (4); where a format is None, numbers stay as they are.

    Args:
        product: `op(x, kernel, **options)`, as in `nnlab.ops.products`.
        kernel: format of the weights, which are stored in it.
        inputs: format of the inputs.
        errors: format of the cotangent of the result.
    """
    store = stored_in(kernel.bits, functools.partial(_at_rest, kernel)) if kernel else None
    send = quantize_cotangent(errors.round) if errors else None

    def op(x: jax.Array, kernel: jax.Array, **options) -> jax.Array:
        if inputs:
            x = inputs.round(x)
        if store:
            kernel = straight_through(store(kernel)[0], kernel)
        y = product(x, kernel, **options)  # (3)
        return send(y) if send else y  # (4)

    return op


def _at_rest(form: Format, w: jax.Array) -> tuple[jax.Array, ...]:
    values, scale = form.split(w)
    return (values,) if form.sigma is None else (values, scale)


def _center(x: jax.Array) -> jax.Array:
    """The exponent c of (2), int32, of the finite numbers; 0 if all are zeros."""
    some = (x != 0) & jnp.isfinite(x)
    logs = jnp.where(some, jnp.log2(jnp.where(some, jnp.abs(x), 1.0)), 0.0)
    return jnp.round(logs.sum() / jnp.maximum(some.sum(), 1).astype(logs.dtype)).astype(jnp.int32)


def _power_of_two(exponent: jax.Array) -> jax.Array:
    """2^exponent, exact, which `jnp.exp2` need not be; exponents stay in normal float32."""
    return lax.bitcast_convert_type((jnp.clip(exponent, -126, 126) + 127) << 23, jnp.float32)
