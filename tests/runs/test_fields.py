"""Which values the types of a configuration's fields allow."""

import dataclasses
import math
from typing import Annotated

import pytest

from nnlab.errors import InputError
from nnlab.runs.fields import (
    Count,
    DataDir,
    Fraction,
    OneOf,
    Positive,
    PositiveInt,
    Seed,
    Some,
    SomeOf,
    check_fields,
)

NAMES = ("some", "any")


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: Positive = 0.1
    momentum: Fraction = 0.9
    epochs: PositiveInt = 3
    workers: Count = 0
    seed: Seed = 0
    seeds: Some[Seed] = (0, 1)
    rates: tuple[Positive, ...] = ()
    threshold: Positive | None = None
    word: Annotated[str, OneOf(NAMES)] = "any"
    words: Annotated[tuple[str, ...], SomeOf(NAMES)] = ("any",)
    many: tuple[Annotated[str, OneOf(NAMES)], ...] = ()
    data_dir: DataDir = None
    free: int = -1

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 1e-300, "momentum": 0},
        {"learning_rate": 1, "momentum": 1.0},
        {"epochs": 1, "workers": 2**31 - 1, "seed": 2**32 - 1},
        {"epochs": 2**31 - 1, "seeds": (3,), "rates": (0.5,)},
        {"threshold": 2.0, "words": ("any", "some"), "many": ("any", "any")},
        {"word": "some", "data_dir": "here", "free": -(10**20)},
    ],
)
def test_what_is_allowed(values):
    assert dataclasses.replace(Config(), **values)


INT, NUMBER = "an integer from {} to {}, not {}", "a positive finite number, not {}"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *(("learning_rate", bad, NUMBER.format(bad)) for bad in (0.0, -1.0, math.nan, math.inf)),
        *(("momentum", bad, f"a number from 0 to 1, not {bad}") for bad in (-0.1, 1.1, math.nan)),
        *(("epochs", bad, INT.format(1, 2**31 - 1, bad)) for bad in (0, 2**31, 1.0, True)),
        *(("workers", bad, INT.format(0, 2**31 - 1, bad)) for bad in (-1, 2**31, False)),
        *(("seed", bad, INT.format(0, 2**32 - 1, bad)) for bad in (-1, 2**32, 0.0)),
        ("seeds", (1, -1), INT.format(0, 2**32 - 1, -1)),
        ("seeds", (), "one value or more, not none"),
        ("rates", (0.1, math.nan), NUMBER.format("nan")),
        ("threshold", 0.0, NUMBER.format("0.0")),
        ("word", "all", "one of some, any, not all"),
        ("words", ("any", "all"), "some of some, any, not all"),
        ("words", ("any", "any"), "some of some, any, not any, any"),
        ("words", (), "some of some, any, not nothing"),
        ("words", ("an\ny",), "some of some, any, not 'an\\ny'"),
        ("many", ("any", "all"), "one of some, any, not all"),
    ],
)
def test_what_is_refused_in_one_sentence(name, value, words):
    with pytest.raises(InputError) as error:
        dataclasses.replace(Config(), **{name: value})
    assert str(error.value) == f"--{name.replace('_', '-')} must be {words}."
