"""Result tables, on a terminal and in Markdown."""

import sys
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from nnlab.errors import needs


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys to standard output: whole numbers in full, others to four digits.

    A column is as wide as its longest cell or the longest word of its name, so eight fit into 80
    characters. If the output is not a terminal, the table is not cut.

    Raises:
        ValueError: the keys of a row are not those of the first.
    """
    with needs("figures"):
        from rich import box
        from rich.console import Console
        from rich.table import Table

    _check(rows)
    table = Table(box=box.SIMPLE, padding=0)
    for key, value in rows[0].items():
        cells = [_text(row[key]) for row in rows]
        side = "left" if isinstance(value, str) else "right"
        table.add_column(key, justify=side, width=max(map(len, [*key.split(), *cells])))
    for row in rows:
        table.add_row(*map(_text, row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as `print_table` does, as a Markdown table without a final line break.

    Raises:
        ValueError: the keys of a row are not those of the first.
    """
    _check(rows)
    sides = ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines = [list(rows[0]), sides, *(list(map(_text, row.values())) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Return "mean ± sample deviation", the mean alone of one value, "-" of none."""
    if not values:
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def over_seeds(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str], digits: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return one row for all rows that agree, with the mean and the deviation of their numbers.

    Args:
        rows: with more keys than asked for, such as a seed.
        by: keys in which the rows of a group agree.
        digits: keys of numbers, and how many digits after the point to show (`spread`).

    Returns:
        Rows of the keys `by`, "n" and those of `digits`, in the order of the first of each group.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    return [
        dict(zip(by, values, strict=True))
        | {"n": len(some)}
        | {key: spread([row[key] for row in some], each) for key, each in digits.items()}
        for values, some in groups.items()
    ]


def _check(rows: Sequence[Mapping[str, Any]]) -> None:
    if any(list(row) != list(rows[0]) for row in rows):
        raise ValueError("a table is made of rows of the same keys in the same order.")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.4g}"
