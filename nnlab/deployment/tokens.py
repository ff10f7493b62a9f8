r"""What transformers compute of tokens, in 32-bit integers and in JAX.

**LayerNorm** (`layer_norm`) of F integers n gives the unit vector of their deviations, 2^15 times:

.. math::
    d &= F n - \sum n, \qquad k = \max(\mathrm{bits}(\max |d|) - 15, 0), \qquad
    d' = \lfloor (d + \lfloor 2^{k-1} \rfloor) / 2^k \rfloor                                  (1) \\
    S &= \sum d'^2 + e_k, \qquad S' = \lfloor 4^j S \rfloor \in [2^{28}, 2^{30}), \qquad
    r = \lfloor \sqrt{S'} \rfloor                                                        (2) \\
    y &= \lfloor (d' \lfloor 2^{29} / r \rfloor + \lfloor 2^{13-j} \rfloor) / 2^{14-j} \rfloor
    \approx 2^{15} d' / \sqrt S                                                          (3)

`bits` is the number of binary digits, j at most 14, and e the epsilon of the variance in these
units, one number for each k. S has up to 46 bits and is held in two numbers. (3) is off by at most
4 from its right side with real d / 2^k, of 2^15.

**Softmax** (`softmax`) of scores n in steps of 2^-12 gives weights from 0 to 255, 255 for the
largest score. With x = max n - n, z = floor(x / 2839) and p = x - 2839 z, where 2839 is ln 2,

.. math:: e^{-x / 4096} \approx 2^{-z} \cdot 0.3585
          \bigl((1.353 - p / 4096)^2 + 0.344 / 0.3585\bigr)
                                                                                       (4)

is the polynomial of I-BERT, off by at most 0.0023; rounding to a weight adds half of 1 / 255. Keys
that are padding have the weight 0. `mix` divides by the sum of weights after the weighted sum,
so no probability is rounded.

GELU and tanh are tables of codes (`nnlab.deployment.builder`), where I-BERT has polynomials.

Reference:
    Kim et al., I-BERT: Integer-only BERT quantization, ICML 2021,
    https://arxiv.org/abs/2101.01321, for (4) and for LayerNorm by an integer square root, which is
    found digit by digit here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.errors import InputError

UNIT = 2**15  # the length of a vector of deviations
EXPONENT = 2**12  # steps of scores in 1
LARGEST_SCORE = 2**22  # in such steps, beyond which scores saturate
LN2, LINEAR, CONSTANT = 2839, 5542, 16_098_601  # (4) in steps of scores
HALVINGS = 8  # more of them leave less than half a weight
MOST_FEATURES = 2**14
_WEIGHT = 23396  # 255 2^22 over the largest value of (4), which is 45715 after 10 bits are dropped


def epsilons(epsilon: float, features: int, step: float) -> np.ndarray:
    """The numbers e of (2) for k from 0 to 16, upper and lower 16 bits, int32 [17, 2].

    Args:
        epsilon: of the variance.
        features: F.
        step: of the integers n.
    """
    exact = epsilon * features**3 / (step**2 * 4.0 ** np.arange(17))
    whole = np.minimum(np.rint(exact), 2.0**45).astype(np.int64)
    return np.stack([whole >> 16, whole & 0xFFFF], axis=-1).astype(np.int32)


def layer_norm(attributes: dict[str, Any], arrays: Any, x: jax.Array) -> jax.Array:
    """Compute (1) to (3), int16."""
    x, features = x.astype(jnp.int32), x.shape[-1]
    if features != attributes["features"]:
        raise InputError(
            f"a LayerNorm gets {features} features, expected {attributes['features']}."
        )
    deviation = features * x - x.sum(axis=-1, keepdims=True, dtype=jnp.int32)
    cut = jnp.maximum(_bits(jnp.abs(deviation).max(axis=-1, keepdims=True)) - 15, 0)
    deviation = (deviation + ((1 << cut) >> 1)) >> cut  # (1)
    squares = deviation * deviation
    epsilon = jnp.take(jnp.asarray(arrays["epsilon"], jnp.int32), cut, axis=0)
    low = (squares & 0xFFFF).sum(axis=-1, keepdims=True, dtype=jnp.int32) + epsilon[..., 1]
    high = (squares >> 16).sum(axis=-1, keepdims=True, dtype=jnp.int32) + epsilon[..., 0]
    high, low = high + (low >> 16), low & 0xFFFF
    bits = jnp.where(high > 0, 16 + _bits(high), _bits(low))
    power = jnp.minimum((30 - bits) >> 1, 14)
    up, down = jnp.maximum(power, 0), jnp.maximum(-power, 0)
    whole = ((high << 16) | low) << (2 * up)
    parted = (high << (16 - 2 * down)) | (low >> (2 * down))
    root = _root(jnp.where(power >= 0, whole, parted))  # (2)
    inverse = 2**29 // jnp.maximum(root, 1)
    shift = 14 - power
    y = (deviation * inverse + ((1 << shift) >> 1)) >> shift  # (3)
    return jnp.clip(y, 1 - UNIT, UNIT - 1).astype(jnp.int16)


def dense(kernel: np.ndarray, parts: list[slice] | None, x: jax.Array) -> jax.Array:
    """Sums of products with int8 weights [in, out], int32.

    Args:
        kernel: the weights.
        parts: of the inputs, over each of which float32 holds all sums exactly; None if it cannot.
        x: integers [batch, tokens, in].
    """
    weights = jnp.asarray(kernel)

    def in_floats(x: jax.Array, weights: jax.Array) -> jax.Array:
        total: Any = 0
        for part in parts or ():
            pair = x[..., part].astype(jnp.float32), weights[part].astype(jnp.float32)
            total += jnp.dot(*pair).astype(jnp.int32)
        return total

    def in_integers(x: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.dot(x.astype(jnp.int32), weights.astype(jnp.int32))

    if not parts:
        return in_integers(x, weights)
    return lax.platform_dependent(x, weights, cpu=in_floats, default=in_integers)


def scores(attributes: dict[str, Any], arrays: Any, query: jax.Array, key: jax.Array) -> jax.Array:
    """Products of queries and keys [batch, tokens, heads size]: int32 [batch, heads, t, t]."""
    query, key = (_heads(x, attributes["heads"]) for x in (query, key))
    return _exact("bthd,bshd->bhts", query, key, query.shape[-1] * 127 * 127)


def softmax(
    attributes: dict[str, Any], arrays: Any, x: jax.Array, lengths: jax.Array | None = None
) -> jax.Array:
    """Weights of (4), uint8, of scores [batch, heads, t, t] within `LARGEST_SCORE`."""
    counts = jnp.ones((), bool)
    if lengths is not None:
        counts = jnp.arange(x.shape[-1]) < lengths[:, None, None, None]
    x = jnp.where(counts, x, -LARGEST_SCORE)
    below = x.max(axis=-1, keepdims=True) - x
    halvings = below // LN2
    rest = LINEAR - (below - halvings * LN2)
    shift = 22 + jnp.minimum(halvings, HALVINGS)
    weight = (((rest * rest + CONSTANT) >> 10) * _WEIGHT + (1 << (shift - 1))) >> shift
    return jnp.where(counts & (halvings <= HALVINGS), weight, 0).astype(jnp.uint8)  # (4)


def mix(attributes: dict[str, Any], arrays: Any, weights: jax.Array, value: jax.Array) -> jax.Array:
    """Means of values by weights, `parts` times, int32 [batch, tokens, heads size]."""
    tokens, parts = attributes["tokens"], attributes["parts"]
    if weights.shape[-1] > tokens:
        raise InputError(
            f"the network attends to {weights.shape[-1]} tokens, expected at most {tokens}."
        )
    heads = _heads(value, attributes["heads"])
    total = _exact("bhts,bshd->bthd", weights, heads, tokens * 255 * 127)
    count = jnp.moveaxis(weights.astype(jnp.int32).sum(axis=-1), 1, 2)[..., None]
    count = jnp.maximum(count, 1)
    return ((parts * total + count // 2) // count).reshape(value.shape)


def embed(attributes: dict[str, Any], arrays: Any, symbols: jax.Array) -> jax.Array:
    """Rows of `values`; a symbol that there is not has the nearest."""
    return jnp.take(jnp.asarray(arrays["values"]), symbols, axis=0, mode="clip")


def rows(attributes: dict[str, Any], arrays: Any, x: jax.Array) -> jax.Array:
    """The first rows of `values`, as many as x [batch, tokens, …] has tokens."""
    values = jnp.asarray(arrays["values"])
    if x.shape[1] > len(values):
        raise InputError(f"a text has {x.shape[1]} symbols, expected at most {len(values)}.")
    return jnp.broadcast_to(values[: x.shape[1]], (len(x), x.shape[1], values.shape[1]))


def prepend(attributes: dict[str, Any], arrays: Any, x: jax.Array) -> jax.Array:
    """`values` [tokens, features] before the tokens of x."""
    first = jnp.asarray(arrays["values"])
    first = jnp.broadcast_to(first, (len(x), *first.shape))
    return jnp.concatenate([first, x.astype(first.dtype)], axis=1)


def _bits(x: jax.Array) -> jax.Array:
    """Binary digits of integers that are not negative."""
    return 32 - lax.clz(x)


def _root(x: jax.Array) -> jax.Array:
    """Floor of the square root of integers below 2^30."""
    root = jnp.zeros_like(x)
    for bit in range(14, -1, -1):
        larger = root | (1 << bit)
        root = jnp.where(larger * larger <= x, larger, root)
    return root


def _heads(x: jax.Array, heads: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], heads, -1)


def _exact(equation: str, x: jax.Array, y: jax.Array, most: int) -> jax.Array:
    """Sums of products up to `most`, on a CPU in float32 where that holds them exactly."""

    def in_floats(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x.astype(jnp.float32), y.astype(jnp.float32)).astype(jnp.int32)

    def in_integers(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x.astype(jnp.int32), y.astype(jnp.int32))

    if most > 2**24:
        return in_integers(x, y)
    return lax.platform_dependent(x, y, cpu=in_floats, default=in_integers)
