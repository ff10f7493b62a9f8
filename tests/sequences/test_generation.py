"""Drawn symbols: against the distribution they are drawn from, and in pieces as at once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nnlab.errors import InputError
from nnlab.models import LanguageModel
from nnlab.sequences.generation import decode, draw, prefill

MODEL = LanguageModel(7, features=6, layers=1)
PROMPTS: Any = np.array([[1, 2, 3], [6, 0, 5]], np.int32)
KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def variables(random_variables):
    return jax.tree.map(lambda w: 3 * w, random_variables(MODEL, PROMPTS))  # or all is alike


start = jax.jit(functools.partial(prefill, MODEL))
apply = jax.jit(MODEL.apply)
draw = jax.jit(draw, static_argnames="top_k")


@jax.jit
def draws_of_a_text(logits):
    """Number n with the key folded with n."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, KEY))(jnp.arange(logits.shape[1]))
    return jax.vmap(draw, in_axes=(0, 1), out_axes=1)(keys, logits)


@jax.jit
def piece(variables, key, position, temperature):
    return decode(MODEL, variables, key, position, 6, temperature=temperature)


@pytest.mark.parametrize("temperature", [1.0, 1e-30])
def test_symbols_are_drawn_from_the_logits_of_the_whole_text(variables, temperature):
    """Two pieces of six, against the network on the text at once, without a carried state."""
    position, pieces = start(variables, PROMPTS), []
    for _ in range(2):
        position, symbols = piece(variables, KEY, position, temperature)
        pieces.append(symbols)
    found = np.concatenate(pieces, axis=1)
    assert found.shape == (2, 12) and found.dtype == np.int32 and position.count == 12
    texts = np.concatenate([PROMPTS, found[:, :-1]], axis=1)
    logits = np.asarray(apply(variables, texts))[:, 2:]
    if temperature < 1:  # the likeliest
        np.testing.assert_array_equal(found, logits.argmax(-1))
    else:
        np.testing.assert_array_equal(found, draws_of_a_text(logits))
    assert len(np.unique(found)) > 1  # or it would be no test


LOGITS: Any = np.array([0.3, -1, 2, 0, 1], np.float32)
TILED: Any = np.tile(LOGITS, (20_000, 1))


@pytest.mark.parametrize(("temperature", "top_k"), [(0.5, None), (2.0, None), (1.0, 2)])
def test_frequencies_are_those_of_the_formula(temperature, top_k):
    draws = draw(KEY, TILED, temperature=temperature, top_k=top_k)
    kept = LOGITS >= 1 if top_k else np.ones(5, bool)
    weights = np.exp(np.asarray(LOGITS, np.float64) / temperature)[kept]
    counts = np.bincount(draws, minlength=5)
    assert counts[kept].sum() == 20_000
    # A right formula would fail for one seed in a thousand; this one does not.
    assert stats.chisquare(counts[kept], 20_000 * weights / weights.sum()).pvalue > 1e-3


def test_more_than_there_are_is_all():
    all_count = draw(KEY, TILED, top_k=9), draw(KEY, TILED)
    np.testing.assert_array_equal(*all_count)


def test_a_prompt_has_symbols(variables):
    with pytest.raises(InputError, match=r"must be \[texts, time\] symbols, not \[2, 0\]"):
        prefill(MODEL, variables, PROMPTS[:, :0])
    with pytest.raises(InputError, match=r"not \[3\]"):
        prefill(MODEL, variables, PROMPTS[0])
