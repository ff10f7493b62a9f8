"""What the benchmark prints: every measurement, and the ratios that matter."""

from typing import Any

import layers
import networks
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]

RATIOS = {  # a pass: whose time is divided by whose
    layers.FORWARD: [("nnlab adder", "PyTorch conv2d"), ("nnlab adder", "torch.cdist")],
    layers.BOTH: [
        ("PyTorch published adder", "nnlab adder"),
        ("PyTorch published adder", "nnlab adder, XLA body"),
        ("nnlab adder", "JAX conv"),
        ("nnlab adder", "PyTorch conv2d"),
        ("nnlab conv", "JAX conv"),
        ("nnlab conv", "PyTorch conv2d"),
    ],
    networks.INFERENCE: [("nnlab AdderNet", "JAX CNN"), ("nnlab AdderNet", "PyTorch CNN")],
    networks.STEP: [
        ("nnlab AdderNet", "JAX CNN"),
        ("nnlab AdderNet", "PyTorch CNN"),
        ("nnlab CNN", "JAX CNN"),
        ("nnlab CNN", "PyTorch CNN"),
    ],
}


def ratios(rows: list[Row]) -> list[Row]:
    """Medians of one body over those of another, measured in turn."""
    found = []
    medians = {(row["what"], row["pass"], row["body"]): row["median"] for row in rows}
    for what, which in dict.fromkeys((row["what"], row["pass"]) for row in rows):
        for ours, theirs in RATIOS.get(which, []):
            pair = medians.get((what, which, ours)), medians.get((what, which, theirs))
            if pair[0] is not None and pair[1] is not None:
                names = {"what": what, "pass": which, "time_of": ours, "over": theirs}
                found.append(names | {"ratio": pair[0] / pair[1]})
    return found


def show(result: Row) -> None:
    """Prints what `speed.py` saves."""
    console = Console()
    console = Console(width=None if console.is_terminal else 110, highlight=False)
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
    table = Table("what", "pass", "time of", "over that of", box=None, pad_edge=False)
    table.add_column("ratio", justify="right")
    for row in result["ratios"]:
        names = (row[key] for key in ("what", "pass", "time_of", "over"))
        table.add_row(*names, f"{row['ratio']:.3g}")
    console.print()
    console.print(table)
