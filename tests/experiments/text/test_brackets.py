"""Nesting by hand, and against the removal of pairs until none is left."""

import re

import numpy as np
import pytest
from brackets import hits_by_depth, nesting
from hypothesis import given
from hypothesis import strategies as st

from nnlab.errors import InputError


def test_depths_by_hand():
    found = nesting("a(b[c]d){}e")
    assert found.depths.tolist() == [0, 1, 1, 2, 2, 2, 1, 1, 1, 1, 0]
    assert np.flatnonzero(found.closing).tolist() == [5, 7, 9]
    assert found.balanced


@pytest.mark.parametrize(
    ("source", "balanced"),
    [
        ("", True),
        ("(", False),
        (")", False),
        ("([)]", False),
        (")(", False),
        ("a < b", True),
        ('f("(");', True),
        ("f('(');", True),
        ("/* ( */ {}", True),
        ("// }\n{}", True),
        ('{ "}"', False),
    ],
)
def test_balance_by_hand(source, balanced):
    assert nesting(source).balanced == balanced


@given(st.text(alphabet="([{)]}a", max_size=30))
def test_balance_is_that_pairs_can_be_removed(source):
    rest = source.replace("a", "")
    while (shorter := re.sub(r"\(\)|\[\]|\{\}", "", rest)) != rest:
        rest = shorter
    found = nesting(source)
    assert found.balanced == (not rest)
    if found.balanced:
        before = np.cumsum([(c in "([{") - (c in ")]}") for c in source], dtype=np.int32)
        np.testing.assert_array_equal(found.depths, before + found.closing)


def test_a_closing_bracket_without_partner_closes_nothing():
    assert nesting("(])").depths.tolist() == [1, 1, 1]
    assert not nesting("(])").balanced


def test_hits_by_depth_by_hand():
    depths = np.array([1, 2, 2, 5, 4])
    hits = [np.array([True, True, False, True, False]), np.ones(5, bool)]
    assert hits_by_depth(depths, hits, 4) == [
        (1, 1, [1.0, 1.0]),
        (2, 2, [0.5, 1.0]),
        (4, 2, [0.5, 1.0]),
    ]
    with pytest.raises(InputError, match="5 places need as many hits of each, not 4"):
        hits_by_depth(depths, [hits[0][:4]], 4)
