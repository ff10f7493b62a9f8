r"""A neuron that fires or does not, and the logic that it computes in each arithmetic.

The neuron of McCulloch and Pitts fires if the product of its inputs and weights reaches a
threshold,

.. math:: y = 1[p(x, w) \ge \theta], \quad p(x, w) = \sum_i x_i w_i                   (1)

On inputs of 0 and 1 it is a gate: w = (1, 1) with a threshold of 1 is OR and with 2 is AND, and
w = -1 with a threshold of 0 is NOT. Any product can take the place of the sum, and which gates one
neuron can be tells products apart. An adder neuron is as able as one that multiplies, because on
bits a distance is linear:

.. math:: -|x - w| = -|w| + x (|w| - |1 - w|), \quad x \in \{0, 1\}                   (2)

Its slope in x runs from -1 to 1 as w runs from 0 to 1, and thresholds know no scale. Neither can be
XOR, which no line separates. On real inputs the two part ways: where a product is constant is a
line, and where -\|x - w\| is constant is a diamond around w. So one adder neuron does separate a
class from all that surrounds it.

XOR takes two layers. In the hidden coordinates of each network below a line separates it:

=============  ==================================  ===========================
network        hidden units                        output
=============  ==================================  ===========================
threshold      1[a + b >= 1/2], 1[-a - b >= -3/2]  1[h1 + h2 >= 3/2]
ReLU           relu(a + b), relu(a + b - 1)        h1 - 2 h2
adder          relu(1/2 - \|x - (0, 1)\|),         h1 + h2, which is 1/2 on XOR
               relu(1/2 - \|x - (1, 0)\|)
=============  ==================================  ===========================

References:
    McCulloch & Pitts, A logical calculus of the ideas immanent in nervous activity, Bulletin of
    Mathematical Biophysics 5, 1943. Minsky & Papert, Perceptrons, 1969, for what one neuron cannot.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError, check_count
from nnlab.ops.adder import adder_dense


def response(x: jax.Array, kernel: jax.Array, arithmetic: Arithmetic = FLOAT) -> jax.Array:
    """Return the products of neurons, [batch, in] and [in, neurons] to [batch, neurons].

    Raises:
        InputError: layers of the arithmetic own more than one array of weights.
    """
    layer = arithmetic.dense(kernel.shape[1])
    names = list(jax.eval_shape(layer.init, jax.random.key(0), x)["params"])
    if len(names) > 1:
        raise InputError(
            f"a neuron has one array of weights; {arithmetic.name} has {', '.join(names)}."
        )
    return jnp.asarray(layer.apply({"params": {names[0]: kernel}}, x))


def fires(
    x: jax.Array, kernel: jax.Array, threshold: jax.Array | float, arithmetic: Arithmetic = FLOAT
) -> jax.Array:
    """Return the outputs (1) of neurons, 0.0 or 1.0, [batch, neurons].

    Args:
        x: inputs [batch, in].
        kernel: weights [in, neurons].
        threshold: [neurons], or one for all.
        arithmetic: how inputs meet weights.
    """
    return (response(x, kernel, arithmetic) >= threshold).astype(x.dtype)


def every_input(size: int, values: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """Return the 2^size inputs of a Boolean function, [2^size, size], the last changing fastest.

    Raises:
        InputError: `size` is not a positive integer.
    """
    check_count("size", size)
    return np.array([*itertools.product(values, repeat=size)], np.float32)


def computable(
    size: int,
    weights: Sequence[float],
    arithmetic: Arithmetic = FLOAT,
    values: tuple[float, float] = (0.0, 1.0),
) -> list[int]:
    """Return the Boolean functions of `size` inputs that one neuron computes with some threshold.

    Args:
        size: number of inputs.
        weights: what each weight can be; all combinations are tried.
        arithmetic: how inputs meet weights.
        values: the numbers that stand for false and true.

    Returns:
        The truth tables, sorted; bit i of one is its value on row i of `every_input`.

    Raises:
        InputError: `size` is not a positive integer.
    """
    x = every_input(size, values)
    kernel = np.array([*itertools.product(weights, repeat=size)], np.float32).T
    products = np.asarray(response(jnp.asarray(x), jnp.asarray(kernel), arithmetic))
    places = 1 << np.arange(2**size, dtype=np.int64)
    tables = {0}  # a threshold that nothing reaches
    for threshold in products:  # each row's products as the thresholds of their neurons
        tables.update((places @ (products >= threshold)).tolist())
    return sorted(tables)


def xor_by_thresholds(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return hidden units [batch, 2] and XOR [batch] of inputs [batch, 2], by threshold neurons."""
    hidden = fires(x, jnp.array([[1.0, -1.0], [1.0, -1.0]]), jnp.array([0.5, -1.5]))
    return hidden, fires(hidden, jnp.ones((2, 1)), 1.5)[:, 0]


def xor_by_relu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return hidden units [batch, 2] and XOR [batch] of inputs [batch, 2], by ReLU units."""
    hidden = jax.nn.relu(x @ jnp.ones((2, 2)) + jnp.array([[0.0, -1.0]]))
    return hidden, hidden @ jnp.array([1.0, -2.0])


def xor_by_adders(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return hidden units [batch, 2] and half of XOR [batch] of inputs [batch, 2], by adders."""
    hidden = jax.nn.relu(0.5 + adder_dense(x, jnp.array([[0.0, 1.0], [1.0, 0.0]])))
    return hidden, hidden[:, 0] + hidden[:, 1]
