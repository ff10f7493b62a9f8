"""Epochs are pure functions of the state and the data."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.models import MLP
from nnlab.training import (
    State,
    init,
    steps_per_epoch,
    train_epoch,
    train_step,
)

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(23, 4, 4, 1)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 3, 23), jnp.int32)
DATA = IMAGES, LABELS


def noise(key, images):
    return images + 0.1 * jax.random.normal(key, images.shape)


SGD = optax.sgd(0.1, 0.9)
MODEL = MLP(3, depth=1, width=8, dropout=0.5)
STEP = train_step(MODEL, SGD, augment=noise)
START = init(jax.random.key(0), MODEL, SGD, IMAGES)


def bits(state: State) -> Any:
    return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def batches(state: State, size: int, batch_size: int) -> tuple[State, np.ndarray]:
    """What an epoch over images 0 to size - 1 takes in which step; images and labels in pairs."""

    def step(state, batch):
        return state._replace(step=state.step + 1), {"image": batch[0][:, 0], "label": batch[1]}

    numbers = jnp.arange(size)
    after, seen = train_epoch(step, batch_size)(state, (numbers[:, None], numbers))
    np.testing.assert_array_equal(seen["image"], seen["label"])
    return after, np.asarray(seen["label"])


def test_each_epoch_has_its_own_order_without_repetition():
    state, orders = START, []
    for _ in range(4):
        state, seen = batches(state, 23, 5)
        assert seen.shape == (4, 5)  # three are left out
        assert len(set(seen.flat)) == 20
        orders.append(seen.ravel().tolist())
    assert state.step == 16 and state.key == START.key
    assert len({tuple(order) for order in orders}) == 4
    assert len({frozenset(order) for order in orders}) > 1  # others are left out
    assert sorted(batches(START, 23, 23)[1].flat) == list(range(23))
    assert batches(START, 23, 5)[1].ravel().tolist() == orders[0]
    assert batches(START._replace(key=jax.random.key(7)), 23, 5)[1].ravel().tolist() != orders[0]


def test_an_epoch_is_the_loop_over_its_batches():
    epoch = train_epoch(STEP, batch_size=5)
    step = jax.jit(STEP)
    whole, looped = START, START
    for _ in range(2):
        _, order = batches(looped, 23, 5)
        whole, metrics = epoch(whole, DATA)
        for number, chosen in enumerate(order):
            looped, expected = step(looped, (IMAGES[chosen], LABELS[chosen]))
            for name, value in expected.items():
                assert float(metrics[name][number]) == pytest.approx(float(value), abs=1e-5)
    # The compiler may fuse a loop's body otherwise than a program of its own, which rounds
    # otherwise: 2^-24 of numbers near 1 in some ten operations of eight steps.
    chex.assert_trees_all_close(bits(whole), bits(looped), atol=1e-5)


def test_an_epoch_without_a_full_batch_is_refused():
    assert [steps_per_epoch(DATA, size) for size in (1, 5, 12, 23)] == [23, 4, 1, 1]
    with pytest.raises(
        InputError, match=r"^--batch-size must be at most the 23 examples, not 24\."
    ):
        train_epoch(STEP, 24)(START, DATA)
