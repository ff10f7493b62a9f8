"""Buckets: the best widths by brute force, and epochs that hold every text once."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.sequences.buckets import bucket_widths, in_buckets, padded
from nnlab.sequences.sst2 import load_sst2
from nnlab.training import State
from nnlab.training.parallel import data_mesh

RNG = np.random.default_rng(0)
LENGTHS = np.concatenate([RNG.integers(1, 4, 20), RNG.integers(1, 13, 19)])
TEXTS = [number * 100 + np.arange(length) + 1 for number, length in enumerate(LENGTHS)]
BATCH = 4


def test_padding():
    tokens = padded([np.array([5, 6]), np.array([7])], width=3, pad=9)
    assert tokens.symbols.tolist() == [[5, 6, 9], [7, 9, 9]] and tokens.lengths.tolist() == [2, 1]
    assert tokens.symbols.dtype == tokens.lengths.dtype == np.int32 and tokens.types is None
    for texts, words in (([], "there are"), ([[1], []], "text 1"), ([[1] * 4], "at most 3")):
        with pytest.raises(InputError, match=words):
            padded([np.array(text, int) for text in texts], width=3)


@pytest.mark.parametrize("shapes", [1, 2, 3, 5, 20])
def test_the_widths_leave_the_least_padding(shapes):
    """All sets of lengths that hold the longest."""

    def computed(widths):
        return sum(min(width for width in widths if width >= each) for each in LENGTHS)

    found, longest = bucket_widths(LENGTHS, shapes), LENGTHS.max()
    *shorter, _ = sorted(set(LENGTHS))
    least = min(
        computed([*some, longest])
        for count in range(min(shapes, len(shorter) + 1))
        for some in itertools.combinations(shorter, count)
    )
    assert len(found) <= shapes and list(found) == sorted(set(found)) and found[-1] == longest
    assert computed(found) == least


def look(state: State, batch: Any) -> Any:
    """A step that says which texts it saw, whether they are whole, and their width."""
    tokens, labels = batch
    width = tokens.symbols.shape[1]
    numbers = (tokens.symbols[:, 0] - 1) // 100
    place = jnp.arange(width)[None]
    texts = jnp.where(place < tokens.lengths[:, None], numbers[:, None] * 100 + place + 1, 7)
    whole = (tokens.symbols == texts).all() & (labels == numbers).all()
    loss = jnp.where(whole, numbers, -1)
    return state._replace(step=state.step + 1), {"loss": loss, "width": jnp.int32(width)}


def state_at(step, seed=0):
    return State(jnp.int32(step), {}, {}, (), jax.random.key(seed))


@pytest.fixture(scope="module")
def feed():
    return in_buckets(TEXTS, np.arange(len(TEXTS)), BATCH, shapes=3, pad=7)


@pytest.fixture(scope="module")
def advance(feed):
    with feed.compile(look, state_at(0), None) as advance:
        yield advance


def test_an_epoch_holds_every_text_once(feed, advance):
    epochs = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        state, seen = advance(state_at(epoch * feed.steps_per_epoch, seed), 100)
        assert int(state.step) == (epoch + 1) * feed.steps_per_epoch == (epoch + 1) * 9
        rows = seen["loss"]
        assert rows.shape == (9, BATCH) and rows.min() >= 0
        assert len(set(rows.ravel())) == rows.size >= len(TEXTS) - BATCH
        widths = bucket_widths(LENGTHS, 3)
        assert set(seen["width"]) == set(widths)
        computed = (seen["width"] * BATCH).sum()
        assert computed <= 1.6 * LENGTHS[rows].sum() < 9 * BATCH * max(widths)
        epochs.append(rows.tolist())
    assert epochs[0] != epochs[1] and epochs[0] != epochs[2]


def test_an_epoch_in_pieces_is_the_whole(advance):
    whole = advance(state_at(0), 100)[1]
    state, pieces = state_at(0), []
    for count in (1, 4, 100):
        state, seen = advance(state, count)
        pieces.append(seen)
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in pieces]), expected)


def test_what_a_feed_says_of_its_texts(feed):
    tokens, labels = feed.first()
    assert tokens.symbols.shape == (BATCH, LENGTHS.max()) and labels.tolist() == [0, 1, 2, 3]
    assert feed.sample(2).symbols.shape == (2 * BATCH, LENGTHS.max())
    with pytest.raises(InputError, match="size along axis 0"):
        in_buckets(TEXTS, np.arange(3), BATCH)
    with pytest.raises(InputError, match="at most the 39 examples"):
        in_buckets(TEXTS, np.arange(len(TEXTS)), 40)


def test_a_mesh(feed, advance):
    mesh = data_mesh(jax.devices()[:1])
    with feed.compile(look, state_at(0), mesh) as split:
        found, expected = split(state_at(0), 3)[1], advance(state_at(0), 3)[1]
    np.testing.assert_array_equal(found["loss"], expected["loss"])


@pytest.mark.slow
def test_sst2(original_data):
    train, dev = load_sst2(original_data)
    assert (len(train), len(dev)) == (67_349, 872)
    assert train.labels("label", 2).mean() == pytest.approx(0.5578, abs=5e-5)
    assert dev.labels("label", 2).sum() == 444
    assert len(set(train.columns["sentence"])) == 67_349 - 371
