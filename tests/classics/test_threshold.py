import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, BINARY, FLOAT, SHIFT_ADD, SHIFT_Q, TERNARY
from nnlab.classics import threshold
from nnlab.errors import InputError

WHOLE = range(-3, 4)
WEIGHTS = {
    "float": (FLOAT, WHOLE, (0, 1)),
    "adder": (ADDER, [(k / 3 + 1) / 2 for k in WHOLE], (0, 1)),
    "shift": (SHIFT_Q, [1, 0.5, 0.25, -0.25, -0.5, -1], (0, 1)),
    "ternary": (TERNARY, [-1, 0, 1], (0, 1)),
    "binary": (BINARY, [-1, 1], (-1, 1)),
}
# Numbers of Boolean functions of 2, 3 and 4 inputs: those of float are the known numbers of
# threshold functions (OEIS A000609), the others were counted by another program in float64.
COUNTS = {
    "float": (14, 104, 1882),
    "adder": (14, 104, 1882),
    "shift": (14, 104, 1498),
    "ternary": (14, 56, 218),
    "binary": (10, 26, 66),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_number_of_gates(name):
    arithmetic, weights, values = WEIGHTS[name]
    counts = [len(threshold.computable(n, weights, arithmetic, values)) for n in (2, 3, 4)]
    assert tuple(counts) == COUNTS[name]


def test_gates_of_two_inputs():
    found = threshold.computable(2, WHOLE, ADDER)  # its weights of other sizes do as well
    assert {0b1000, 0b1110} <= {*found}  # AND and OR: rows 00, 01, 10, 11 from the lowest bit
    assert not {0b0110, 0b1001} & {*threshold.computable(2, np.linspace(-1, 2, 13).tolist(), ADDER)}


def test_xor():
    x = jnp.asarray(threshold.every_input(2))
    for by, scale in (
        (threshold.xor_by_thresholds, 1),
        (threshold.xor_by_relu, 1),
        (threshold.xor_by_adders, 0.5),
    ):
        np.testing.assert_array_equal(by(x)[1], [0, scale, scale, 0])


def test_one_array_of_weights():
    with pytest.raises(InputError, match="shift_add has"):
        threshold.response(jnp.ones((1, 2)), jnp.ones((2, 1)), SHIFT_ADD)
