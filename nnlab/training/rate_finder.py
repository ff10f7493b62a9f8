"""A range test: which learning rates make the loss fall, found in one short training.

The rate rises from step to step, by the same factor, from one at which nothing happens to one at
which the training diverges. A good peak of a schedule lies somewhat below the rate at which the
loss is smallest.

    found = training.range_test(model, lambda rates: adder_recipe(1, rates), feed)
    print(found.suggestion)
    figure_range_test(found).savefig("rates.png")  # nnlab.figures.rates

Reference:
    Smith, Cyclical learning rates for training neural networks, WACV 2017 (2015),
    https://arxiv.org/abs/1506.01186, section 3.3, whose rate rises by the same amount; the factor,
    the smoothing and the tenth of the best rate are usual since fastai's `lr_find`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from nnlab.errors import InputError, check_count
from nnlab.training.feeds import Feed
from nnlab.training.steps import init, train_step

_SMOOTH = 0.9  # the part of the past in the mean of the losses
_DIVERGED = 4.0  # times the least loss


class RangeTest(NamedTuple):
    """What a range test has measured, up to where it diverged.

    Attributes:
        rates: learning rates [steps], rising.
        losses: the loss of the batch before the step at that rate [steps].
        smooth: the same as a moving mean of the past [steps].
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate at which the smooth loss is least; None if it never falls."""
        best = int(self.smooth.argmin())
        return float(self.rates[best]) / 10 if best else None


def range_test(
    model: nn.Module,
    recipe: Callable[[optax.Schedule], optax.GradientTransformation],
    train: Feed,
    *,
    key: jax.Array | None = None,
    steps: int = 100,
    lowest: float = 1e-5,
    highest: float = 10.0,
    **options: Any,
) -> RangeTest:
    """Train a fresh network at rates from `lowest` to `highest`, and say how its loss went.

    Args:
        model: the network.
        recipe: makes the optimiser of a schedule: `optax.sgd`, or
            `lambda rates: adder_recipe(1, rates)`, with any other options that it is to have.
        train: from `nnlab.training.feeds`, one that can be read anew.
        key: of the first weights and the order of the examples, by default `jax.random.key(0)`.
        steps: the number of rates.
        lowest, highest: the first and the last rate.
        options: of `train_step`: `loss`, `augment`, `mix`, `metrics`, `accumulate`.

    Returns:
        Rates and losses up to the first smooth loss above four times the least one, or the first
        number that is not finite.

    Raises:
        InputError: the rates are not positive and rising, there are fewer than 2 steps, the feed
            cannot be read for a first batch, or the first loss is not finite.
    """
    check_count("steps", steps, least=2)
    if not 0 < lowest < highest < float("inf"):
        raise InputError(
            f"lowest and highest must be positive rates in order, not {lowest} and {highest}."
        )
    if train.first is None:
        raise InputError("the feed has no first batch to begin a network with; give another one.")
    rates = lowest * (highest / lowest) ** (np.arange(steps) / (steps - 1))
    optimizer = recipe(optax.exponential_decay(lowest, steps - 1, highest / lowest))
    key = jax.random.key(0) if key is None else key
    state = init(key, model, optimizer, train.first()[0])
    losses: list[float] = []
    with train.compile(train_step(model, optimizer, **options), state, None) as advance:
        finite = True
        while finite and len(losses) < steps:
            state, metrics = advance(state, steps - len(losses))
            losses += metrics["loss"].tolist()
            finite = metrics["nonfinite"][-1] < 0
    measured = np.array(losses)
    measured = measured[: _first(~np.isfinite(measured))]
    if not measured.size:
        raise InputError("the first loss is not finite, expected a network and data that train.")
    smooth = _smoothed(measured)
    end = _first(smooth > _DIVERGED * np.minimum.accumulate(smooth))
    return RangeTest(rates[: len(measured)][:end], measured[:end], smooth[:end])


def _first(which: np.ndarray) -> int | None:
    """Return the index of the first true one, or None."""
    return int(which.argmax()) if which.any() else None


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """Return the moving mean of the past, without the bias of its beginning at 0."""
    means, mean = [], 0.0
    for number, loss in enumerate(losses, 1):
        mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        means.append(mean / (1 - _SMOOTH**number))
    return np.array(means)
