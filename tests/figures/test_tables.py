"""The table that ends a script."""

import pytest

from nnlab.figures import markdown_table, over_seeds, print_table

ROWS = [
    {"network": "CNN", "accuracy / %": 99.444, "multiplications": 605828},
    {"network": "BNN", "accuracy / %": 100.0, "multiplications": 13444},
]


def test_numbers_keep_their_kind_and_columns_line_up(capsys):
    print_table(ROWS)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0].split() == ["accuracy"]  # names are broken at spaces
    assert lines[1].split() == ["network", "/", "%", "multiplications"]
    assert lines[3].split() == ["CNN", "99.44", "605,828"]
    assert lines[4].split() == ["BNN", "100", "13,444"]
    assert len(lines[1]) == len(lines[3]) == len(lines[4])  # numbers end where their column does


def test_rows_of_other_keys_are_refused():
    with pytest.raises(ValueError, match="same keys"):
        print_table([ROWS[0], {"network": "x"}])
    with pytest.raises(ValueError, match="same keys"):
        markdown_table([ROWS[0], {"network": "x"}])


def test_rows_that_differ_in_their_seed_are_one():
    rows = [
        {"cell": cell, "seed": seed, "accuracy": accuracy, "history": [seed]}
        for cell, seed, accuracy in (("a", 0, 1.0), ("b", 0, 7.0), ("a", 1, 3.0), ("a", 2, 2.0))
    ]
    assert over_seeds(rows, ("cell",), {"accuracy": 1}) == [
        {"cell": "a", "n": 3, "accuracy": "2.0 ± 1.0"},
        {"cell": "b", "n": 1, "accuracy": "7.0"},
    ]


def test_the_same_in_markdown():
    assert markdown_table(ROWS).splitlines() == [
        "| network | accuracy / % | multiplications |",
        "| --- | ---: | ---: |",
        "| CNN | 99.44 | 605,828 |",
        "| BNN | 100 | 13,444 |",
    ]
