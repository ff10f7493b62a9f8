"""Values that are not what they are trained as: straight-through values, changed cotangents.

=============================  =======  =============================
function                       value    cotangent rule
=============================  =======  =============================
straight_through(value, x)     value    of x: g;  of value: 0      (1)
quantize_cotangent(q)(x)       x        of x: q(g)                 (2)
=============================  =======  =============================

(1) is the true gradient of the potential x, and is how a rounded weight trains the real one that it
comes from. (2) rounds the errors that training sends back.

A quantiser of weights also says how many bits a stored weight takes, through `stored_in`: real
weights are for training, and `nnlab.costs.stored_bytes` counts what would be kept of them.
"""

from collections.abc import Callable
from typing import Any

import jax

from nnlab.kernels.derivatives import reverse_rule

Quantizer = Callable[[jax.Array], jax.Array]


@reverse_rule
def straight_through(value: jax.Array, x: jax.Array) -> jax.Array:
    """Return `value`; its cotangent goes to `x` as it is (1). Both have one shape and dtype."""
    return value


straight_through.defvjp(lambda value, x: (straight_through(value, x), None), lambda _, g: (None, g))


def quantize_cotangent(quantizer: Quantizer) -> Quantizer:
    """Return the identity whose cotangent passes through `quantizer` (2)."""

    @reverse_rule
    def quantized_cotangent(x):
        return x

    quantized_cotangent.defvjp(
        lambda x: (quantized_cotangent(x), None), lambda _, g: (quantizer(g),)
    )
    return quantized_cotangent


def stored_in(bits: int, quantizer: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a quantiser of weights as one that `nnlab.costs` counts once, when weights are stored.

    Args:
        bits: size of a stored weight.
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
