"""Learning rates by step, each a function `(learning_rate, steps) -> optax.Schedule`.

They are optax's own schedules, brought to one form so that a recipe can take any of them:

    adder_recipe(steps, schedule=schedules.polynomial)
    adder_recipe(steps, schedule=functools.partial(schedules.cosine, warmup=500))

All take `learning_rate`, a number or a traced scalar, which is the largest value; `steps`, the
length of the training with its warm-up; and `warmup`, the number of steps at its start in which the
rate rises in a line from 0. Step `warmup`, counted from 0, is the first at the full rate. Behind
step `steps` the rate stays as it is there.

All raise `InputError` where `steps` is not a positive integer or `warmup` not an integer from 0 to
below `steps`.
"""

import itertools
from collections.abc import Callable, Sequence

import optax
from jax.typing import ArrayLike

from nnlab.errors import InputError

MakeSchedule = Callable[[ArrayLike, int], optax.Schedule]


def constant(learning_rate: ArrayLike, steps: int, *, warmup: int = 0) -> optax.Schedule:
    """The same rate to the end."""
    return _warmed(lambda _: optax.constant_schedule(learning_rate), learning_rate, steps, warmup)


def step(
    learning_rate: ArrayLike,
    steps: int,
    *,
    drops: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
    warmup: int = 0,
) -> optax.Schedule:
    """The rate is multiplied by `factor` at each of `drops`, parts of `steps`.

    A drop falls on the nearest step. The default is that of the ResNet paper, which drops at 32,000
    and 48,000 of 64,000 steps.

    Raises:
        InputError: also where drops are not ascending numbers between 0 and 1, where one falls
            into the warm-up, or where two fall on one step.

    References:
        He et al., Deep Residual Learning, 2016, https://arxiv.org/abs/1512.03385, section 4.2.
    """

    def drop(rest: int) -> optax.Schedule:
        at = [round(part * steps) - warmup for part in drops]
        bounds = (0, *at, rest)
        if not all(a < b for a, b in itertools.pairwise(bounds)):
            raise InputError(
                "drops must be ascending parts of the steps that lie behind the warm-up and on "
                f"different steps, not {tuple(drops)} of {steps} steps with {warmup} of warm-up."
            )
        return optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(at, factor))

    return _warmed(drop, learning_rate, steps, warmup)


def polynomial(
    learning_rate: ArrayLike, steps: int, *, power: float = 0.9, warmup: int = 0
) -> optax.Schedule:
    """The rate times (1 - t) to the `power`, for t from 0 to 1.

    AdderNet's paper names a polynomial for CIFAR, not its power; 0.9 is DeepLab's.

    References:
        Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, section 4.2.
        Chen et al., DeepLab, TPAMI 2018, https://arxiv.org/abs/1606.00915.
    """

    def decay(rest: int) -> optax.Schedule:
        # Compiled, optax's own last value may be a power of a number just below 0, a NaN.
        fall = optax.polynomial_schedule(learning_rate, 0.0, power, rest)
        return optax.join_schedules([fall, optax.constant_schedule(0.0)], [rest])

    return _warmed(decay, learning_rate, steps, warmup)


def cosine(learning_rate: ArrayLike, steps: int, *, warmup: int = 0) -> optax.Schedule:
    """The rate times (1 + cos(pi t)) / 2, for t from 0 to 1; AdderNet's released code.

    References:
        Loshchilov & Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983, eq. 5.
    """
    return _warmed(
        lambda rest: optax.cosine_decay_schedule(learning_rate, rest), learning_rate, steps, warmup
    )


def _warmed(
    decay: Callable[[int], optax.Schedule], learning_rate: ArrayLike, steps: int, warmup: int
) -> optax.Schedule:
    """`decay(steps - warmup)` behind the warm-up; without one, that schedule itself."""
    if not (isinstance(steps, int) and steps > 0):
        raise InputError(f"steps must be a positive integer, not {steps}.")
    if not (isinstance(warmup, int) and 0 <= warmup < steps):
        raise InputError(f"warmup must be an integer from 0 to {steps - 1}, not {warmup}.")
    behind = decay(steps - warmup)
    if warmup == 0:
        return behind
    rise = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.join_schedules([rise, behind], [warmup])
