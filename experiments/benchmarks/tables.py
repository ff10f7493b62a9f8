"""What the benchmark prints: every measurement, and in short what they come to."""

from collections.abc import Callable, Iterable
from typing import Any

import layers
import networks
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]

ADDER, XLA, PUBLISHED = "nnlab adder", "nnlab adder, XLA body", "PyTorch published adder"
RATIOS = [  # the time of one body over that of another, in a pass
    (PUBLISHED, ADDER, layers.BOTH),
    (PUBLISHED, XLA, layers.BOTH),
    (ADDER, "JAX conv", layers.BOTH),
    (ADDER, "PyTorch conv2d", layers.BOTH),
    ("nnlab conv", "JAX conv", layers.BOTH),
    ("nnlab conv", "PyTorch conv2d", layers.BOTH),
    (ADDER, "PyTorch conv2d", layers.FORWARD),
    ("nnlab 8-bit adder", "PyTorch conv2d", layers.FORWARD),
    ("nnlab 8-bit adder", "PyTorch int8 conv2d", layers.FORWARD),
    ("nnlab binary, packed", "PyTorch conv2d", layers.FORWARD),
    ("nnlab binary, with packing", "PyTorch conv2d", layers.FORWARD),
]


def show(result: Row) -> None:
    """Prints what `speed.py` saves."""
    console = Console()
    console = Console(width=None if console.is_terminal else 160, highlight=False)
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in result["limits"].items())
    console.print(f"{result['hardware']}; native: {result['kernels']['adder_conv']['cpu']}")
    console.print(f"limits of all cores in Gterm/s: {rates}\n")
    table = Table("what", "pass", "body", box=None, pad_edge=False)
    for column in ("median ms", "quartiles", "Gterm/s", "of limit", "peak MB"):
        table.add_column(column, justify="right")
    for row in result["rows"]:
        low, high = row["quartiles"]
        table.add_row(
            *(row["what"], row["pass"], row["body"], f"{1e3 * row['median']:.2f}"),
            f"{1e3 * low:.2f} to {1e3 * high:.2f}",
            f"{row['terms_per_second'] / 1e9:.1f}",
            f"{row['of_limit']:.2f}" if row["of_limit"] else "",
            f"{row['peak_bytes'] / 1e6:.1f}" if row.get("peak_bytes") is not None else "",
        )
    console.print(table)
    print("", markdown(result), sep="\n")


def markdown(result: Row) -> str:
    """The same in two short tables: ratios for layers, milliseconds for networks."""
    rows = {(row["what"], row["pass"], row["body"]): row for row in result["rows"]}
    names = list(dict.fromkeys(row["what"] for row in result["rows"]))

    def line(label: str, whats: Iterable[str], cell: Callable[[str], str]) -> list[str]:
        cells = [cell(what) for what in whats]
        return [f"| {label} | {' | '.join(cells)} |"] if any(cells) else []

    def ratio(ours, theirs, which):
        def cell(what):
            pair = [rows.get((what, which, body)) for body in (ours, theirs)]
            if None in pair:
                return ""
            value = pair[0]["median"] / pair[1]["median"]  # pyright: ignore
            return f"{value:.0f}" if value >= 10 else f"{value:.2f}"

        return cell

    def share(body, which, limit=None):
        def cell(what):
            row = rows.get((what, which, body))
            if row is None or (row["of_limit"] is None and limit is None):
                return ""
            rate = row["terms_per_second"]
            return f"{rate / result['limits'][limit] if limit else row['of_limit']:.2f}"

        return cell

    def milliseconds(body, which):
        def cell(what):
            row = rows.get((what, which, body))
            return f"{1e3 * row['median']:.1f}" if row else ""

        return cell

    def head(label, whats):
        return [f"| {label} | {' | '.join(whats)} |", "|---" * (1 + len(whats)) + "|"]

    lines = []
    if found := [name for name in names if name in layers.LAYERS]:
        lines += head("layer", found)
        lines += line(f"{ADDER}, forward: of the limit", found, share(ADDER, layers.FORWARD))
        best = share(ADDER, layers.FORWARD, "maximum and add")
        lines += line(f"{ADDER}, forward: of the limit of maximum and add", found, best)
        of_gradient = share(ADDER, layers.GRADIENT)
        lines += line(f"{ADDER}, input gradient: of the limit", found, of_gradient)
        of_bytes = share("nnlab 8-bit adder", layers.FORWARD)
        lines += line("nnlab 8-bit adder, forward: of the limit", found, of_bytes)
        for ours, theirs, which in RATIOS:
            lines += line(f"{ours} / {theirs}, {which}", found, ratio(ours, theirs, which))
        lines += [""]
    if found := [name for name in names if name in networks.NETWORKS]:
        lines += head("milliseconds", found)
        for which in (networks.STEP, networks.EPOCH, networks.INFERENCE):
            for body in networks.bodies(which, peers=True):
                lines += line(f"{which}, {body}", found, milliseconds(body, which))
    return "\n".join(lines)
