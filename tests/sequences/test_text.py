"""Vocabularies there and back, and windows against a loop over the places of a text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.sequences.text import Vocabulary, read_text, windows


@given(st.text(min_size=1))
def test_a_text_there_and_back(text):
    vocabulary = Vocabulary.of(text)
    symbols = vocabulary.encode(text)
    assert symbols.dtype == np.int32 and symbols.shape == (len(text),)
    assert vocabulary.decode(symbols) == text
    assert len(vocabulary) == len(set(text)) and list(vocabulary.characters) == sorted(set(text))


@given(
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(0, 60).map(lambda extra: 2 * extra + extra % 2),
)
def test_windows_against_a_loop(streams, length, extra):
    symbols = np.arange(streams * (length + 1) + extra, dtype=np.int32)
    inputs, labels = windows(symbols, streams, length)
    piece = len(symbols) // streams
    steps = (piece - 1) // length
    assert inputs.shape == labels.shape == (steps * streams, length)
    for step in range(steps):
        for stream in range(streams):
            for place in range(length):
                at = stream * piece + step * length + place  # in the text
                row = step * streams + stream
                assert inputs[row, place] == symbols[at]
                assert labels[row, place] == symbols[at + 1]


def test_windows_by_hand():
    # 13 symbols in 2 pieces of 6, of which windows of 2 use 4 and the label after them.
    inputs, labels = windows(np.arange(13), 2, 2)
    assert inputs.tolist() == [[0, 1], [6, 7], [2, 3], [8, 9]]
    assert labels.tolist() == [[1, 2], [7, 8], [3, 4], [9, 10]]


def test_what_cannot_be_used():
    with pytest.raises(InputError, match="at least one character of text, not none"):
        Vocabulary.of("")
    with pytest.raises(InputError, match="character 'ü' at place 1 is not among the 3 characters"):
        Vocabulary("abc").encode("aüb")
    with pytest.raises(InputError, match="7 symbols are too few for 2 streams of windows of 3"):
        windows(np.arange(7), 2, 3)


def test_a_byte_order_mark_is_no_character(tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa\xef\xbb\xbf")
    assert read_text(tmp_path / "text") == "a\ufeff"  # elsewhere it is one


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_text(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        read_text(tmp_path / "bytes")
    (tmp_path / "empty").write_text("")
    with pytest.raises(InputError, match="is empty; expected a text"):
        read_text(tmp_path / "empty")
