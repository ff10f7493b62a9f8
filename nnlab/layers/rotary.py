r"""Rotary positions: each pair of numbers of a query or key turns by an angle.

At position p the i-th of h / 2 pairs turns by

.. math:: p\,r_i, \qquad r_i = \theta^{-2i/h}, \qquad i = 0, …, h/2 - 1                    (1)

so that products depend on distances alone. A pair is (i, i + h/2), which is how the published
weights of Llama are kept, or, interleaved, (2i, 2i + 1), as in the paper.

A network that has seen texts of up to n symbols reads longer ones at smaller rates, by a factor f:

.. math:: r'_i = r_i / f                                                    (2, `LinearScaling`)

.. math:: r'_i = r_i\, g^{-2i/(h-2)}, \qquad g = f \max(l / n, 1) - (f - 1)
          \qquad                                                          (3, `DynamicScaling`)

for a text of l symbols, which is (1) with :math:`\theta g^{h/(h-2)}` for :math:`\theta`: the
fastest pair keeps its rate, the slowest has it divided by g. Llama 3 divides the slow rates, those
that turn fewer than a times within n symbols, keeps those that turn more than b times, and mixes
between them:

.. math:: r'_i = s_i r_i + (1 - s_i)\, r_i / f, \qquad s_i = \mathrm{clip}\!\left(
          \frac{n r_i / 2\pi - a}{b - a}, 0, 1\right)                      (4, `Llama3Scaling`)

References:
    Su et al., RoFormer, 2021, https://arxiv.org/abs/2104.09864, section 3.4.2, for eq. 1; Chen et
    al., Extending context window of large language models via positional interpolation, 2023,
    https://arxiv.org/abs/2306.15595, for eq. 2; Peng et al., YaRN, 2023,
    https://arxiv.org/abs/2309.00071, section 3 and appendix, for eq. 3; Llama 3.1's code and
    huggingface/transformers (modeling_rope_utils.py) for eq. 4.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError

Scaling = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Eq. 2, called as `scaling(rates, positions)`.

    Attributes:
        factor: f, at least 1.

    Raises:
        InputError: it is not.
    """

    factor: float

    def __post_init__(self) -> None:
        _check_factor(self.factor)

    def __call__(self, rates: jax.Array, positions: jax.Array) -> jax.Array:
        """Return the rates [h / 2] that pairs turn at."""
        return rates / self.factor


@dataclasses.dataclass(frozen=True)
class DynamicScaling:
    """Eq. 3, called as `scaling(rates, positions)`; l is one more than a text's last position.

    Keys in a cache keep the rate at which they came, as in Hugging Face's code: beyond n symbols, a
    text that is read in pieces differs from one that is read at once.

    Attributes:
        factor: f, at least 1.
        trained: n, at least 1.

    Raises:
        InputError: one of them is smaller.
    """

    factor: float
    trained: int

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        _check_trained(self.trained)

    def __call__(self, rates: jax.Array, positions: jax.Array) -> jax.Array:
        """Return the rates [batch, 1, h / 2] that pairs turn at."""
        length = jnp.max(positions, axis=1, keepdims=True)[..., None] + 1
        growth = self.factor * jnp.maximum(length / self.trained, 1) - (self.factor - 1)
        pairs = len(rates)
        exponents = -np.arange(pairs, dtype=np.float32) / max(pairs - 1, 1)  # 2i / (h - 2)
        return rates[None, None] * growth ** exponents[None, None]


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Eq. 4, called as `scaling(rates, positions)`; the defaults are those of Llama 3.1.

    Attributes:
        factor: f, at least 1.
        low_turns, high_turns: a and b, b above a.
        trained: n, at least 1.

    Raises:
        InputError: they are not.
    """

    factor: float = 8.0
    low_turns: float = 1.0
    high_turns: float = 4.0
    trained: int = 8192

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        _check_trained(self.trained)
        if not 0 < self.low_turns < self.high_turns < math.inf:
            raise InputError(
                "the turns of slow and fast pairs must be positive and rise, not "
                f"{self.low_turns} and {self.high_turns}."
            )

    def __call__(self, rates: jax.Array, positions: jax.Array) -> jax.Array:
        """Return the rates [h / 2] that pairs turn at."""
        turns = self.trained * rates / (2 * np.pi)
        kept = jnp.clip((turns - self.low_turns) / (self.high_turns - self.low_turns), 0, 1)
        return kept * rates + (1 - kept) * rates / self.factor


def rotary(
    x: jax.Array,
    positions: jax.Array,
    *,
    theta: float = 10_000.0,
    interleaved: bool = False,
    scaling: Scaling | None = None,
) -> jax.Array:
    """Turn the pairs of x [batch, time, heads, h] by eq. 1, in float32 at least.

    Args:
        x: queries or keys.
        positions: integers [batch, time] or [1, time].
        theta: base of the angles.
        interleaved: whether pairs are neighbours, and not h / 2 apart.
        scaling: changes the rates [h / 2] for these positions.

    Raises:
        InputError: h is odd.
    """
    size = x.shape[-1]
    if size % 2:
        raise InputError(f"rotary positions turn pairs, which heads of {size} numbers do not have.")
    rates: Any = theta ** (-np.arange(0, size, 2, dtype=np.float32) / size)
    if scaling is not None:
        rates = scaling(rates, positions)
    rates = jnp.reshape(rates, (-1, 1, size // 2))
    angles = positions[..., None].astype(jnp.float32) * rates
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if interleaved:
        first, second = wide[..., ::2], wide[..., 1::2]
    else:
        first, second = jnp.split(wide, 2, axis=-1)
    turned = first * cos - second * sin, second * cos + first * sin
    y = jnp.stack(turned, -1).reshape(x.shape) if interleaved else jnp.concatenate(turned, -1)
    return y.astype(x.dtype)


def _check_factor(factor: float) -> None:
    if not 1 <= factor < math.inf:
        raise InputError(f"the factor of a scaling must be at least 1, not {factor}.")


def _check_trained(trained: int) -> None:
    if not 1 <= trained < math.inf:
        raise InputError(f"a scaling must start from at least 1 position, not {trained}.")
