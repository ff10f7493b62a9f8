r"""Two layers as a fitter of functions, and Levenberg and Marquardt's way to train them.

Inputs and targets are brought to [-1, 1]; one layer of tanh units and a linear layer follow,

.. math:: \hat y = V \tanh(W^\top x + b) + c                                           (1)

Nguyen and Widrow start the H units so that each is steep in a part of its own of the cube of n
inputs: weights in random directions, all of one length, and biases spread evenly,

.. math:: \|w_h\| = 0.7\, H^{1/n}, \quad b_h \in [-\|w_h\|, \|w_h\|]                    (2)

For residuals e and their Jacobian J by the parameters, Levenberg and Marquardt's step

.. math:: \Delta = -(J^\top J + \mu I)^{-1} J^\top e                                   (3)

is Newton's where mu is small and the gradient's where it is large. mu falls to a tenth after a step
that lowers the sum of squares, and grows tenfold until one does. A training stops when its
validation error has not fallen for six epochs in a row, and the best parameters count.

References:
    Nguyen & Widrow, Improving the learning speed of 2-layer neural networks by choosing initial
    values of the adaptive weights, IJCNN 1990, for (2). Hagan & Menhaj, Training feedforward
    networks with the Marquardt algorithm, IEEE Transactions on Neural Networks 5, 1994, for (3).
    Constants are those of `trainlm` and `fitnet` of MATLAB's Deep Learning Toolbox.
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count
from nnlab.networks import Network
from nnlab.ops.keys import check_key

Params = Any
Residuals = Callable[[Params], jax.Array]


class FitNet(Network):
    """Map [batch, n] to [batch, outputs] by (1), from the start (2) where the arithmetic is float.

    Attributes:
        hidden: units H of the hidden layer.
        outputs: how many numbers are fitted.
        arithmetic: of the hidden layer; others than float start as they do elsewhere. The linear
            layer is float.
        activation: of the hidden layer.
    """

    hidden: int = 10
    outputs: int = 1
    arithmetic: Arithmetic = FLOAT
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        init = {"kernel_init": nguyen_widrow} if self.arithmetic is FLOAT else {}
        y = self.arithmetic.dense(self.hidden, name="hidden", **init)(x)
        bias = self.param("bias", self._spread, x.shape[-1])
        return nn.Dense(self.outputs, name="linear")(self.activation(y + bias))

    @nn.nowrap
    def _spread(self, key: jax.Array, inputs: int) -> jax.Array:
        length = 0.7 * self.hidden ** (1 / inputs)
        biases = jnp.linspace(-length, length, self.hidden)
        # Its sign is that of the first weight, or units would be steep in the same places.
        return biases * jnp.sign(jax.tree.leaves(self.variables["params"]["hidden"])[0][0])


def nguyen_widrow(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Return weights [n, H] in random directions and of the length (2)."""
    drawn = jax.random.uniform(key, shape, dtype, -1, 1)
    return 0.7 * shape[1] ** (1 / shape[0]) * drawn / jnp.linalg.norm(drawn, axis=0)


class Scale(NamedTuple):
    """A linear map of each column's least and largest number to -1 and 1.

    Attributes:
        least, largest: [columns].
    """

    least: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Scale":
        """Return the scale of values [n, columns].

        Raises:
            InputError: they are of another rank, or a column has one value only.
        """
        if np.ndim(values) != 2:
            raise InputError(f"values are {list(np.shape(values))}, expected [n, columns].")
        least, largest = np.min(values, axis=0), np.max(values, axis=0)
        if not np.all(largest > least):
            column = int(np.argmin(largest > least))
            raise InputError(f"column {column} has one value only, {least[column]}.")
        return cls(least, largest)

    def down(self, values: np.ndarray) -> np.ndarray:
        """Return values as numbers in [-1, 1]."""
        return 2 * (values - self.least) / (self.largest - self.least) - 1

    def up(self, values: np.ndarray) -> np.ndarray:
        """Return numbers in [-1, 1] as values."""
        return (values + 1) / 2 * (self.largest - self.least) + self.least


