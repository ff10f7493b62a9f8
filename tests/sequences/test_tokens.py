import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.sequences.tokens import Tokens, tokens_of

SYMBOLS = np.array([[1, 2, 0], [3, 0, 0]], np.int32)


def test_lengths_of_tokens_come_first():
    assert tokens_of(SYMBOLS, None, 4).lengths is None
    assert tokens_of(SYMBOLS, jnp.array([2, 1]), 4).lengths is not None
    own = np.array([3, 3])
    assert tokens_of(Tokens(SYMBOLS, own), jnp.array([2, 1]), 4).lengths is own


@pytest.mark.parametrize(
    ("symbols", "known", "positions", "said"),
    [
        (SYMBOLS, 3, None, "symbols must be from 0 to 2, not from 0 to 3"),
        (SYMBOLS - 1, 9, None, "not from -1 to 2"),
        (SYMBOLS, 9, 2, "a text has 3 symbols, expected at most the 2 positions"),
        (SYMBOLS[0], 9, None, r"integers \[batch, time\], not int32\[3\]"),
        (np.ones((2, 3), np.float32), 9, None, r"not float32\[2, 3\]"),
    ],
)
def test_texts_that_are_none(symbols, known, positions, said):
    with pytest.raises(InputError, match=said):
        tokens_of(symbols, None, known, positions)


def test_a_traced_text_may_hold_anything():
    jax.eval_shape(lambda symbols: tokens_of(symbols, None, 1).symbols, SYMBOLS)
