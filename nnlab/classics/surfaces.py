r"""Surfaces on which optimisers show their character, and the paths that they take there.

Rosenbrock's valley is curved and flat along its floor, with its minimum of 0 at (1, 1):

.. math:: f(x) = (1 - x_1)^2 + 100\, (x_2 - x_1^2)^2                                   (1)

A quadratic bowl of condition c is c times as steep in its second direction as in its first,

.. math:: f(x) = \tfrac12 (x_1^2 + c\, x_2^2)                                          (2)

so gradient descent needs a rate below 2 / c, and at that rate it creeps along the first. Newton's
method takes the step

.. math:: x \leftarrow x - \nabla^2 f(x)^{-1} \nabla f(x)                              (3)

which ends on (2) at once, and on (1) may first climb.

References:
    Rosenbrock, An automatic method for finding the greatest or least value of a function, The
    Computer Journal 3, 1960, for (1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from nnlab.errors import check_count

Surface = Callable[[jax.Array], jax.Array]


class Path(NamedTuple):
    """Where an optimiser went.

    Attributes:
        points: the start and the point after each step, [steps + 1, dimensions].
        values: of the function there, [steps + 1].
    """

    points: jax.Array
    values: jax.Array


def rosenbrock(x: jax.Array) -> jax.Array:
    """Return (1) at a point [2]."""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def bowl(condition: float) -> Surface:
    """Return the function (2) of a point [2]."""
    return lambda x: (x[0] ** 2 + condition * x[1] ** 2) / 2


def path(
    optimizer: optax.GradientTransformation, surface: Surface, start: jax.Array, steps: int
) -> Path:
    """Follow an optax optimiser from a point [dimensions].

    Optimisers that search along a line, such as `optax.lbfgs`, get value, gradient and function.

    Raises:
        InputError: there are no steps.
    """
    check_count("steps", steps)
    with_extra = optax.with_extra_args_support(optimizer)

    def step(carry, _):
        x, state = carry
        value, gradient = jax.value_and_grad(surface)(x)
        updates, state = with_extra.update(
            gradient, state, x, value=value, grad=gradient, value_fn=surface
        )
        x = optax.apply_updates(x, updates)
        return (x, state), x

    points: Any = lax.scan(step, (start, optimizer.init(start)), length=steps)[1]
    return _path(surface, start, points)


def newton_path(surface: Surface, start: jax.Array, steps: int) -> Path:
    """Follow Newton's method (3) with full steps from a point [dimensions].

    Raises:
        InputError: there are no steps.
    """
    check_count("steps", steps)

    def step(x, _):
        x = x - jnp.linalg.solve(jax.hessian(surface)(x), jax.grad(surface)(x))
        return x, x

    return _path(surface, start, lax.scan(step, start, length=steps)[1])


def _path(surface: Surface, start: jax.Array, points: jax.Array) -> Path:
    points = jnp.concatenate([start[None], points])
    return Path(points, jax.vmap(surface)(points))
