"""Feeds: the same steps and metrics in pieces of any length."""

import contextlib
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.data import Stream
from nnlab.errors import InputError
from nnlab.training import (
    State,
    data_mesh,
    generated,
    in_memory,
    streamed,
)

IMAGES = jnp.arange(23)
DATA = IMAGES, IMAGES


def record(state, batch):
    """A step that reports its images, and refuses to be number 7 of all."""
    bad = jnp.where(state.step == 6, 0, -1)
    after = state._replace(step=state.step + (bad < 0))
    return after, {"seen": batch[1], "nonfinite": bad}


def start():
    return State(jnp.int32(0), {}, {}, (), jax.random.key(0))


class Numbers:
    """Records that are their own numbers."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return np.full((1, 1, 1), index, np.uint8), index


STREAM = Stream(Numbers(), 5, seed=3)


def seen_in(feed, counts, mesh=None):
    """The images of the steps that `advance` makes, and the state behind them."""
    state, seen = start(), []
    with feed.compile(record, state, mesh) as advance:
        for count in counts:
            state, metrics = advance(state, count)
            seen += metrics["seen"].reshape(-1, 5).tolist()
    return seen, int(state.step)


@pytest.mark.parametrize("counts", [[4, 2], [1] * 6, [3, 100, 1, 1], [100, 2]])
def test_pieces_are_cut_at_the_end_of_an_epoch_and_make_up_the_whole(counts):
    feed = in_memory(DATA, 5)
    assert (feed.batch_size, feed.steps_per_epoch) == (5, 4)
    expected = [jax.random.permutation(key(epoch), 23)[:20] for epoch in range(2)]
    assert seen_in(feed, counts) == (np.concatenate(expected).reshape(8, 5)[:6].tolist(), 6)


@pytest.mark.parametrize("counts", [[4, 2], [1] * 6, [3, 100, 1, 1], [100, 2]])
def test_a_stream_is_read_in_its_order(counts):
    feed = streamed(STREAM)
    assert (feed.batch_size, feed.steps_per_epoch) == (5, 4)
    with contextlib.closing(STREAM.batches()) as batches:
        expected = [labels.tolist() for _, labels in itertools.islice(batches, 6)]
    assert seen_in(feed, counts) == (expected, 6)


def key(epoch):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), epoch)


@pytest.mark.parametrize(
    "feed", [in_memory(DATA, 5), streamed(STREAM), generated(lambda _: DATA, 4)]
)
def test_a_refused_step_is_the_last_and_its_metrics_are_there(feed):
    with feed.compile(record, start(), None) as advance:
        state, _ = advance(start(), 4)
        state, metrics = advance(state, 4)
    assert int(state.step) == 6 and metrics["nonfinite"].tolist() == [-1, -1, 0]


def test_a_stream_goes_on_from_the_step_of_the_state():
    whole, _ = seen_in(streamed(STREAM), [4, 2])
    with streamed(STREAM).compile(record, start()._replace(step=jnp.int32(3)), None) as advance:
        _, metrics = advance(start()._replace(step=jnp.int32(3)), 1)
    assert metrics["seen"].reshape(-1, 5).tolist() == whole[3:4]


@pytest.mark.parametrize("counts", [[4, 2], [1] * 6, [3, 100, 1, 1], [100, 2]])
def test_without_shuffle_batches_come_as_they_lie(counts):
    feed = in_memory(DATA, 5, shuffle=False)
    assert (feed.batch_size, feed.steps_per_epoch) == (5, 4)
    epoch = np.arange(20).reshape(4, 5).tolist()
    assert seen_in(feed, counts) == (epoch + epoch[:2], 6)


def drawn(key):
    """Five numbers below 2^31, no two of them alike but by chance."""
    numbers = jax.random.randint(key, (5,), 0, 2**31 - 1)
    return numbers, numbers


@pytest.mark.parametrize("counts", [[4, 2], [1] * 6, [3, 100, 1, 1], [100, 2]])
def test_generated_batches_are_those_of_their_step(counts):
    feed = generated(drawn, 4)
    assert (feed.batch_size, feed.steps_per_epoch) == (5, 4)
    order = jax.random.fold_in(jax.random.key(0), 0)
    expected = [drawn(jax.random.fold_in(order, step))[1].tolist() for step in range(6)]
    assert len({number for batch in expected for number in batch}) == 30
    assert seen_in(feed, counts) == (expected, 6)
    start_at = start()._replace(step=jnp.int32(3))
    with feed.compile(record, start_at, None) as advance:
        _, metrics = advance(start_at, 1)
    assert metrics["seen"].tolist() == expected[3:4]


def test_generated_batches_that_cannot_be():
    with pytest.raises(InputError, match=r"^steps_per_epoch must be at least 1, not 0\.$"):
        generated(drawn, 0)
    sentence = r"^generated batches are made on one device, not on a mesh\.$"
    feed = generated(drawn, 4)
    with pytest.raises(InputError, match=sentence), feed.compile(record, start(), data_mesh()):
        pass


def test_a_stream_cannot_carry_a_state():
    carrying = start()._replace(carry={"h": jnp.zeros(5)})
    sentence = r"^a carried state needs batches that go on from one another"
    with (
        pytest.raises(InputError, match=sentence),
        streamed(STREAM).compile(record, carrying, None),
    ):
        pass


def test_no_full_batch():
    sentence = "--batch-size must be at most the 23 examples, not 24"
    with pytest.raises(InputError, match=sentence):
        in_memory(DATA, 24)
    with pytest.raises(InputError, match=sentence):
        streamed(dataclasses.replace(STREAM, batch_size=24))
