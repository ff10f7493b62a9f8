"""Memory and time of programs whose sizes are known."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs import measuring


def test_planned_bytes_of_a_matrix_product():
    x = jax.ShapeDtypeStruct((32, 64), jnp.float32)
    program = jax.jit(lambda x: x @ x.T).lower(x).compile()
    planned = measuring.planned_bytes(program)
    assert planned["arguments"] == 4 * 32 * 64
    assert planned["results"] == 4 * 32 * 32
    assert planned["shared"] == 0
    assert planned["compiled"] == 4 * 32 * 64 + 4 * 32 * 32 + planned["temporary"]

    donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert measuring.planned_bytes(donated)["shared"] == 4 * 32 * 64
    assert measuring.planned_bytes(donated)["compiled"] == 4 * 32 * 64


def test_growth_is_what_a_call_holds_at_its_peak():
    grown = measuring.growth(lambda: np.ones(2**25, np.uint8).sum())
    if grown is None:
        pytest.skip("needs Linux")
    # 32 MiB, freed before the call ends, and little else; Linux counts resident pages in portions
    # of up to 64 a thread, so a little may be missing.
    assert 2**25 - 2**20 < grown < 2**26


def test_a_cpu_has_no_accelerator_to_ask():
    if jax.default_backend() != "cpu":
        pytest.skip("for a CPU")
    assert measuring.accelerator_peak() is None


def test_seconds_of_each_call_after_one_untimed():
    made = []

    def call():
        time.sleep(0.2 if not made else 0.01)
        made.append(len(made))

    times = measuring.seconds(call, 5)
    assert len(made) == 6 and times.shape == (5,)
    assert times.min() >= 0.01
    assert len(measuring.seconds(call, 50, patience=0.0)) == 3
    assert len(measuring.seconds(call, 2, patience=0.0)) == 2


def test_calls_in_turn_until_one_has_taken_its_time():
    made = []

    def slow():
        time.sleep(0.01)
        made.append("slow")

    times = measuring.in_turn({"slow": slow, "fast": lambda: made.append("fast")}, 5, 0.025)
    assert {name: len(taken) for name, taken in times.items()} == {"slow": 3, "fast": 5}
    assert min(times["slow"]) >= 0.01 > np.median(times["fast"])
    assert made[2:6] == ["slow", "slow", "fast", "fast"]  # each warmed up again, then timed