class Parts(NamedTuple):
    """Row numbers of the examples to train, to validate and to test on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def divide(key: jax.Array, count: int, shares: tuple[float, float] = (0.70, 0.15)) -> Parts:
    """Divide examples at random, 70 % to train, 15 % to validate and the rest to test.

    Args:
        key: a random key.
        count: number of examples.
        shares: of training and validation.

    Raises:
        InputError: a part would be empty.
    """
    check_key(key)
    check_count("count", count)
    train, validation = (round(share * count) for share in shares)
    if min(train, validation, count - train - validation) < 1:
        raise InputError(f"shares {shares} of {count} examples leave a part without any.")
    order = np.asarray(jax.random.permutation(key, count))
    return Parts(*np.split(order, [train, train + validation]))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _linear(residuals, unravel, flat):
    e, pull = jax.vjp(lambda p: residuals(unravel(p)).ravel(), flat)
    jacobian = jax.vmap(pull)(jnp.eye(e.size, dtype=e.dtype))[0]
    return jacobian.T @ jacobian, jacobian.T @ e, jnp.sum(e * e)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _attempt(residuals, unravel, flat, curvature, gradient, mu):
    moved = flat - jnp.linalg.solve(curvature + mu * jnp.eye(flat.size), gradient)  # (3)
    return moved, jnp.sum(residuals(unravel(moved)) ** 2)


def levenberg_marquardt(
    residuals: Residuals,
    params: Params,
    *,
    damping: float = 1e-3,
    largest: float = 1e10,
    least_gradient: float = 1e-7,
) -> Iterator[tuple[Params, int]]:
    """Yield parameters after each step (3), and how often residuals have been computed so far.

    Derivatives are taken in reverse mode, so that layers with gradient rules of their own take
    part. The iterator ends when mu exceeds `largest`, or the gradient `least_gradient` is reached.

    Args:
        residuals: of parameters to [n]; compiled once for all calls with the same function.
        params: where to begin, any tree.
        damping: mu at the beginning.
        largest, least_gradient: when to end.
    """
    flat, unravel = ravel_pytree(params)
    mu, evaluations = damping, 0
    while True:
        curvature, gradient, before = _linear(residuals, unravel, flat)
        evaluations += 1
        if float(jnp.linalg.norm(gradient)) < least_gradient:
            return
        while mu <= largest:
            moved, after = _attempt(residuals, unravel, flat, curvature, gradient, mu)
            evaluations += 1
            if after < before:
                flat, mu = moved, mu * 0.1
                break
            mu *= 10
        else:
            return
        yield unravel(flat), evaluations


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fit that has ended.

    Attributes:
        params: with the least validation error.
        history: mean squared errors by epoch, from before the first: "train", "validation", "test".
        best_epoch: its number, from 0.
        evaluations: of the training error or its residuals, up to the last epoch.
        seconds: of all epochs, each taken as the median one, as the first few compile.
    """

    params: Params
    history: dict[str, list[float]]
    best_epoch: int
    evaluations: int
    seconds: float


def fit_until(
    steps: Iterable[tuple[Params, int]],
    params: Params,
    errors: Callable[[Params], dict[str, float]],
    *,
    epochs: int = 1000,
    fails: int = 6,
    goal: float = 0.0,
) -> Fitted:
    """Take steps until the validation error has not fallen for `fails` of them in a row.

    Args:
        steps: parameters and evaluations after each epoch, such as `levenberg_marquardt` yields.
        params: before the first.
        errors: of parameters to "train", "validation" and "test".
        epochs: at most so many.
        fails: 0 to look at the validation error no more than the test error.
        goal: stop at this training error.

    Raises:
        InputError: `epochs` or `fails` is no such count.
    """
    check_count("epochs", epochs)
    check_count("fails", fails, least=0)
    history: dict[str, list[float]] = {}
    best, count, times = (math.inf, 0, params), 0, []
    start = time.perf_counter()
    chain = itertools.chain([(params, 0)], itertools.islice(iter(steps), epochs))
    for epoch, (params, evaluations) in enumerate(chain):
        count = evaluations
        jax.block_until_ready(params)
        times.append(time.perf_counter() - start)
        for part, error in errors(params).items():
            history.setdefault(part, []).append(float(error))
        if history["validation"][-1] < best[0]:
            best = history["validation"][-1], epoch, params
        if history["train"][-1] <= goal or (fails and epoch - best[1] >= fails):
            break
        start = time.perf_counter()
    seconds = float(np.median(times[1:] or [0.0])) * (len(times) - 1)
    return Fitted(best[2], history, best[1], count, seconds)


def mean_squared_errors(
    model: FitNet, x: np.ndarray, y: np.ndarray, parts: Parts
) -> Callable[[Params], dict[str, float]]:
    """Return `errors` of `fit_until`: the mean squared error of each part.

    Raises:
        InputError: inputs and targets differ in their number of rows.
    """
    check_shape("y", y, (len(x), np.shape(y)[-1]))
    data = {part: (x[rows], y[rows]) for part, rows in parts._asdict().items()}

    @jax.jit
    def errors(params):
        def error(x, y):
            return jnp.mean((jnp.asarray(model.apply({"params": params}, x)) - y) ** 2)

        return {part: error(*rows) for part, rows in data.items()}

    return lambda params: {part: float(error) for part, error in errors(params).items()}
