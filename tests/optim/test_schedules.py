"""Learning rates against their formulas, with and without warm-up."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.optim import schedules

STEPS = 40
RATE = 0.5
FORMULAS = {  # of the part of the decay that is over, from 0 to 1
    schedules.constant: lambda t: 1.0,
    schedules.polynomial: lambda t: (1 - t) ** 0.9,
    functools.partial(schedules.polynomial, power=2): lambda t: (1 - t) ** 2,
    schedules.cosine: lambda t: (1 + np.cos(np.pi * t)) / 2,
}


@pytest.mark.parametrize("warmup", [0, 1, 10, STEPS - 1])
@pytest.mark.parametrize("make", FORMULAS)
def test_rates(make, warmup):
    schedule: Any = jax.jit(make(RATE, STEPS, warmup=warmup))
    for count in range(STEPS + 5):
        if count < warmup:
            expected = count / warmup
        else:
            expected = FORMULAS[make](min(1, (count - warmup) / (STEPS - warmup)))
        # Ten roundings of 2^-24 of numbers up to 1; the power's logarithm is up to log 40 = 3.7.
        assert float(schedule(count)) == pytest.approx(RATE * expected, rel=0, abs=40 * 2**-24)


@pytest.mark.parametrize("warmup", [0, 4])
def test_drops(warmup):
    schedule: Any = schedules.step(8.0, STEPS, drops=(0.26, 0.5), factor=0.25, warmup=warmup)
    rates = [float(schedule(count)) for count in range(warmup, STEPS + 5)]
    # 0.26 of 40 is step 10.4, 0.5 of it step 20
    assert rates == [8.0] * (10 - warmup) + [2.0] * 10 + [0.5] * 25


def test_drops_of_the_resnet_paper():
    schedule: Any = schedules.step(0.5, 64_000)
    counts = (0, 31_999, 32_000, 47_999, 48_000, 63_999)
    expected = [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]
    assert [float(schedule(n)) for n in counts] == pytest.approx(expected, rel=3 * 2**-24)


def test_without_warm_up_it_is_optax_to_the_bit():
    counts = jnp.arange(STEPS + 2)
    ours, theirs = schedules.cosine(RATE, STEPS), optax.cosine_decay_schedule(RATE, STEPS)
    np.testing.assert_array_equal(jax.vmap(ours)(counts), jax.vmap(theirs)(counts))


@pytest.mark.parametrize("make", [*FORMULAS, schedules.step])
def test_the_learning_rate_may_be_traced(make):
    rates: Any = jax.vmap(lambda rate: make(rate, STEPS, warmup=2)(5))(jnp.array([1.0, 2.0]))
    assert rates[1] == 2 * rates[0] > 0


@pytest.mark.parametrize("make", [*FORMULAS, schedules.step])
@pytest.mark.parametrize("steps", [0, -1, 1.5, None])
def test_steps_are_checked(make, steps):
    with pytest.raises(InputError, match=f"^steps must be a positive integer, not {steps}\\.$"):
        make(RATE, steps)


@pytest.mark.parametrize("make", [*FORMULAS, schedules.step])
@pytest.mark.parametrize("warmup", [-1, 8, 0.5])
def test_the_warm_up_is_checked(make, warmup):
    words = f"^warmup must be an integer from 0 to 7, not {warmup}\\.$"
    with pytest.raises(InputError, match=words):
        make(RATE, 8, warmup=warmup)


@pytest.mark.parametrize(
    ("drops", "warmup"),
    [((0.5, 0.25), 0), ((0.5, 0.51), 0), ((0.0,), 0), ((1.0,), 0), ((0.25, 0.5), 10)],
)
def test_drops_are_checked(drops, warmup):
    with pytest.raises(InputError, match=r"^drops must be ascending .* of 40 steps with \d+ of"):
        schedules.step(RATE, STEPS, drops=drops, warmup=warmup)
