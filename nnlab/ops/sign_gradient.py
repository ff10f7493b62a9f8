r"""A function whose gradient is replaced by its sign.

With the cotangent g of the value of f, an argument x gets

.. math:: \bar x = \mathrm{sgn}\Bigl( \frac{\partial f}{\partial x}^{\!\top} g \Bigr)         (1)

instead of the bracket itself; sgn 0 = 0. The rule has no potential: it is not linear in g.
Among all steps whose numbers are at most 1 in size, the one against (1) goes down fastest: the
value falls by the 1-norm of the gradient a unit step. So SGD on a loss with rule (1) is signSGD.

References:
    Bernstein et al., signSGD, ICML 2018, https://arxiv.org/abs/1802.04434, Algorithm 1.
    Balles et al., The Geometry of Sign Gradient Descent, 2020, https://arxiv.org/abs/2002.08056.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from nnlab.ops.straight_through import quantize_cotangent

P = ParamSpec("P")
Result = TypeVar("Result")

_signed = quantize_cotangent(jnp.sign)


def sign_cotangent(f: Callable[P, Result]) -> Callable[P, Result]:
    """Return `f` whose floating arguments, pytrees too, get the signs of their cotangents (1).

    The sign is taken once for each argument, of the sum over all its uses in `f`, and over all
    examples of a `jax.vmap` around `f` that shares the argument between them; `jax.vmap` around
    `jax.grad` gives each example its own signs. What `f` takes from around it, not as an argument,
    has its gradient as before.
    """

    @functools.wraps(f)
    def signed(*args: P.args, **kwargs: P.kwargs) -> Result:
        args, kwargs = jax.tree.map(_sign_of_floating, (args, kwargs))
        return f(*args, **kwargs)

    return signed


def _sign_of_floating(x: Any) -> Any:
    return _signed(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x
