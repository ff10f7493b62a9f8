"""Print a summary: a rounded table of modules, and exact totals."""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence

from nnlab.costs.counting import Counts
from nnlab.costs.energy import energy
from nnlab.costs.summary import (
    Line,
    Path,
    Summary,
    add,
)
from nnlab.errors import InputError, needs

_PREFIXES = dict(zip(range(-10, 9), (*"qryzafpnµm", "", *"kMGTPEZY"), strict=True))
_KINDS = {
    "multiplications": "multiplications",
    "additions": "additions",
    "bit_operations": "bit operations",
    "comparisons": "comparisons",
    "other": "quotients, roots, …",
}

Total = tuple[str, int | str]


def short(number: float) -> str:
    """Format with three digits and a prefix: 23.6M, 4.10m; "-" for 0, whole numbers to 999."""
    if not number:
        return "-"
    if number < 1000 and number == int(number):
        return str(int(number))
    digits, exponent = f"{number:.2e}".split("e")
    thousands, place = divmod(int(exponent), 3)
    return f"{float(digits) * 10**place:.{2 - place}f}{_PREFIXES[thousands]}"


def print_lines(lines: Sequence[Line]) -> None:
    """Print the table and the sum of its lines.

    Most networks fit into 80 characters. A narrower window shows fewer columns and says which are
    left out; if the output is not a terminal, the table takes the width that it needs.
    """
    with needs("runs"):
        from rich import box
        from rich.console import Console
        from rich.table import Table

    columns = _columns(lines)
    room = Console().width if sys.stdout.isatty() else math.inf
    left_out = []
    for head in ("kind", "bytes", "output", "energy"):
        if _width(columns) > room:
            del columns[head]
            left_out.append(head)
    table = Table(box=box.SIMPLE, padding=0, show_edge=False)
    for head in columns:
        words = head in ("layer", "kind")
        table.add_column(
            head, justify="left" if words else "right", no_wrap=not words, overflow="fold"
        )
    *rows, total = zip(*columns.values(), strict=True)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total)
    Console(width=int(min(room, _width(columns)))).print(table)
    if left_out:
        print(f"left out of {room} characters: {', '.join(left_out)}")


def _columns(lines: Sequence[Line]) -> dict[str, list[str]]:
    """Cells by the head of their column; the sum comes last."""
    inside = [line for line in lines if line.path or line.parameters or any(line.operations)]
    total = add(Line((), ""), inside)
    every = [*inside, total]
    columns = {
        "layer": [*_names(inside), "sum"],
        "kind": [line.op for line in every],
        "output": ["x".join(map(str, line.shape)) for line in every],
    }
    widths = [bits for bits in total.parameters if bits]
    for bits in widths:
        head = "params" if len(widths) == 1 else f"{bits}-bit\nparams"
        columns[head] = [short(line.parameters.get(bits, 0)) for line in every]
    operations = [line.operations.totals() for line in every]
    heads = {"multiplications": "mult.", "additions": "add.", "bit_operations": "bit ops"}
    for kind, head in heads.items():
        if kind != "bit_operations" or total.operations.bit_operations:
            columns[head] = [short(totals[kind]) for totals in operations]
    columns["bytes"] = [short(line.output_bytes) for line in every]
    columns["energy"] = [_joules(line.picojoules) for line in every]
    return columns


def _joules(picojoules: float | None) -> str:
    if picojoules is None:
        return "?"
    return f"{short(picojoules * 1e-12)}J" if picojoules else "-"


def _width(columns: dict[str, list[str]]) -> int:
    """Width of the table, with a space between columns."""
    cells = ([*head.split("\n"), *cells] for head, cells in columns.items())
    return sum(1 + max(map(len, column)) for column in cells) - 1


def totals(summary: Summary) -> list[Total]:
    """Return the exact figures of the whole, for `print_totals`."""
    parameters = summary.total.parameters
    rows: list[Total] = [("parameters", sum(parameters.values()))]
    if len(parameters) > 1:
        names = {0: "  in the bits of others", 1: "  of 1 bit"}
        rows += [(names.get(bits, f"  of {bits} bits"), n) for bits, n in parameters.items()]
    rows += [("running statistics", summary.statistics)] if summary.statistics else []
    rows.append(("bytes at rest", summary.stored_bytes))
    rows.append(("bytes of outputs of layers", summary.total.output_bytes))
    return [*rows, *operations(summary.total.operations)]


def operations(counts: Counts) -> Iterator[Total]:
    """Yield the operations by kind and dtype, and their energy."""
    for kind, words in _KINDS.items():
        numbers = getattr(counts, kind)
        if numbers or kind in ("multiplications", "additions"):
            yield words, sum(numbers.values())
        if len(numbers) > 1:
            yield from ((f"  in {dtype}", number) for dtype, number in numbers.items())
    for primitive, number in counts.unknown.items():
        yield f"not counted: {primitive}", number
    try:
        yield "energy", _joules(energy(counts))
    except InputError as error:
        yield "energy", str(error).partition(";")[0]


def print_totals(title: str, rows: Iterable[Total]) -> None:
    """Print one line for each figure under a title, whole numbers in full."""
    print(f"\n{title}", flush=True)  # rows may take their time
    for name, value in rows:
        print(f"  {name:<28}{value if isinstance(value, str) else f'{value:,}':>18}")


def _names(lines: Sequence[Line]) -> Iterator[str]:
    """Each module's own name below the module that contains it, or else its whole path."""
    before: Path = ()
    for line in lines:
        *outer, name = line.path or ("(model)",)
        depth = len(outer)
        under = before[:depth] == tuple(outer)
        yield "  " * depth + name if under else "/".join(line.path)
        before = line.path
