"""Numbers and names that the page needs beside functions: kinds of weights, rules, costs.

Costs are counted by `nnlab.costs` from the traced inference program of one example. Those of a
dense layer are sums of products of its sizes,

    c(i, o) = a + b i + c o + d i o,                                                       (1)

so four sizes give the coefficients, and a fifth must agree.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.classics.by_hand import WORKED
from nnlab.costs import count, energy
from nnlab.costs.storage import stored_bytes
from nnlab.playground import data
from nnlab.playground.functions import entries, product, state_shapes
from nnlab.playground.network import (
    ACTIVATIONS,
    ARITHMETICS,
    DATA,
    FEATURES,
    LOSSES,
    OPTIMIZERS,
    REGRESSION,
    STARTS,
    Settings,
    kernel_name,
)
from nnlab.playground.rules import RULES

_TEXTS = ("forward", "to_w", "potential_w", "to_x", "potential_x", "note")


def tables() -> dict[str, Any]:
    """Return everything as a tree that JSON can hold."""
    rules = {
        name: {field: getattr(rule, field) for field in _TEXTS} for name, rule in RULES.items()
    }
    return {
        "arithmetics": {
            name: {
                "about": arithmetic.about,
                "kernel": kernel_name(name),
                "needsNorm": arithmetic.needs_norm,
                "bits": _bits(name),
                "costs": _costs(name),
                "rule": rules[name],
            }
            for name, arithmetic in ARITHMETICS.items()
        },
        "activations": {name: _unit_costs(function) for name, function in ACTIVATIONS.items()},
        "bias": _per_output(jnp.add, "y,bias"),
        "norm": _per_output(entries()["norm_eval"][0], "y,scale,bias,mean,variance"),
        "optimizers": {name: state_shapes(name) for name in OPTIMIZERS},
        "losses": list(LOSSES),
        "starts": list(STARTS),
        "data": list(DATA),
        "regression": list(REGRESSION),
        "features": list(FEATURES),
        "defaults": dataclasses.asdict(Settings()),
        "worked": {
            "x": WORKED.x.tolist(),
            "target": WORKED.target.tolist(),
            "first": WORKED.first.tolist(),
            "second": WORKED.second.tolist(),
            "biases": list(WORKED.biases),
            "rate": 0.5,
        },
        "streams": {
            name.lower(): getattr(data, name)
            for name in ("POINTS", "NOISE", "SPLIT", "WEIGHTS", "ORDER")
        },
    }


def _measures(function: Any, *shapes: tuple[int, ...]) -> list[float]:
    """Multiplications, additions, bit operations and picojoules of one call."""
    counts = count(function, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    totals = counts.totals()
    kinds = ("multiplications", "additions", "bit_operations")
    return [*(float(totals[kind]) for kind in kinds), energy(counts)]


def _costs(arithmetic: str) -> list[list[float]]:
    """The four coefficients (1) of each measure."""
    of = functools.partial(product, arithmetic)
    sizes = np.array([(2, 3), (5, 3), (2, 7), (5, 7), (4, 9)])
    terms = np.stack([np.ones(5), sizes[:, 0], sizes[:, 1], sizes.prod(1)], 1)
    found = np.array([_measures(of, (1, i), (i, o)) for i, o in sizes.tolist()])
    coefficients = np.linalg.solve(terms[:4], found[:4])
    assert np.allclose(terms @ coefficients, found), f"{arithmetic} has other costs than (1)"
    return coefficients.T.round(9).tolist()


def _unit_costs(activation: Any) -> list[float]:
    return (np.array(_measures(activation, (8,))) / 8).tolist()


def _per_output(function: Any, arguments: str) -> list[float]:
    shapes = [(1, 64), *[(64,)] * arguments.count(",")]
    return (np.array(_measures(function, *shapes)) / 64).tolist()


def _bits(arithmetic: str) -> int:
    """Bits of one stored weight."""
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 64), (64, 64)))
    return round(8 * stored_bytes(lambda w, x: product(arithmetic, x, w), w, x) / 64**2)
