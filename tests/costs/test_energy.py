"""Energies against the published figures of ResNets in the adder papers."""

import jax.numpy as jnp
import pytest

from nnlab.costs import Counts, count, energy
from nnlab.errors import InputError

NOTHING = Counts({}, {}, {}, {}, {}, {})


def test_published_energies():
    convolutional = NOTHING._replace(
        multiplications={"float32": 214_700_000_000}, additions={"float32": 214_700_000_000}
    )
    mixed = NOTHING._replace(
        multiplications={"float32": 112_900_000_000}, additions={"float32": 316_500_000_000}
    )
    assert energy(convolutional) / 1e9 == pytest.approx(987.6, abs=0.05)  # mJ
    assert energy(mixed) / 1e9 == pytest.approx(702.6, abs=0.05)


def test_int8_and_binary_terms():
    def term(**operations):
        return energy(NOTHING._replace(**operations))

    assert term(multiplications={"int8": 1}, additions={"int8": 1}) == pytest.approx(0.23)
    assert term(additions={"uint8": 2}) == pytest.approx(0.06)
    assert term(bit_operations={"bool": 8}) == pytest.approx(term(additions={"int8": 1}))


@pytest.mark.parametrize(
    ("dtype", "product", "addition"),
    [("int8", 0.2, 0.03), ("int32", 3.1, 0.1), ("float16", 1.1, 0.4), ("float32", 3.7, 0.9)],
)
def test_prices_of_horowitz(dtype, product, addition):
    counts = NOTHING._replace(multiplications={dtype: 1}), NOTHING._replace(additions={dtype: 1})
    assert [energy(each) for each in counts] == [product, addition]


def test_comparisons_and_functions_are_left_out():
    assert energy(NOTHING._replace(comparisons={"float32": 9}, other={"bfloat16": 9})) == 0


def test_energy_of_a_traced_program():
    counts = count(jnp.dot, jnp.ones(10), jnp.ones(10))
    assert energy(counts) == pytest.approx(10 * 3.7 + 10 * 0.9)


def test_what_has_no_price_is_refused():
    with pytest.raises(InputError, match="no price for additions in bfloat16"):
        energy(NOTHING._replace(additions={"bfloat16": 1}))
    with pytest.raises(InputError, match=r"unknown primitives \['fft'\]"):
        energy(NOTHING._replace(unknown={"fft": 1}))
