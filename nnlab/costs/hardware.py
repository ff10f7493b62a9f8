r"""Estimate what each layer asks of hardware: operations, traffic, energy, accumulator width.

The layers of a model are its modules, traced one by one (`nnlab.costs.modules`); those of an
integer network are its nodes (`nnlab.deployment.layers`). `table` prices them, and those of a float
model also at integer widths.

**Traffic.** Bytes of the weights and inputs read and of the outputs written, each number once. This
is what remains when a layer's own buffers catch all reuse, and so a lower bound.

**Energy.** Operations are priced as in `nnlab.costs.energy`, an addition at the width of its terms
and not of the accumulator, as in the AdderNet papers. Traffic is priced twice: as if all of it came
from an 8 KB cache, and from DRAM. There is no published price at 6, 5 or 4 bits: a number of at
most 8 bits costs as much as one of 8, and one of at most 32 as one of 32, which are upper bounds.
`constants` lists every price with its source and says which were not checked.

**Accumulators.** A sum of T terms of n bits lies within

==========  ======================================  ========================================
kind        least sum                               greatest sum
==========  ======================================  ========================================
"adder"     -T (2^n - 1)                            0                                         (1)
"product"   -T 2^(n-1) (2^n - 1)                    T (2^(n-1) - 1) (2^n - 1)                 (2)
"signed"    -T (2^n - 1)                            T (2^n - 1)                               (3)
"binary"    -T                                      T                                         (4)
==========  ======================================  ========================================

for unsigned inputs, unsigned weights of an adder, two's complement weights of a product, weights
-1, 0 and 1 of "signed" and signs of "binary". Some input and weights reach each bound, so with one
bit less two's complement overflows; and as a term can be 0 or the bounds have either sign, no
partial sum, in any order, lies outside.

References:
    Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014. Chen et al.,
    AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, for an adder term as two additions.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from nnlab.costs.counting import Counts
from nnlab.costs.energy import PICOJOULES, energy
from nnlab.errors import InputError

Kind = Literal["adder", "product", "signed", "binary"]

# Picojoules of reading or writing 64 bits.
_CACHE, _DRAM = 10.0, 1300.0
_HOROWITZ = "Horowitz, ISSCC 2014"
_UNCHECKED = "Horowitz, ISSCC 2014, quoted from memory and not checked"
_LIKE_AN_ADDITION = "none: assumed as an integer addition of as many bits"


class Numbers(NamedTuple):
    """An array at rest: how many numbers, and how many bits all of them take."""

    size: int
    bits: int

    @property
    def bytes(self) -> int:
        return math.ceil(self.bits / 8)


class Layer(NamedTuple):
    """One layer, for the inputs that it was traced with.

    Attributes:
        name: path of the module, or name of the node.
        op: class of the module, or op of the node.
        operations: as `nnlab.costs.count` counts them.
        weights, inputs, outputs: the arrays read and written.
        kind: kind of its sums; None if it has none, or if their terms are not in the table.
        terms: terms of one sum.
        accumulator: bits of two's complement that hold every sum; None if sums are floats.
    """

    name: str
    op: str
    operations: Counts
    weights: tuple[Numbers, ...] = ()
    inputs: tuple[Numbers, ...] = ()
    outputs: tuple[Numbers, ...] = ()
    kind: Kind | None = None
    terms: int = 0
    accumulator: int | None = None


def bits_holding(low: int, high: int) -> int:
    """Return the fewest bits of two's complement that hold every integer from `low` to `high`."""
    return 1 + max((~end if end < 0 else end).bit_length() for end in (low, high))


def accumulator_bits(kind: Kind, terms: int, bits: int) -> int:
    """Return the fewest bits that hold any sum of `terms` terms of `bits` bits, (1) to (4)."""
    unsigned, half = 2**bits - 1, 2 ** (bits - 1)
    low, high = {
        "adder": (-unsigned, 0),  # (1)
        "product": (-half * unsigned, (half - 1) * unsigned),  # (2)
        "signed": (-unsigned, unsigned),  # (3)
        "binary": (-1, 1),  # (4)
    }[kind]
    return bits_holding(terms * low, terms * high)


