"""Accumulators by brute force, prices by hand."""

import itertools

import numpy as np
import pytest

from nnlab.costs import Counts
from nnlab.costs.hardware import (
    Layer,
    Numbers,
    accumulator_bits,
    bits_holding,
    constants,
    table,
)
from nnlab.errors import InputError
from nnlab.figures import print_table

NOTHING = Counts({}, {}, {}, {}, {}, {})


def fits(number, bits):
    return -(2 ** (bits - 1)) <= number < 2 ** (bits - 1)


def test_bits_of_twos_complement():
    for low, high in itertools.combinations_with_replacement(range(-40, 41), 2):
        bits = bits_holding(low, high)
        assert fits(low, bits) and fits(high, bits)
        assert bits == 1 or not (fits(low, bits - 1) and fits(high, bits - 1))


def term_values(kind, bits):
    """Every value of a term, from all pairs of operands."""
    unsigned = np.arange(2**bits)
    weights = {
        "adder": unsigned,
        "product": np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)),
        "signed": np.array([-1, 0, 1]),
        "binary": np.array([-1, 1]),
    }[kind]
    inputs = np.array([-1, 1]) if kind == "binary" else unsigned
    if kind == "adder":
        return np.unique(-abs(inputs[:, None] - weights))
    return np.unique(inputs[:, None] * weights)


@pytest.mark.parametrize("kind", ["adder", "product", "signed", "binary"])
@pytest.mark.parametrize("bits", [2, 4, 5, 6, 8])
@pytest.mark.parametrize("terms", [1, 2, 9, 75, 576])
def test_no_sum_leaves_the_accumulator_and_a_bit_less_is_too_few(kind, bits, terms):
    values = term_values(kind, bits)
    width = accumulator_bits(kind, terms, bits)
    extremes = [values.min(), values.max()]
    # Partial sums of the most extreme inputs, in an order that goes as far as it can.
    partial = [np.cumsum(np.full(terms, extreme)) for extreme in extremes]
    partial.append(np.cumsum(np.tile(extremes, terms)[:terms]))
    assert all(fits(number, width) for sums in partial for number in sums)
    assert not all(fits(sums[-1], width - 1) for sums in partial)


def test_every_sum_of_two_terms_fits():
    for kind in ("adder", "product", "signed", "binary"):
        values = term_values(kind, 3)
        sums = [a + b for a, b in itertools.product(values, values)]
        width = accumulator_bits(kind, 2, 3)
        assert all(fits(number, width) for number in sums)


def test_published_energies_of_detectors():
    """AdderNet detectors: 214.7 G multiplications and additions, 112.9 G and 316.5 G, in mJ."""
    cnn = NOTHING._replace(
        multiplications={"float32": 214_700_000_000}, additions={"float32": 214_700_000_000}
    )
    adder = NOTHING._replace(
        multiplications={"float32": 112_900_000_000}, additions={"float32": 316_500_000_000}
    )
    rows = table([Layer("CNN", "-", cnn), Layer("adder", "-", adder)])
    assert rows[0]["arithmetic / nJ"] / 1e6 == pytest.approx(987.6, abs=0.05)
    assert rows[1]["arithmetic / nJ"] / 1e6 == pytest.approx(702.6, abs=0.05)
    assert rows[2]["arithmetic / nJ"] / 1e6 == pytest.approx(987.6 + 702.6, abs=0.1)


ADDER = Layer(
    "near",
    "AdderConv",
    NOTHING._replace(additions={"float32": 1000}),
    weights=(Numbers(9, 9 * 32),),
    inputs=(Numbers(16, 16 * 32),),
    outputs=(Numbers(4, 4 * 32), Numbers(3, 3)),
    kind="adder",
    terms=9,
)


def test_a_row_by_hand():
    row = table([ADDER])[0]
    assert (row["weight bytes"], row["input bytes"], row["output bytes"]) == (36, 64, 16 + 1)
    assert row["arithmetic / nJ"] == pytest.approx(0.9)
    assert row["8 KB cache / nJ"] == pytest.approx(117 / 8 * 0.01)
    assert row["DRAM (unchecked) / nJ"] == pytest.approx(117 / 8 * 1.3)
    assert row["accumulator bits"] == "-" and row["assumed"] == "-"


@pytest.mark.parametrize(
    ("bits", "weights", "outputs", "accumulator", "picojoules", "assumed"),
    [
        (8, 9, 4 + 1, "13", 0.03, "-"),  # 9 x 255 = 2295
        (6, 7, 3 + 1, "11", 0.03, "int6"),  # 9 x 63 = 567; 54 bits are 7 bytes
        (5, 6, 3 + 1, "10", 0.03, "int5"),  # 9 x 31 = 279; 45 bits
        (4, 5, 2 + 1, "9", 0.03, "int4"),  # 9 x 15 = 135; 36 bits
        (16, 18, 8 + 1, "21", 0.1, "int16"),  # 9 x 65535 = 589815
        (32, 36, 16 + 1, "37", 0.1, "-"),
    ],
)
def test_the_same_at_integer_widths(bits, weights, outputs, accumulator, picojoules, assumed):
    row = table([ADDER], bits)[0]
    assert (row["weight bytes"], row["input bytes"]) == (weights, 2 * bits)
    assert row["output bytes"] == outputs  # the array of one bit a number stays
    assert row["accumulator bits"] == accumulator
    assert row["arithmetic / nJ"] == pytest.approx(picojoules)
    assert row["assumed"] == assumed


def test_what_is_assumed_is_named():
    half = NOTHING._replace(
        additions={"float16": 1}, bit_operations={"bool": 1}, multiplications={"float32": 1}
    )
    rows = table([Layer("x", "-", half), ADDER])
    assert [row["assumed"] for row in rows] == ["bool bits, float16", "-", "bool bits, float16"]
    sources = {row["price of"]: row["source"] for row in constants()}
    assert "not checked" in sources["additions in float16"]
    assert "not checked" in sources["64 bits of DRAM"]
    assert "not checked" not in sources["additions in float32"]
    assert "assumed" in sources["bit_operations in bool"]


def test_both_print(capsys):
    print_table(table([ADDER]))
    print_table(constants())
    assert "sum" in capsys.readouterr().out
    assert table([]) == []


def test_widths_out_of_range_are_refused():
    for bits in (0, 33):
        with pytest.raises(InputError, match=f"1 to 32 bits, not {bits}"):
            table([ADDER], bits)
