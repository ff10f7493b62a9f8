r"""Layers of transformers as nodes: embeddings, LayerNorm, attention, and what is done to tokens.

Weights and what products take are bytes, as in `nnlab.deployment.products`. What a dense layer of
tokens takes is measured from its least number on, codes from 0 to 255, since activations such as
GELU have hardly any below 0. A sum of two values, of which a network has two a block, has a step
of its own. The integer functions are those of `nnlab.deployment.tokens`.

The gain and bias of a LayerNorm are constants of what comes next, a channel, and so is the scale of
an embedding, which each feature has of its own.
"""

import math
from typing import Any

import numpy as np

from nnlab.deployment.builder import INT16, Builder
from nnlab.deployment.recognition import Embedding, Standardized
from nnlab.deployment.tokens import EXPONENT, LARGEST_SCORE, UNIT, epsilons
from nnlab.deployment.values import Value, power_of_two
from nnlab.errors import InputError

_SUM = 2**30  # no sum of weighted values exceeds it
_FINEST = 2**8  # parts of a value's step that a weighted mean of values is rounded to


def embedded(build: Builder, source: str, layer: Embedding) -> Value:
    """Rows of int8, a step for each feature."""
    codes, step = _bytes_a_channel(layer.table)
    node = build.node(layer.name, "embed", [source], {}, values=codes)
    return Value(node, step, np.zeros(1), (1, 1))


def standardized(build: Builder, x: Value, norm: Standardized, features: int) -> Value:
    """Integers of 16 bits, of which 2^15 is the length of the vector of deviations."""
    x = build.settled(x)
    arrays = {"epsilon": epsilons(norm.epsilon, features, float(x.scale[0]))}
    node = build.node(norm.name, "layer_norm", [x.node], {"features": features}, **arrays)
    scale, offset = np.atleast_1d(norm.scale), np.atleast_1d(norm.offset)
    return Value(node, scale * math.sqrt(features) / UNIT, offset, x.size)


def attended(
    build: Builder, given: list[Value], masked: bool, tokens: int, size: int, name: str
) -> Value:
    """Softmax attention of queries, keys and values of one number of heads.

    Args:
        build: takes the nodes.
        given: queries, keys and values.
        masked: whether keys that are padding do not count.
        tokens: largest number of them.
        size: of a head.
        name: of the nodes.

    Raises:
        InputError: there are so many tokens that a sum of values could leave int32.
    """
    heads, steps, codes = given[0].heads, [], []
    for x in given:
        steps.append((x.most or 1.0) / 127)
        codes.append(build.codes(x, steps[-1], 0.0, -127, 127))
    query, key, value = codes
    node = build.node(f"{name}/scores", "scores", [query, key], {"heads": heads, "size": size})
    scale = np.array([steps[0] * steps[1] / math.sqrt(size)])
    scores = Value(node, scale, np.zeros(1), given[0].size)
    fine = build.codes(scores, 1 / EXPONENT, 0.0, -LARGEST_SCORE, LARGEST_SCORE)
    weights = build.node(f"{name}/softmax", "softmax", [fine, *["lengths"] * masked], {})
    parts = min(_FINEST, _SUM // (tokens * 255 * 127))
    if parts < 1:
        raise InputError(f"{name} attends to {tokens} tokens, expected at most {_SUM // 32385}.")
    attributes = {"heads": heads, "parts": parts, "tokens": tokens}
    node = build.node(f"{name}/mean", "mix", [weights, value], attributes)
    return Value(node, np.array([steps[2] / parts]), np.zeros(1), given[0].size, heads=heads)


def with_rows(build: Builder, x: Value, rows: np.ndarray, name: str) -> Value:
    """The sum with numbers of each position, [tokens, features]."""
    codes, step = _bytes_a_channel(rows)
    node = build.node(f"{name}_rows", "rows", [x.node], {}, values=codes)
    of_positions = Value(node, step, np.zeros(1), x.size, most=float(abs(rows).max()))
    return build.sum(x, of_positions, name, own_step=True)


def prepended(build: Builder, x: Value, rows: np.ndarray, name: str) -> Value:
    """Tokens before all others, the same of every image, [tokens, features]."""
    most = max(x.most, float(abs(rows).max()))
    step = power_of_two(most) / 2**15
    codes = build.codes(x, step, 0.0, *INT16)
    first = np.int16(np.clip(np.rint(rows / step), *INT16))
    node = build.node(name, "prepend", [codes], {}, values=first)
    return Value(node, np.array([step]), np.zeros(1), x.size, most=most)


def taken(build: Builder, x: Value, first: int, last: int, name: str) -> Value:
    """Some of the tokens."""
    x = build.settled(x)
    attributes = {"first": first, "last": last}
    node = build.node(f"{name}_tokens" if name else "tokens", "take", [x.node], attributes)
    return Value(node, x.scale, x.offset, x.size, most=x.most)


def tokens_of_pixels(build: Builder, x: Value, name: str) -> Value:
    """One token for each pixel."""
    x = build.settled(x)
    node = build.node(f"{name}_tokens" if name else "tokens", "tokens", [x.node], {})
    return Value(node, x.scale, x.offset, (1, 1), most=x.most)


def _bytes_a_channel(table: np.ndarray) -> tuple[np.ndarray, Any]:
    largest = abs(table).max(axis=0)
    step = np.where(largest > 0, largest, 1) / 127
    return np.rint(table / step).astype(np.int8), step
