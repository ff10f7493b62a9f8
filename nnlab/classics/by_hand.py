r"""Forward and backward by hand: every number of a step of a small network, in float64.

Two layers of logistic units with biases b, c that are held fixed,

.. math::
    u = p(x, W) + b, \; h = \sigma(u), \quad v = p(h, V) + c, \; o = \sigma(v), \quad
    E = \tfrac12 \sum_k (t_k - o_k)^2                                                  (1)

have the deltas, which are the derivatives of E by u and v, and from them the gradients

.. math::
    \delta^v &= (o - t)\, o (1 - o), \quad \partial V = p_V(h, V, \delta^v)             (2) \\
    \delta^u &= p_h(h, V, \delta^v)\, h (1 - h), \quad \partial W = p_W(x, W, \delta^u) (3)

where the product p and its two rules are those of a multiplying or of an adder layer:

========  ====================  =============================  =====================================
product   p(x, W)_k             rule of W                      rule of x
========  ====================  =============================  =====================================
float     sum_j x_j w_jk        x_j delta_k                    sum_k w_jk delta_k
adder     -sum_j \|x_j-w_jk\|   (x_j - w_jk) delta_k           sum_k clip(w_jk - x_j, -1, 1) delta_k
========  ====================  =============================  =====================================

The deltas (3) are taken with the weights that made the forward pass. Code that moves V by (2) first
computes another step, see `weights_first`.

A recurrent cell is the same network once a step, with the same weights each time:

.. math::
    u_t = p(x_t, W) + p(h_{t-1}, U) + b, \; h_t = \tanh u_t, \quad o_t = p(h_t, V) + c, \quad
    E = \tfrac12 \sum_t \sum_k (t_{tk} - o_{tk})^2                                      (4)

    \delta^o_t = o_t - t_t, \quad
    \delta^u_t = (p_h(h_t, V, \delta^o_t) + p_h(h_t, U, \delta^u_{t+1}))\, (1 - h_t^2)   (5)

and the gradient of each array of weights is the sum of its steps'.

References:
    Rumelhart, Hinton & Williams, Learning representations by back-propagating errors, Nature 323,
    1986, for (2) and (3). Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200,
    eqs. 5 and 6, for the adder's rules. Mazur, A step by step backpropagation example, 2015, for
    the numbers of `WORKED`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnlab.data.batches import check_shape
from nnlab.errors import check_count


class Rules(NamedTuple):
    """A product of [in] and [in, out], and what it sends back for a delta [out]."""

    product: Callable[[np.ndarray, np.ndarray], np.ndarray]
    to_weights: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    to_inputs: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


FLOAT_RULES = Rules(
    product=lambda x, w: x @ w,
    to_weights=lambda x, w, delta: np.outer(x, delta),
    to_inputs=lambda x, w, delta: w @ delta,
)
ADDER_RULES = Rules(
    product=lambda x, w: -np.abs(x[:, None] - w).sum(0),
    to_weights=lambda x, w, delta: (x[:, None] - w) * delta,
    to_inputs=lambda x, w, delta: np.clip(w - x[:, None], -1, 1) @ delta,
)


class TwoLayers(NamedTuple):
    """Two layers and one example.

    Attributes:
        x, target: the example, [in] and [out].
        first, second: weights [in, hidden] and [hidden, out].
        biases: b and c of (1), one for each layer, held fixed.
    """

    x: np.ndarray
    target: np.ndarray
    first: np.ndarray
    second: np.ndarray
    biases: tuple[float, float]


WORKED = TwoLayers(
    x=np.array([0.05, 0.10]),
    target=np.array([0.01, 0.99]),
    first=np.array([[0.15, 0.25], [0.20, 0.30]]),
    second=np.array([[0.40, 0.50], [0.45, 0.55]]),
    biases=(0.35, 0.60),
)


class Step(NamedTuple):
    """Every number of one step, in the order in which it is computed.

    Attributes:
        hidden_input, hidden, output_input, output: u, h, v and o of (1).
        errors, error: the terms of E, and E.
        output_delta, second_gradient: (2).
        hidden_delta, first_gradient: (3).
        new_second, new_first: weights after the step.
    """

    hidden_input: np.ndarray
    hidden: np.ndarray
    output_input: np.ndarray
    output: np.ndarray
    errors: np.ndarray
    error: float
    output_delta: np.ndarray
    second_gradient: np.ndarray
    hidden_delta: np.ndarray
    first_gradient: np.ndarray
    new_second: np.ndarray
    new_first: np.ndarray


def _logistic(u: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-u))


def two_layer_step(
    network: TwoLayers,
    rate: float = 0.5,
    rules: Rules = FLOAT_RULES,
    *,
    weights_first: bool = False,
) -> Step:
    """Take one step of gradient descent, and return all its numbers.

    Args:
        network: weights, biases and the example.
        rate: the learning rate.
        rules: of the product.
        weights_first: take the hidden deltas after the second layer has moved. That is a mistake:
            the gradient of the first layer is then none of any function. It is here because
            widely copied figures were made so.

    Raises:
        InputError: shapes do not fit.
    """
    x, target, first, second, (b, c) = network
    check_shape("first", first, (len(x), len(second)))
    check_shape("second", second, (np.shape(first)[1], len(target)))
    u = rules.product(x, first) + b
    h = _logistic(u)
    v = rules.product(h, second) + c
    o = _logistic(v)
    errors = (target - o) ** 2 / 2  # (1)
    output_delta = (o - target) * o * (1 - o)
    second_gradient = rules.to_weights(h, second, output_delta)  # (2)
    new_second = second - rate * second_gradient
    seen = new_second if weights_first else second
    hidden_delta = rules.to_inputs(h, seen, output_delta) * h * (1 - h)
    first_gradient = rules.to_weights(x, first, hidden_delta)  # (3)
    new_first = first - rate * first_gradient
    return Step(
        *(u, h, v, o, errors, float(errors.sum())),
        *(output_delta, second_gradient, hidden_delta, first_gradient, new_second, new_first),
    )


def descend(
    network: TwoLayers,
    steps: int,
    rate: float = 0.5,
    rules: Rules = FLOAT_RULES,
    *,
    weights_first: bool = False,
) -> TwoLayers:
    """Return the network after some steps of `two_layer_step`.

    Raises:
        InputError: shapes do not fit, or there are no steps.
    """
    check_count("steps", steps)
    for _ in range(steps):
        step = two_layer_step(network, rate, rules, weights_first=weights_first)
        network = network._replace(first=step.new_first, second=step.new_second)
    return network


class Cell(NamedTuple):
    """A recurrent cell and a sequence.

    Attributes:
        x, targets: the sequence, [time, in] and [time, out].
        start: the hidden units before the first step, [hidden].
        inputs, recurrent, outputs: weights W [in, hidden], U [hidden, hidden] and V [hidden, out].
        biases: b and c of (4), held fixed.
    """

    x: np.ndarray
    targets: np.ndarray
    start: np.ndarray
    inputs: np.ndarray
    recurrent: np.ndarray
    outputs: np.ndarray
    biases: tuple[float, float]


WORKED_CELL = Cell(
    x=np.array([[0.5], [-0.3], [0.8]]),
    targets=np.array([[0.2], [0.1], [0.6]]),
    start=np.zeros(2),
    inputs=np.array([[0.4, -0.2]]),
    recurrent=np.array([[0.3, 0.1], [-0.5, 0.2]]),
    outputs=np.array([[0.7], [-0.6]]),
    biases=(0.1, 0.05),
)


class CellStep(NamedTuple):
    """Every number of one step of gradient descent on a sequence.

    Attributes:
        hidden_inputs, hidden: u and h of (4), [time, hidden].
        outputs: [time, out].
        errors, error: the terms of E, [time, out], and E.
        output_deltas, hidden_deltas: (5), [time, out] and [time, hidden], in the order of time.
        gradients, new_weights: of W, U and V.
    """

    hidden_inputs: np.ndarray
    hidden: np.ndarray
    outputs: np.ndarray
    errors: np.ndarray
    error: float
    output_deltas: np.ndarray
    hidden_deltas: np.ndarray
    gradients: tuple[np.ndarray, ...]
    new_weights: tuple[np.ndarray, ...]


def cell_step(cell: Cell, rate: float = 0.5, rules: Rules = FLOAT_RULES) -> CellStep:
    """Take one step of gradient descent through time, and return all its numbers.

    Raises:
        InputError: shapes do not fit.
    """
    x, targets, start, w, u, v, (b, c) = cell
    hidden = len(start)
    check_shape("inputs", w, (np.shape(x)[1], hidden))
    check_shape("recurrent", u, (hidden, hidden))
    check_shape("outputs", v, (hidden, np.shape(targets)[1]))
    check_shape("targets", targets, (len(x), np.shape(targets)[1]))
    before, sums, states = start, [], []
    for inputs in x:
        sums.append(rules.product(inputs, w) + rules.product(before, u) + b)
        states.append(before := np.tanh(sums[-1]))
    outputs = np.stack([rules.product(state, v) + c for state in states])
    errors = (targets - outputs) ** 2 / 2  # (4)
    output_deltas = outputs - targets
    hidden_deltas = np.zeros((len(x), hidden))
    gradients = [np.zeros_like(w), np.zeros_like(u), np.zeros_like(v)]
    later = np.zeros(hidden)  # the delta of the step after
    for t in reversed(range(len(x))):
        sent = rules.to_inputs(states[t], v, output_deltas[t])
        sent = sent + rules.to_inputs(states[t], u, later)
        later = hidden_deltas[t] = sent * (1 - states[t] ** 2)  # (5)
        gradients[0] += rules.to_weights(x[t], w, later)
        gradients[1] += rules.to_weights(states[t - 1] if t else start, u, later)
        gradients[2] += rules.to_weights(states[t], v, output_deltas[t])
    new = [array - rate * gradient for array, gradient in zip((w, u, v), gradients, strict=True)]
    return CellStep(
        *(np.stack(sums), np.stack(states), outputs, errors, float(errors.sum())),
        *(output_deltas, hidden_deltas, (*gradients,), (*new,)),
    )
