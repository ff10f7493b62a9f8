"""Values that are not what they are trained as: straight-through values, changed cotangents.

=============================  =======  =============================
function                       value    cotangent rule
=============================  =======  =============================
straight_through(value, x)     value    of x: g;  of value: 0      (1)
quantize_cotangent(q)(x)       x        of x: q(g)                 (2)
=============================  =======  =============================

(1) is the true gradient of the potential x, and is how a rounded weight trains the real one behind
it. (2) is where a training rounds the errors that it sends back.

A quantiser of weights also says how many bits a stored weight takes, by `stored_in`: real weights
are for training, and what `nnlab.costs.stored_bytes` counts is what would be kept of them.
"""

from collections.abc import Callable
from typing import Any

import jax

Quantizer = Callable[[jax.Array], jax.Array]


@jax.custom_vjp
def straight_through(value: jax.Array, x: jax.Array) -> jax.Array:
    """`value`, whose cotangent goes to `x` as it is (1); both of one shape and floating dtype."""
    return value


straight_through.defvjp(lambda value, x: (value, None), lambda _, g: (None, g))


def quantize_cotangent(quantizer: Quantizer) -> Quantizer:
    """The identity whose cotangent passes through `quantizer` (2)."""

    @jax.custom_vjp
    def identity(x):
        return x

    identity.defvjp(lambda x: (x, None), lambda _, g: (quantizer(g),))
    return identity


def stored_in(bits: int, quantizer: Callable[..., Any]) -> Callable[..., Any]:
    """`quantizer` of weights, known to `nnlab.costs` as done once, when weights are stored.

    Args:
        bits: of a stored weight.
        quantizer: takes the array of weights, and maybe others that go into the same numbers and
            are not stored beside them. It returns the quantised weights, or a tuple of these and of
            what is stored with them at its own dtype, such as one scale a filter.

    Returns:
        The same function, jitted. At inference it counts as no arithmetic, and the weights that
        are used by it alone as `bits` bits each.
    """

    def named(*weights):
        return quantizer(*weights)

    named.__name__ = f"stored_in_{bits}_bits"
    return jax.jit(named)
