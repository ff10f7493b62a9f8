"""The functions that the page calls, and the JavaScript that is printed from them.

Each is a few calls of nnlab's own layers, losses and optimisers for one layer or one array of
weights; `nnlab/playground/browser/engine.js` puts them together as `nnlab.training.train_step`
does, which the tests compare.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nnlab.layers.normalization import batch_norm
from nnlab.optim import adder_rate, clip_latent_weights
from nnlab.playground import data
from nnlab.playground.network import (
    ACTIVATIONS,
    ARITHMETICS,
    LOSSES,
    OPTIMIZERS,
    kernel_name,
    regularize,
)
from nnlab.playground.primitives import PRELUDE
from nnlab.playground.printer import print_function
from nnlab.playground.rules import RULES

Entry = tuple[Callable[..., Any], dict[str, str]]


def product(arithmetic: str, x: jax.Array, w: jax.Array) -> jax.Array:
    """Return the product of a dense layer: x [batch, in] by weights w [in, out]."""
    layer: Any = ARITHMETICS[arithmetic].dense(w.shape[1], use_bias=False)
    return layer.apply({"params": {kernel_name(arithmetic): w}}, x)


def _cotangents(function: Callable[..., jax.Array], *arguments: jax.Array) -> tuple[jax.Array, ...]:
    *primals, g = arguments
    return jax.vjp(function, *primals)[1](g)


def _norm(train: bool, y, scale, bias, mean, var):
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    if not train:
        return batch_norm(False).apply(variables, y)
    z, updates = batch_norm(True).apply(variables, y, mutable=["batch_stats"])
    return z, updates["batch_stats"]["mean"], updates["batch_stats"]["var"]


def _norm_cotangents(train, y, scale, bias, mean, var, g):
    def normed(y, scale, bias):
        return jax.tree.leaves(_norm(train, y, scale, bias, mean, var))[0]

    return _cotangents(normed, y, scale, bias, g)


def _loss_gradient(loss, outputs, targets):
    return jax.value_and_grad(loss)(outputs, targets)


def state_shapes(name: str) -> list[str]:
    """Return the sizes of the numbers that an optimiser keeps for weights of n numbers."""
    state = OPTIMIZERS[name](0.1).init(jnp.ones(3))
    leaves = jax.tree.leaves(state)
    assert all(not leaf.any() for leaf in leaves), f"{name} does not start from zeros"
    return [
        ("n" if leaf.ndim else "") + (":int32" if leaf.dtype == jnp.int32 else "")
        for leaf in leaves
    ]


def _update(name, g, w, rate, *leaves):
    optimizer = OPTIMIZERS[name](rate)
    structure = jax.tree.structure(OPTIMIZERS[name](0.1).init(jnp.ones(3)))
    updates, state = optimizer.update(g, jax.tree.unflatten(structure, leaves), w)
    return updates, *jax.tree.leaves(state)


def _rescaled(g):
    return adder_rate().update(g, optax.EmptyState())[0]


def _clipped(u, w):
    return clip_latent_weights().update(u, optax.EmptyState(), w)[0]


def _points(name, index, u, v, du, dv, count, classes, noise):
    return data.points(name, index, (u, v, du, dv), count, classes, noise)


def entries() -> dict[str, Entry]:
    """Return the functions by their names in the page, with the sizes of their arguments."""
    found: dict[str, Entry] = {}
    matrices = {"x": "b,i", "w": "i,o"}
    for name in ARITHMETICS:
        of = functools.partial(product, name)
        found[f"{name}_product"] = of, matrices
        found[f"{name}_cotangents"] = functools.partial(_cotangents, of), matrices | {"g": "b,o"}
    for name, activation in ACTIVATIONS.items():
        found[f"{name}_activation"] = activation, {"x": "n"}
        back = functools.partial(_cotangents, activation)
        found[f"{name}_cotangent"] = back, {"x": "n", "g": "n"}
    found["add_bias"] = jnp.add, {"y": "b,o", "bias": "o"}
    found["bias_cotangent"] = lambda g: g.sum(0), {"g": "b,o"}
    norm = {"y": "b,o", "scale": "o", "bias": "o", "mean": "o", "variance": "o"}
    found["norm_train"] = functools.partial(_norm, True), norm
    found["norm_eval"] = functools.partial(_norm, False), norm
    for each, train in (("train", True), ("eval", False)):
        back = functools.partial(_norm_cotangents, train)
        found[f"norm_{each}_cotangents"] = back, norm | {"g": "b,o"}
    pair = {"outputs": "b,o", "targets": "b,o"}
    for name, loss in LOSSES.items():
        found[f"{name}_loss"] = loss, pair
        found[f"{name}_gradient"] = functools.partial(_loss_gradient, loss), pair
    found["softmax"] = nn.softmax, {"outputs": "b,o"}
    found["regularize"] = regularize, {"g": "n", "w": "n", "l1": "", "l2": ""}
    found["adder_rate"] = _rescaled, {"g": "n"}
    found["clip_latent"] = _clipped, {"u": "n", "w": "n"}
    for name in OPTIMIZERS:
        state = {f"state{k}": shape for k, shape in enumerate(state_shapes(name))}
        update = {"g": "n", "w": "n", "rate": "", **state}
        found[f"{name}_update"] = functools.partial(_update, name), update
    found["apply_updates"] = optax.apply_updates, {"w": "n", "u": "n"}
    seeded = {"index": "n:uint32", "seed": ":uint32", "stream": ":uint32"}
    for each in (data.words, data.uniform, data.normal):
        found[f"random_{each.__name__}"] = each, seeded
    found["features"] = data.features, {"xy": "n,2"}
    drawn = {"index": "n:uint32", **dict.fromkeys(("u", "v", "du", "dv"), "n")}
    drawn |= dict.fromkeys(("count", "classes", "noise"), "")
    for name in data.SETS:
        found[f"{name}_points"] = functools.partial(_points, name), drawn
    for name, rule in RULES.items():
        found[f"{name}_potential_w"] = rule.of_w, {"x": "n", "w": "n"}
        found[f"{name}_potential_x"] = rule.of_x, {"x": "n", "w": "n"}
    return found


@functools.cache
def printed() -> str:
    """Return the JavaScript of all functions, as a block that ends with the object `lab`."""
    texts = {name: print_function(name, *entry) for name, entry in entries().items()}
    body = "\n".join([PRELUDE, *texts.values()])
    names = "".join(f"  {name},\n" for name in texts)
    return f'const lab = (() => {{\n"use strict";\n{body}\nreturn {{\n{names}}};\n}})();\n'
