r"""Addressing of a memory by content and by location, reading and writing, all differentiable.

A memory M has N locations of W numbers. A head looks at all of them at once, by a weighting w: N
numbers that are not negative and sum to 1. Its next weighting follows from the last one and from
what a controller says (key k, strength β > 0, gate g in [0, 1], a distribution s over offsets, and
sharpness γ ≥ 1) in four stages, each a weighting again:

.. math::
    K(u, v) &= u \cdot v / \sqrt{(|u|^2 + \epsilon)(|v|^2 + \epsilon)}                       (1) \\
    w^c(i) &= \mathrm{softmax}_i\, \beta K(k, M(i))                                          (2) \\
    w^g(i) &= g\, w^c(i) + (1 - g)\, w_{t-1}(i)                                              (3) \\
    \tilde w(i) &= \sum_j w^g(i - j \bmod N)\, s(j)                                          (4) \\
    w(i) &= \tilde w(i)^\gamma / \sum_j \tilde w(j)^\gamma                                   (5)

A read is a mean of locations, and a write erases (e in [0, 1]) and adds. Several heads h erase
before any adds, so their order does not matter:

.. math::
    r &= \sum_i w(i) M(i)                                                                    (6) \\
    \tilde M(i) &= M_{t-1}(i) \prod_h (1 - w_h(i) e_h)                                       (7) \\
    M(i) &= \tilde M(i) + \sum_h w_h(i) a_h                                                  (8)

Deviations: the paper has no ε = 1e-8 in (1). It makes a vector of zeros similar to nothing, K = 0,
with a gradient of at most 1e4; the similarity of a vector u to itself is 1 - ε / |u|², which
float32 rounds to 1 from |u| = 0.4 on. In (5) a location of weight 0 stays at 0 and has no gradient,
which is the limit for γ > 1; the power is that of w̃ over its largest element, so that no γ makes
it 0 / 0.

Leading axes, `…`, are batches; the last axis but one holds the heads, H. All is computed and
returned in float32 at least.

Reference:
    Graves, Wayne & Danihelka, Neural Turing Machines, 2014, https://arxiv.org/abs/1410.5401,
    eqs. 2 (6), 3 (7), 4 (8), 5 (2), 6 (1), 7 (3), 8 (4) and 9 (5).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

EPSILON = 1e-8


def cosine_similarity(keys: ArrayLike, memory: ArrayLike) -> jax.Array:
    """Compute (1) for every key and location.

    Args:
        keys: [..., H, W].
        memory: [..., N, W].

    Returns:
        [..., H, N], from -1 to 1.

    Raises:
        ValueError: keys and locations have different sizes.
    """
    keys, memory = _wide(keys), _wide(memory)
    if keys.shape[-1] != memory.shape[-1]:
        raise ValueError(
            f"keys of {keys.shape[-1]} numbers cannot be compared with locations of"
            f" {memory.shape[-1]}; expected equal sizes."
        )
    products = jnp.einsum("...hw,...nw->...hn", keys, memory)
    of_keys = jnp.square(keys).sum(-1)[..., None] + EPSILON
    of_memory = jnp.square(memory).sum(-1)[..., None, :] + EPSILON
    return products * lax.rsqrt(of_keys) * lax.rsqrt(of_memory)  # (1)


def content_weighting(keys: ArrayLike, strengths: ArrayLike, memory: ArrayLike) -> jax.Array:
    """Compute (2): weightings [..., H, N] from keys [..., H, W] and strengths [..., H].

    Strengths should stay below 1e6: beyond, a compiler that fuses the product with the softmax's
    subtraction of the maximum rounds them apart, which can give NaN.
    """
    similarity = cosine_similarity(keys, memory)
    return jax.nn.softmax(_wide(strengths)[..., None] * similarity, axis=-1)  # (2)


def interpolate(content: ArrayLike, previous: ArrayLike, gates: ArrayLike) -> jax.Array:
    """Compute (3): interpolate two weightings [..., H, N] by gates [..., H]."""
    gates = _wide(gates)[..., None]
    return gates * _wide(content) + (1 - gates) * _wide(previous)  # (3)


def circular_shift(weightings: ArrayLike, shifts: ArrayLike) -> jax.Array:
    """Compute (4): move weightings around the memory.

    Args:
        weightings: [..., H, N].
        shifts: [..., H, 2 R + 1], distributions over the offsets -R to R: all weight on the last
            moves every location's weight R further, that of the last locations to the first.

    Returns:
        [..., H, N].

    Raises:
        ValueError: the number of offsets is even, or greater than 2 N + 1.
    """
    weightings, shifts = _wide(weightings), _wide(shifts)
    taps, locations = shifts.shape[-1], weightings.shape[-1]
    reach = taps // 2
    if taps % 2 == 0 or reach > locations:
        raise ValueError(
            f"a shift over {taps} offsets does not fit {locations} locations; expected an odd"
            f" number of at most {2 * locations + 1}."
        )
    first, last = weightings[..., :reach], weightings[..., locations - reach :]
    around = jnp.concatenate([last, weightings, first], axis=-1)
    return sum(  # (4), the offset is tap - reach
        (
            around[..., taps - 1 - tap : taps - 1 - tap + locations] * shifts[..., tap, None]
            for tap in range(taps)
        ),
        start=jnp.zeros((), weightings.dtype),
    )


def sharpen(weightings: ArrayLike, sharpness: ArrayLike) -> jax.Array:
    """Compute (5): weightings [..., H, N], not all 0, to the power of sharpness [..., H]."""
    weightings, sharpness = _wide(weightings), _wide(sharpness)
    positive = weightings > 0
    logarithms = jnp.log(jnp.where(positive, weightings, 1))
    scores = jnp.where(positive, sharpness[..., None] * logarithms, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)  # (5)


def address(
    memory: ArrayLike,
    previous: ArrayLike,
    keys: ArrayLike,
    strengths: ArrayLike,
    gates: ArrayLike,
    shifts: ArrayLike,
    sharpness: ArrayLike,
) -> jax.Array:
    """Compute the next weightings of all heads, equations (2) to (5).

    Args:
        memory: [..., N, W].
        previous: weightings [..., H, N].
        keys: [..., H, W].
        strengths, gates, sharpness: [..., H].
        shifts: [..., H, 2 R + 1].

    Returns:
        [..., H, N].
    """
    content = content_weighting(keys, strengths, memory)
    gated = interpolate(content, previous, gates)
    return sharpen(circular_shift(gated, shifts), sharpness)


def read(memory: ArrayLike, weightings: ArrayLike) -> jax.Array:
    """Compute (6): read [..., H, W] from a memory [..., N, W] by weightings [..., H, N]."""
    return jnp.einsum("...hn,...nw->...hw", _wide(weightings), _wide(memory))  # (6)


def write(memory: ArrayLike, weightings: ArrayLike, erase: ArrayLike, add: ArrayLike) -> jax.Array:
    """Compute (7) and (8): the memory [..., N, W] after all heads have written.

    Args:
        memory: [..., N, W].
        weightings: [..., H, N].
        erase, add: [..., H, W].
    """
    memory, weightings = _wide(memory), _wide(weightings)
    erase, add = _wide(erase), _wide(add)
    for head in range(weightings.shape[-2]):
        # As a product of matrices, not by broadcasting, its gradient is one too.
        erased = jnp.einsum("...n,...w->...nw", weightings[..., head, :], erase[..., head, :])
        memory = memory * (1 - erased)  # (7)
    return memory + jnp.einsum("...hn,...hw->...nw", weightings, add)  # (8)


def _wide(x: ArrayLike) -> jax.Array:
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
