"""The table that ends a script."""

import pytest

from nnlab.figures import markdown_table, print_table

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


def test_the_same_in_markdown():
    assert markdown_table(ROWS).splitlines() == [
        "| network | accuracy / % | multiplications |",
        "| --- | ---: | ---: |",
        "| CNN | 99.44 | 605,828 |",
        "| BNN | 100 | 13,444 |",
    ]
