"""Epochs are pure functions of the state and the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.training import State, steps_per_epoch, train_epoch

NUMBERS = np.arange(23, dtype=np.int32)
DATA = NUMBERS[:, None], NUMBERS
START = State(jnp.int32(0), jnp.int32(1), {}, (), jax.random.key(0))


def step(state, batch):
    """Mix the batch into the one parameter, so that order and position of all numbers count."""
    inputs, labels = batch
    mixed = 31 * state.params + (labels * jnp.arange(3, 3 + len(labels))).sum()
    seen = {"input": inputs[:, 0], "label": labels, "before": state.params}
    return state._replace(step=state.step + 1, params=mixed), seen


EPOCH = train_epoch(step, 5)


def order(epoch, state):
    """The numbers of each step of an epoch; inputs and labels come in pairs."""
    after, seen = epoch(state, DATA)
    np.testing.assert_array_equal(seen["input"], seen["label"])
    return after, np.asarray(seen["label"])


def test_each_epoch_has_its_own_order_without_repetition():
    state, orders = START, []
    for _ in range(4):
        state, seen = order(EPOCH, state)
        assert seen.shape == (4, 5)  # three are left out
        assert len(set(seen.flat)) == 20
        orders.append(seen.ravel().tolist())
    assert state.step == 16 and state.key == START.key
    assert len({tuple(order) for order in orders}) == 4
    assert len({frozenset(order) for order in orders}) > 1  # others are left out
    assert order(EPOCH, START)[1].ravel().tolist() == orders[0]
    assert order(EPOCH, START._replace(key=jax.random.key(7)))[1].ravel().tolist() != orders[0]
    assert sorted(order(train_epoch(step, 23), START)[1].flat) == list(range(23))


def test_an_epoch_is_the_loop_over_its_batches():
    whole, looped = START, START
    for _ in range(2):
        whole, metrics = EPOCH(whole, DATA)
        for number, chosen in enumerate(metrics["label"]):
            assert metrics["before"][number] == looped.params
            looped, _ = step(looped, (NUMBERS[chosen][:, None], NUMBERS[chosen]))
    assert whole.params == looped.params and whole.step == looped.step == 8


def test_steps_that_were_not_tried_have_no_numbers():
    def halted(state, batch):
        number = state.step
        seen = {"loss": number.astype(jnp.float32), "nonfinite": jnp.where(number == 1, 0, -1)}
        return state._replace(step=state.step + (number != 1)), seen

    _, metrics = train_epoch(halted, 5)(START, DATA)
    np.testing.assert_array_equal(metrics["loss"], [0, 1, np.nan, np.nan])
    np.testing.assert_array_equal(metrics["nonfinite"], [-1, 0, -1, -1])


def test_an_epoch_without_a_full_batch_is_refused():
    assert [steps_per_epoch(DATA, size) for size in (1, 5, 12, 23)] == [23, 4, 1, 1]
    with pytest.raises(InputError, match=r"^batch_size must be at most the 23 examples, not 24"):
        train_epoch(step, 24)(START, DATA)
