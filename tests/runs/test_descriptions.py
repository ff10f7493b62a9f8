"""Arithmetics as JSON: described, made again, they are described alike and compute the same."""

import dataclasses
import functools
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import (
    ADDER,
    NAMED,
    Arithmetic,
    deep_shift_q,
    dorefa,
    in_format,
    lp_adder,
    of_product,
)
from nnlab.errors import InputError
from nnlab.layers import AdderConv
from nnlab.ops.adder import adder_conv
from nnlab.ops.formats import FLOAT8_E4M3, FLOAT8_E5M2, posit, scaled
from nnlab.runs.descriptions import Reader, described

FALLING = optax.linear_schedule(2.0, 1.0, 100)
ARITHMETICS = {
    **NAMED,
    "dorefa(2, 3)": dorefa(2, 3),
    "dorefa(2, 3, 4)": dorefa(2, 3, 4),
    "deep_shift_q(4)": deep_shift_q(4),
    "lp_adder": lp_adder(FALLING),
    "joined": lp_adder(optax.join_schedules([FALLING, optax.constant_schedule(1.0)], [100])),
    "hard": dataclasses.replace(ADDER, activation=nn.hard_tanh),
    "rough": dataclasses.replace(ADDER, conv=functools.partial(AdderConv, filter_rule="sign")),
    "posits": in_format(weights=scaled(posit(6, 1)), activations=posit(6, 1), name="posit6"),
    "floats": in_format(activations=FLOAT8_E4M3, errors=scaled(FLOAT8_E5M2)),
    "own": of_product(
        adder_conv, kernel_name="adder_kernel", kernel_init=nn.initializers.normal(2.0)
    ),
}


@pytest.mark.parametrize("name", ARITHMETICS)
def test_an_arithmetic_comes_back(name):
    arithmetic = ARITHMETICS[name]
    text = json.dumps(described("arithmetic", arithmetic))
    found = Reader().value(json.loads(text))
    assert isinstance(found, Arithmetic)
    assert json.dumps(described("arithmetic", found)) == text
    if name in NAMED:
        assert found is arithmetic


@pytest.mark.parametrize("name", ["lp_adder", "posits", "floats", "own"])
def test_it_computes_the_same(name):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
    found = Reader().value(described("arithmetic", ARITHMETICS[name]))
    layers = [arithmetic.dense(2) for arithmetic in (ARITHMETICS[name], found)]
    variables = [layer.init(jax.random.key(0), x) for layer in layers]
    outputs = [layer.apply(v, x) for layer, v in zip(layers, variables, strict=True)]
    chex.assert_trees_all_equal(*outputs)


def test_the_documented_words():
    assert described("a", dorefa(2, 3)) == {"arithmetic": "dorefa", "arguments": [2, 3]}
    assert described("a", ARITHMETICS["hard"]) == {
        "arithmetic": "ADDER",
        "with": {"activation": {"object": "flax.linen:hard_tanh"}},
    }
    schedule = {"value": 1.0}
    found = described("schedule", optax.constant_schedule(1.0))
    assert found == {"made": "optax:constant_schedule", "options": schedule}


def _scale(factor):
    factor = factor + 1  # so that its variable is not the argument

    def function(x):
        return factor * x

    return function


@pytest.mark.parametrize("value", [_scale(2.0), lambda x: x, np.ones(3), object()])
def test_what_has_no_name_is_refused(value):
    with pytest.raises(InputError, match="cannot name f="):
        described("f", value)


@pytest.mark.parametrize(
    "forged",
    [
        {"object": "builtins:exec"},
        {"partial": {"object": "os:system"}, "arguments": ["true"], "options": {}},
        {"object": "nnlab.ops.formats:functools"},
        {"object": "nnlab.ops.formats:dataclasses.replace"},
        {"made": "optax:no_such_schedule", "options": {}},
        {"made": "optax:constant_schedule", "options": {"values": 1.0}},
        {"arithmetic": "dorefa", "arguments": [99, 3]},
        {"arithmetic": "ADDER", "with": {"sums": 1}},
        {"arithmetic": "Arithmetic"},
    ],
)
def test_forged_names_are_refused(forged):
    with pytest.raises(InputError):
        Reader().value(forged)
