"""Versioned records: what is one, and what is said of a text that is none."""

import pytest

from nnlab.errors import InputError
from nnlab.series.records import read_record


def test_the_fields_without_the_version():
    assert read_record('{"version": 2, "a": [1]}', "record", 2) == {"a": [1]}


@pytest.mark.parametrize(
    "text", ["", "[2]", "{}", '{"version": 1}', '{"version": "2"}', "[" * 100_000, '{"version": 2']
)
def test_what_is_none_is_named(text):
    with pytest.raises(InputError) as caught:
        read_record(text, "record", 2)
    assert str(caught.value) == f"{text[:60]!r}… is no record of version 2"
