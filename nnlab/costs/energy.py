"""Energy of counted arithmetic, in picojoules, at the prices of 45 nm CMOS at 0.9 V.

The prices are from Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC
2014; the 8-bit and 32-bit float prices are also those that the AdderNet papers use. An energy is

    E = sum over kinds and dtypes of count x price.                                          (1)

The papers give no price for comparisons, quotients, roots and other functions (`Counts.comparisons`
and `Counts.other`), nor for memory traffic, which in practice costs more than the arithmetic; all
of these are left out. A published figure usually covers convolutions alone, `count` the whole
program, so compare like with like.
"""

from nnlab.costs.counting import Counts
from nnlab.errors import InputError

# For an operation on a word of bits, such as the XNOR of two signs, there is no published price. We
# assume that of an integer addition of its width, and for a single bit an eighth of an int8
# addition.
PICOJOULES: dict[str, dict[str, float]] = {
    "multiplications": {
        "int8": 0.2,
        "int32": 3.1,
        "float16": 1.1,  # quoted from memory, not checked against the paper
        "float32": 3.7,
    },
    "additions": {
        "int8": 0.03,
        "int32": 0.1,
        "float16": 0.4,  # quoted from memory, not checked against the paper
        "float32": 0.9,
    },
    "bit_operations": {
        "bool": 0.03 / 8,
        "int8": 0.03,
        "int32": 0.1,
    },
}


def energy(counts: Counts) -> float:
    """Return the picojoules (1) of the multiplications, additions and bit operations in `counts`.

    An unsigned integer costs as much as a signed one of the same width.

    Raises:
        InputError: an operation has no price at its dtype, or `counts.unknown` is not empty.
    """
    if counts.unknown:
        raise InputError(
            f"no energy for counts with unknown primitives {sorted(counts.unknown)}; expected"
            " counts whose `unknown` is empty."
        )
    total = 0.0
    for kind, prices in PICOJOULES.items():
        for dtype, number in getattr(counts, kind).items():
            price = prices.get(dtype.removeprefix("u"))
            if price is None:
                raise InputError(
                    f"no price for {kind} in {dtype}; expected one of {', '.join(prices)}."
                )
            total += number * price
    return total