def table(layers: Sequence[Layer], bits: int | None = None) -> list[dict[str, Any]]:
    """Return a row for each layer for `nnlab.figures.print_table`, and one of their sums.

    Args:
        layers: from `nnlab.costs.modules` or `nnlab.deployment.layers`.
        bits: price and store floats as integers of this width, 1 to 32; numbers that already take
            fewer bits stay. By default everything is as it was traced.

    Returns:
        Rows with operations, bytes of traffic, bits of the accumulator ("-" where sums are floats
        or not in the module's table), and energies. "assumed" names the dtypes in the row whose
        price is an assumption or unchecked; that of DRAM always is.

    Raises:
        InputError: `bits` is out of range, or an operation has no price.
    """
    if bits is not None and not 1 <= bits <= 32:
        raise InputError(f"table prices integers of 1 to 32 bits, not {bits}.")
    rows = [_row(_at_width(layer, bits) if bits else layer) for layer in layers]
    total: dict[str, Any] = {
        name: sum(row[name] for row in rows) if isinstance(value, int | float) else "-"
        for name, value in (rows[0] if rows else {}).items()
    }
    assumed = {dtype for row in rows for dtype in row["assumed"].split(", ")} - {"-"}
    total |= {"layer": "sum", "assumed": ", ".join(sorted(assumed)) or "-"}
    return [*rows, total] if rows else []


def constants() -> list[dict[str, Any]]:
    """Return every price that `table` uses, with its source, as rows for `print_table`."""
    rows = [
        {"price of": f"{kind} in {dtype}", "pJ": price, "source": _source(kind, dtype)}
        for kind, prices in PICOJOULES.items()
        for dtype, price in prices.items()
    ]
    return [
        *rows,
        {"price of": "64 bits of an 8 KB cache", "pJ": _CACHE, "source": _HOROWITZ},
        {"price of": "64 bits of DRAM", "pJ": _DRAM, "source": f"{_UNCHECKED}; 1300 to 2600"},
    ]


def _source(kind: str, dtype: str) -> str:
    if kind == "bit_operations":
        return _LIKE_AN_ADDITION
    return _UNCHECKED if dtype == "float16" else _HOROWITZ


def _at_width(layer: Layer, bits: int) -> Layer:
    def narrowed(arrays: tuple[Numbers, ...]) -> tuple[Numbers, ...]:
        return tuple(Numbers(a.size, min(a.bits, a.size * bits)) for a in arrays)

    return layer._replace(
        operations=_renamed(layer.operations, lambda d: f"int{bits}" if "float" in d else d),
        weights=narrowed(layer.weights),
        inputs=narrowed(layer.inputs),
        outputs=narrowed(layer.outputs),
        accumulator=accumulator_bits(layer.kind, layer.terms, bits) if layer.kind else None,
    )


def _renamed(operations: Counts, name: Callable[[str], str]) -> Counts:
    """The counts with their dtypes renamed."""

    def renamed(numbers: dict[str, int]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for dtype, number in numbers.items():
            found[name(dtype)] += number
        return dict(found)

    return Counts(**{kind: renamed(n) for kind, n in operations._asdict().items()})


def _priced(dtype: str) -> str:
    """The dtype whose price an integer dtype of any width has."""
    width = re.fullmatch(r"u?int(\d+)", dtype)
    if width is None or int(width[1]) > 32:
        return dtype
    return "int8" if int(width[1]) <= 8 else "int32"


def _row(layer: Layer) -> dict[str, Any]:
    totals = layer.operations.totals()
    moved = [sum(a.bytes for a in kind) for kind in (layer.weights, layer.inputs, layer.outputs)]
    return {
        "layer": layer.name,
        "op": layer.op,
        "multiplications": totals["multiplications"],
        "additions": totals["additions"],
        "bit ops": totals["bit_operations"],
        "weight bytes": moved[0],
        "input bytes": moved[1],
        "output bytes": moved[2],
        "accumulator bits": str(layer.accumulator or "-"),
        "arithmetic / nJ": energy(_renamed(layer.operations, _priced)) / 1000,
        "8 KB cache / nJ": sum(moved) / 8 * _CACHE / 1000,
        "DRAM (unchecked) / nJ": sum(moved) / 8 * _DRAM / 1000,
        "assumed": ", ".join(sorted(set(_assumed(layer.operations)))) or "-",
    }


def _assumed(operations: Counts) -> Iterator[str]:
    for kind in PICOJOULES:
        for dtype in getattr(operations, kind):
            if kind == "bit_operations":
                yield f"{dtype} bits"
            elif _priced(dtype) != dtype.removeprefix("u") or _source(kind, dtype) != _HOROWITZ:
                yield dtype
