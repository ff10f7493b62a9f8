"""A summary as it is printed."""

import re

import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import BINARY, SHIFT_PS
from nnlab.costs.counting import Counts
from nnlab.costs.summary import NOTHING, Line, summarize
from nnlab.costs.summary_text import (
    operations,
    print_lines,
    print_totals,
    short,
    totals,
)
from nnlab.models import LeNet5


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "-"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00k"),
        (2304, "2.30k"),
        (23_550, "23.6k"),
        (999_499, "999k"),
        (999_600, "1.00M"),
        (8_086_179_752, "8.09G"),
        (10**24, "1.00Y"),
        (0.0129, "12.9m"),
        (4.25e-6, "4.25µ"),
        (1.015e-10, "101p"),
        (8e-13, "800f"),
        (9.996e-7, "1.00µ"),
        (1.5, "1.50"),
    ],
)
def test_three_digits_and_a_prefix(number, text):
    assert short(number) == text


LINES = [
    Line((), "Model", (1, 10)),
    Line(("block",), "Block", (1, 8, 8, 6)),
    Line(
        ("block", "conv"),
        "BinaryConv",
        (1, 8, 8, 6),
        {1: 5184, 32: 6},
        NOTHING._replace(additions={"int8": 331_776}, bit_operations={"bool": 331_776}),
        1536,
    ),
    Line(("block", "inner", "dense"), "Dense", (1, 10), {32: 60}, NOTHING, 40),
    Line(("block", "head"), "-", (), {32: 33}),
    Line(("between layers",), "-", (), {}, NOTHING._replace(additions={"float64": 2})),
]


def printed(capsys, monkeypatch, width=None):
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_lines(LINES)
    plain = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    return [line.rstrip() for line in plain.splitlines() if line.strip()]


def test_a_table_of_modules(capsys, monkeypatch):
    heads, names, rule, *rows = printed(capsys, monkeypatch)
    assert heads.split() == ["32-bit", "1-bit"]
    assert names.split() == [
        *("layer", "kind", "output", "params", "params", "mult.", "add.", "bit", "ops"),
        *("bytes", "energy"),
    ]
    assert set(rule) == {"─"}
    # 331,776 additions of 0.03 pJ and as many single bits of an eighth of that.
    assert [row.split() for row in rows] == [
        ["block", "Block", "1x8x8x6", *"-------"],
        [*("conv", "BinaryConv", "1x8x8x6", "6", "5.18k", "-", "332k", "332k"), "1.54k", "11.2nJ"],
        ["block/inner/dense", "Dense", "1x10", "60", *"----", "40", "-"],
        ["head", "-", "33", *"------"],
        ["between", "layers", "-", *"---", "2", "-", "-", "?"],
        ["sum", "99", "5.18k", "-", "332k", "332k", "1.58k", "?"],
    ]
    assert rows[1].startswith("  conv ") and rows[4].startswith("between")


def test_a_narrow_terminal_shows_fewer_columns_and_says_so(capsys, monkeypatch):
    wide = printed(capsys, monkeypatch)
    width = max(map(len, wide))
    assert printed(capsys, monkeypatch, width) == wide
    *table, said = printed(capsys, monkeypatch, width - 1)
    assert said == f"left out of {width - 1} characters: kind"
    assert len(table) == len(wide)  # no cell is broken
    assert "BinaryConv" not in "".join(table) and "1x8x8x6" in "".join(table)
    *table, said = printed(capsys, monkeypatch, 50)
    assert said == "left out of 50 characters: kind, bytes, output, energy"
    assert max(map(len, table)) <= 50
    assert any("5.18k" in line for line in table)


def test_totals_are_exact():
    images = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    model = LeNet5(arithmetic=BINARY)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    rows = dict(totals(summarize(model, variables, images)))
    assert rows["parameters"] == 61_942
    binary = 2400 + 48_000 + 120 * 84  # first and last layer are float
    assert (rows["  of 1 bit"], rows["  of 32 bits"]) == (binary, 61_942 - binary)
    assert rows["running statistics"] == 2 * (6 + 16 + 120 + 84 + 10)
    assert rows["bit operations"] == 1600 * 150 + 400 * 120 + 120 * 84
    assert rows["  in int8"] == rows["bit operations"]  # additions of signs


def test_signs_within_the_bits_of_exponents():
    images = jax.ShapeDtypeStruct((1, 5), jnp.float32)
    model = SHIFT_PS.dense(3)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    rows = dict(totals(summarize(model, variables, images)))
    assert (rows["  of 5 bits"], rows["  in the bits of others"]) == (15, 15)
    assert rows["bytes at rest"] == 10  # 75 bits


def test_what_is_not_counted_or_has_no_price_is_said(capsys):
    counts = Counts({"float64": 3}, {}, {}, {}, {}, {})
    print_totals("A program", operations(counts))
    title, multiplications, additions, energy = capsys.readouterr().out.split("\n")[1:-1]
    assert title == "A program"
    assert multiplications.split() == ["multiplications", "3"]
    assert additions.split() == ["additions", "0"]
    assert energy.split(maxsplit=1) == ["energy", "no price for multiplications in float64"]
    rows = dict(operations(counts._replace(unknown={"fft": 2})))
    assert rows["not counted: fft"] == 2
    assert "fft" in str(rows["energy"])
