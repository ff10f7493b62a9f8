"""Result tables on a terminal."""

import sys
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows of equal keys to standard output: whole numbers in full, others to four digits.

    Where the output is not a terminal the table takes the width it needs.

    Raises:
        ValueError: the keys of a row are not those of the first.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if any(list(row) != list(rows[0]) for row in rows):
        raise ValueError("print_table expects rows of the same keys in the same order.")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for key, value in rows[0].items():
        table.add_column(key, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*map(_text, row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.4g}"
