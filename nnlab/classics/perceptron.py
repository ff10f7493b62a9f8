r"""Rosenblatt's perceptron: a neuron that learns from its mistakes, and only from them.

For an example x of the class y = 1 or -1, a constant 1 among its inputs for the bias,

.. math:: w \leftarrow w + y x \quad \text{if } y\, w^\top x \le 0                     (1)

If some unit vector u separates the examples by a margin, :math:`y\, u^\top x \ge \gamma > 0`, then
from w = 0 there are at most

.. math:: (R / \gamma)^2, \quad R = \max \|x\|                                        (2)

updates, in whatever order the examples come: each adds at least gamma to :math:`u^\top w` and at
most R^2 to :math:`\|w\|^2`. If none does, the weights stay bounded and go round in circles.

The largest margin is the distance from the origin to the convex hull of the y x, and its point
nearest to the origin is the direction of u. With Z of the columns y x, that point is Z a for the

.. math:: \min_{a \ge 0} \|Z a\|^2 + (1 - \textstyle\sum_i a_i)^2                      (3)

up to a factor: for a = s b with :math:`\sum b_i = 1` the best s makes (3) a growing function of
:math:`\|Z b\|` alone.

References:
    Rosenblatt, The perceptron, Psychological Review 65, 1958, for (1). Novikoff, On convergence
    proofs for perceptrons, Symposium on the Mathematical Theory of Automata, 1962, for (2).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key


class Learned(NamedTuple):
    """A perceptron after each epoch.

    Attributes:
        weights: [epochs, in].
        updates: mistakes in each epoch, int32 [epochs].
    """

    weights: jax.Array
    updates: jax.Array


@functools.partial(jax.jit, static_argnames="epochs")
def _learn(x, signs, start, epochs, key):
    def example(weights, one):
        inputs, sign = one
        mistaken = sign * (inputs @ weights) <= 0
        return weights + jnp.where(mistaken, sign, 0) * inputs, mistaken

    def epoch(weights, number):
        examples = x, signs
        if key is not None:
            order = jax.random.permutation(jax.random.fold_in(key, number), len(x))
            examples = x[order], signs[order]
        weights, mistaken = lax.scan(example, weights, examples)
        return weights, (weights, jnp.sum(mistaken, dtype=jnp.int32))

    return Learned(*lax.scan(epoch, start, jnp.arange(epochs))[1])


def perceptron(
    x: jax.Array,
    signs: jax.Array,
    epochs: int,
    weights: jax.Array | None = None,
    *,
    key: jax.Array | None = None,
) -> Learned:
    """Learn by (1).

    With `jax.vmap` over `signs`, one perceptron learns each of several classes.

    Args:
        x: inputs [examples, in], floating, with a column of ones for a bias.
        signs: classes [examples], 1 or -1.
        epochs: passes over all examples.
        weights: the start [in], zeros by default.
        key: the examples come in a new random order each epoch; without one, in theirs.

    Raises:
        InputError: shapes do not fit, or there are no epochs.
    """
    check_count("epochs", epochs)
    if key is not None:
        check_key(key)
    if x.ndim != 2:
        raise InputError(f"a perceptron takes inputs [examples, in], not {list(x.shape)}.")
    check_shape("signs", signs, x.shape[:1])
    start = jnp.zeros(x.shape[1], x.dtype) if weights is None else weights
    check_shape("weights", start, x.shape[1:])
    return _learn(x, signs.astype(x.dtype), start, epochs, key)


def margin(x: np.ndarray, signs: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the largest margin of a separating unit vector, and that vector, by (3) in float64.

    Args:
        x: inputs [examples, in].
        signs: classes [examples], 1 or -1.

    Returns:
        The margin and u [in]; a margin of 0 and zeros where nothing separates the classes.

    Raises:
        InputError: shapes do not fit.
    """
    from scipy.optimize import nnls

    check_shape("signs", signs, np.shape(x)[:1])
    z = (np.asarray(x, np.float64) * np.asarray(signs)[:, None]).T
    size = z.shape[1]
    shares = nnls(np.vstack([z, np.ones(size)]), np.append(np.zeros(len(z)), 1.0))[0]
    nearest = z @ shares / shares.sum()
    distance = float(np.linalg.norm(nearest))
    if distance < 1e-9 * np.abs(z).max():
        return 0.0, np.zeros(len(z))
    return distance, nearest / distance


def mistake_bound(x: np.ndarray, signs: np.ndarray) -> float:
    """Return the bound (2) on updates, infinite where nothing separates the classes.

    Raises:
        InputError: shapes do not fit.
    """
    reached = margin(x, signs)[0]
    radius = float(np.linalg.norm(np.asarray(x, np.float64), axis=1).max())
    return (radius / reached) ** 2 if reached else float("inf")
