"""Feeds: the same steps and metrics in pieces of any length, from any step."""

import contextlib
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.data import Stream
from nnlab.errors import InputError
from nnlab.training import State, data_mesh, generated, in_memory, streamed


def tree(numbers):
    """Inputs and labels in which all arrays of an example show its number."""
    inputs = {"number": numbers, "row": numbers[..., None] * np.ones(2, np.float32)}
    return inputs, (numbers % 2 == 0, numbers)


DATA = tree(np.arange(23, dtype=np.int32))
START = State(jnp.int32(0), {}, {}, (), jax.random.key(0))


def record(state, batch):
    """A step that reports its examples, and refuses to be number 7 of all."""
    number = batch[1][1]
    same = jax.tree.map(lambda got, given: (got == given).all(), batch, tree(number))
    bad = jnp.where(state.step == 6, 0, -1)
    after = state._replace(step=state.step + (bad < 0))
    together = jnp.stack(jax.tree.leaves(same)).all()
    return after, {"seen": number, "together": together, "nonfinite": bad}


class Numbers:
    """Records that are their own numbers."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return tree(np.int32(index))


STREAM = Stream(Numbers(), 5, seed=3)
ORDER_KEY = jax.random.fold_in(START.key, 0)


def permuted():
    """Each epoch draws its own order from the key and its number."""
    keys = [jax.random.fold_in(ORDER_KEY, epoch) for epoch in range(2)]
    return np.concatenate([jax.random.permutation(key, 23)[:20] for key in keys]).reshape(8, 5)


def streaming():
    with contextlib.closing(STREAM.batches()) as batches:
        return np.stack([labels[1] for _, labels in itertools.islice(batches, 8)])


def drawn(key):
    """Five numbers below 2^24, no two of them alike but by chance."""
    return tree(jax.random.randint(key, (5,), 0, 2**24))


def drawing():
    numbers = np.stack([drawn(jax.random.fold_in(ORDER_KEY, step))[1][1] for step in range(8)])
    assert len({*numbers.flat}) == 40
    return numbers


CASES = {
    "in memory": (in_memory(DATA, 5), permuted),
    "in order": (
        in_memory(DATA, 5, shuffle=False),
        lambda: np.tile(np.arange(20).reshape(4, 5), (2, 1)),
    ),
    "streamed": (streamed(STREAM), streaming),
    "generated": (generated(drawn, 4), drawing),
}


@pytest.mark.parametrize("case", CASES)
def test_pieces_end_with_the_epoch_and_with_a_refused_step(case):
    feed, expected = CASES[case]
    assert (feed.batch_size, feed.steps_per_epoch) == (5, 4)
    state, seen = jax.tree.map(jnp.copy, START), []
    with feed.compile(record, state, None) as advance:
        for count, made in ((3, 3), (100, 1), (1, 1), (1, 1), (100, 1)):
            state, metrics = advance(state, count)
            assert len(metrics["seen"]) == made and metrics["together"].all()
            seen += metrics["seen"].tolist()
    assert int(state.step) == 6 and metrics["nonfinite"].tolist() == [0]
    assert seen == expected()[:7].tolist()


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_state_goes_on_from_its_step(case):
    feed, expected = CASES[case]
    state = START._replace(step=jnp.int32(3), key=jax.random.key(0))
    with feed.compile(record, state, None) as advance:
        _, metrics = advance(state, 1)
    assert metrics["seen"].tolist() == expected()[3:4].tolist()


@pytest.mark.parametrize("case", CASES)
def test_a_sample_is_of_all_examples_and_always_the_same(case):
    """Not the first ones, which may be all of one class."""
    sample = CASES[case][0].sample
    assert sample is not None
    numbers = sample(2)["number"]
    assert len(set(numbers.tolist())) == 10 and numbers.max() > 10
    np.testing.assert_array_equal(sample(2)["number"], numbers)
    assert sample(2)["row"].shape == (10, 2)
    if case != "generated":
        assert len(sample(20)["number"]) == 20  # full batches alone


def test_where_reading_ends_the_steps_before_it_are_not_lost():
    """A batch that cannot be read is an error of the call that begins with it."""

    class Ending(Numbers):
        left = 1000

        def __getitem__(self, index):
            if not self.left:
                raise InputError("the disk is gone")
            self.left -= 1
            return super().__getitem__(index)

    source = Ending()
    feed = streamed(Stream(source, 5, seed=3))
    with feed.compile(record, START, None) as advance:
        state, _ = advance(jax.tree.map(jnp.copy, START), 1)
        source.left = 0
        made = 1
        with pytest.raises(InputError, match="the disk is gone"):
            while made < 10:
                state, metrics = advance(state, 3)
                made += len(metrics["seen"])
        assert state.step == made  # its memory was not reused
        with pytest.raises(InputError, match="the disk is gone"):
            advance(state, 1)


def test_generated_batches_that_cannot_be():
    with pytest.raises(InputError, match=r"^steps_per_epoch must be an integer of at l"):
        generated(drawn, 0)
    feed = generated(drawn, 4)
    with pytest.raises(InputError, match="on one device"), feed.compile(record, START, data_mesh()):
        pass


@pytest.mark.parametrize("case", ["in memory", "streamed", "generated"])
def test_batches_in_no_order_cannot_carry_a_state(case):
    carrying = START._replace(carry={"h": jnp.zeros(5)})
    feed = CASES[case][0]
    with pytest.raises(InputError, match="carried state"), feed.compile(record, carrying, None):
        pass


def test_no_full_batch():
    for feed in (
        lambda: in_memory(DATA, 24),
        lambda: streamed(dataclasses.replace(STREAM, batch_size=24)),
    ):
        with pytest.raises(InputError, match="at most the 23 examples, not 24"):
            feed()
