"""Drawn symbols: against the distribution they are drawn from, and in pieces as at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nnlab.errors import InputError
from nnlab.models import LanguageModel
from nnlab.sequences.generation import prefill, draw, decode

MODEL = LanguageModel(7, features=6, layers=1)
PROMPTS = jnp.array([[1, 2, 3], [6, 0, 5]])
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def variables():
    # Larger weights than a fresh network's, so that its logits differ from symbol to symbol.
    return jax.tree.map(lambda w: 3 * w, MODEL.init(jax.random.key(0), PROMPTS))


@functools.cache
def piece(count):
    def call(variables, key, position, temperature):
        return decode(MODEL, variables, key, position, count, temperature=temperature)

    return jax.jit(call)


def written(variables, counts, key=KEY, temperature=1.0):
    position, pieces = prefill(MODEL, variables, PROMPTS), []
    for count in counts:
        position, symbols = piece(count)(variables, key, position, temperature)
        pieces.append(np.asarray(symbols))
    assert int(position.count) == sum(counts)
    return np.concatenate(pieces, axis=1)


def test_pieces_make_the_text_that_one_makes(variables):
    whole = written(variables, [12])
    assert whole.shape == (2, 12) and whole.dtype == np.int32
    np.testing.assert_array_equal(whole, written(variables, [5, 7]))
    np.testing.assert_array_equal(whole, written(variables, [12]))
    assert (whole != written(variables, [12], key=jax.random.key(5))).any()


def test_towards_zero_it_is_the_likeliest_after_all_before(variables):
    found = written(variables, [12], temperature=1e-30)
    # The network reads each text once more, as a whole and without a carried state.
    texts = np.concatenate([PROMPTS, found[:, :-1]], axis=1)
    logits = MODEL.apply(variables, jnp.asarray(texts))
    np.testing.assert_array_equal(found, np.asarray(logits)[:, 2:].argmax(-1))
    assert len(np.unique(found)) > 1  # or it would be no test


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_those_of_the_formula(temperature):
    logits = jnp.array([0.3, -1.0, 2.0, 0.0, 1.0])
    draws = draw(KEY, jnp.tile(logits, (20_000, 1)), temperature=temperature)
    weights = np.exp(np.asarray(logits, np.float64) / temperature)
    expected = 20_000 * weights / weights.sum()
    # Of a right formula one seed in a thousand would fail; this one does not.
    assert stats.chisquare(np.bincount(draws, minlength=5), expected).pvalue > 1e-3


def test_only_the_largest_count():
    logits = jnp.array([0.3, -1.0, 2.0, 0.0, 1.0])
    draws = draw(KEY, jnp.tile(logits, (2000, 1)), top_k=2)
    counts = np.bincount(draws, minlength=5)
    weights = np.exp([2.0, 1.0])
    assert counts[[2, 4]].sum() == 2000
    expected = 2000 * weights / weights.sum()
    assert stats.chisquare(counts[[2, 4]], expected).pvalue > 1e-3
    np.testing.assert_array_equal(
        draw(KEY, jnp.tile(logits, (50, 1)), top_k=9), draw(KEY, jnp.tile(logits, (50, 1)))
    )


def test_a_prompt_has_symbols(variables):
    with pytest.raises(InputError, match=r"must be \[texts, time\] symbols, not \[2, 0\]"):
        prefill(MODEL, variables, PROMPTS[:, :0])
    with pytest.raises(InputError, match=r"not \[3\]"):
        prefill(MODEL, variables, PROMPTS[0])
