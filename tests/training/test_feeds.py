"""Feeds: the same steps and metrics in pieces of any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.training import State, in_memory

IMAGES = jnp.arange(23)
DATA = IMAGES, IMAGES


def record(state, batch):
    """A step that reports its images, and refuses to be number 7 of all."""
    bad = jnp.where(state.step == 6, 0, -1)
    after = state._replace(step=state.step + (bad < 0))
    return after, {"seen": batch[0], "nonfinite": bad}


def start():
    return State(jnp.int32(0), {}, {}, (), jax.random.key(0))


@pytest.mark.parametrize("counts", [[4, 2], [1] * 6, [3, 100, 1, 1], [100, 2]])
def test_pieces_are_cut_at_the_end_of_an_epoch_and_make_up_the_whole(counts):
    feed = in_memory(DATA, 5)
    assert (feed.batch_size, feed.steps_per_epoch) == (5, 4)
    advance, state, seen = feed.compile(record, start()), start(), []
    for count in counts:
        state, metrics = advance(state, count)
        seen.append(metrics["seen"])
    assert int(state.step) == 6
    expected = [jax.random.permutation(key(epoch), 23)[:20] for epoch in range(2)]
    np.testing.assert_array_equal(np.concatenate(seen).ravel(), np.concatenate(expected)[:30])


def key(epoch):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), epoch)


def test_a_refused_step_is_the_last_and_its_metrics_are_there():
    advance = in_memory(DATA, 5).compile(record, start())
    state, _ = advance(start(), 4)
    state, metrics = advance(state, 4)
    assert int(state.step) == 6 and metrics["nonfinite"].tolist() == [-1, -1, 0]


def test_no_full_batch():
    with pytest.raises(InputError, match="--batch-size must be at most the 23 images, not 24"):
        in_memory(DATA, 24)
