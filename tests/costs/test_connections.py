"""Connections of layers against lists written by hand."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from nnlab.costs.connections import connections
from nnlab.errors import InputError
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.recurrent import GRUCell


def graph_of(model, *shape, levels=None):
    inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    return connections(model, variables, inputs, levels)


def named(graph, feedback=False):
    names = [node.name for node in graph.nodes]
    return {(names[e.source], names[e.target]) for e in graph.edges if e.feedback == feedback}


def worded(graph):
    """Connections with their words."""
    names = [node.name for node in graph.nodes]
    return sorted((names[e.source], names[e.target], ", ".join(e.words)) for e in graph.edges)


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Dense(4, name="b")(nn.relu(nn.Dense(4, name="a")(x)))
        return nn.Dense(2, name="c")(nn.relu(y + x))


def test_a_residual_block():
    graph = graph_of(Residual(), 4)
    assert named(graph) == {
        *{("input", "a"), ("a", "b"), ("b", "+"), ("input", "+"), ("+", "c"), ("c", "output")}
    }
    words = {(e.source, e.target): e.words for e in graph.edges}
    place = {node.name: number for number, node in enumerate(graph.nodes)}
    assert words[place["a"], place["b"]] == words[place["+"], place["c"]] == ("ReLU",)
    assert graph.nodes[place["+"]].shape == (1, 4)


def test_shortcuts_of_a_chain_of_blocks_stay_apart():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(x + nn.Dense(4)(x))

    chain = nn.Sequential([Block(), Block()])
    graph = graph_of(chain, 4)
    assert [node.kind for node in graph.nodes].count("junction") == 2
    assert [e[:2] for e in graph.edges] == [(0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4), (4, 5)]
    assert named(graph_of(chain, 4, levels=1)) == {
        *{("input", "layers_0"), ("layers_0", "layers_1"), ("layers_1", "output")}
    }


def test_an_activation_that_feeds_two_ways_and_a_gate():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (1, 1), name="first")(x))
            y = nn.Conv(4, (3, 3), name="conv")(x)
            gate = nn.sigmoid(nn.Dense(4, name="gate")(y.mean((1, 2), keepdims=True)))
            return nn.Dense(2, name="last")(nn.relu(x + y * gate))

    assert worded(graph_of(Block(), 4, 4, 2)) == [
        ("*", "+", ""),
        ("+", "last", "ReLU"),
        ("conv", "*", ""),
        ("conv", "gate", "mean"),
        ("first", "+", "ReLU"),
        ("first", "conv", "ReLU"),
        ("gate", "*", "sigmoid"),
        ("input", "first", ""),
        ("last", "output", ""),
    ]


def test_ways_without_layers_that_meet():
    class Pooled(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(2, (1, 1), name="a")(x))
            ways = [nn.max_pool(x, (4, 4)).mean((1, 2)), x.mean((1, 2))]
            return nn.Dense(2, name="b")(jnp.concatenate(ways, -1))

    assert worded(graph_of(Pooled(), 4, 4, 2)) == [
        ("a", "concatenate", "ReLU, maximum of windows, mean"),
        ("a", "concatenate", "ReLU, mean"),
        ("b", "output", ""),
        ("concatenate", "b", ""),
        ("input", "a", ""),
    ]


def test_sums_are_one_junction_unless_something_is_between():
    class Sums(nn.Module):
        @nn.compact
        def __call__(self, x):
            a, b, c, d, e = (nn.Dense(2, name=name)(x) for name in "abcde")
            s = a + b + c
            return nn.relu(s) + d, s - e

    edges = [edge for edge in worded(graph_of(Sums(), 2)) if edge[0] != "input"]
    assert edges == [
        ("+", "+", "ReLU"),
        ("+", "-", ""),
        ("+", "output 0", ""),
        ("-", "output 1", ""),
        *((name, "+", "") for name in "abcd"),
        ("e", "-", ""),
    ]


def test_branches_that_are_concatenated():
    class Inception(nn.Module):
        @nn.compact
        def __call__(self, x):
            a = nn.Conv(2, (1, 1), name="a")(x)
            b = nn.Conv(3, (3, 3), name="b")(nn.Conv(2, (1, 1), name="reduce")(x))
            pooled = nn.max_pool(x, (3, 3), (1, 1), "SAME")
            c = GroupedConv(nn.Conv, 2, 2, (1, 1), name="c")(pooled)
            return jnp.concatenate([a, b, c, x], -1)

    graph = graph_of(Inception(), 4, 4, 2)
    assert named(graph) == {
        *{("input", "a"), ("input", "reduce"), ("reduce", "b"), ("input", "c")},
        *{(name, "concatenate") for name in ("a", "b", "c", "input")},
        ("concatenate", "output"),
    }
    assert next(e.words for e in graph.edges if graph.nodes[e.target].name == "c") == (
        "maximum of windows",
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_a_gru(reverse):
    graph = graph_of(nn.RNN(GRUCell(3), reverse=reverse), 7, 2)
    gates = next(node.name for node in graph.nodes if node.kind == "junction")
    assert {"+", "*"} <= set(gates.split())
    assert named(graph) == {
        *{("input", "cell/input"), ("cell/input", gates), ("cell/recurrent", gates)},
        (gates, "output"),
    }
    assert named(graph, feedback=True) == {(gates, "cell/recurrent"), (gates, gates)}


def test_flax_cells_and_whole_cells():
    graph = graph_of(nn.RNN(nn.SimpleCell(3)), 7, 2)
    assert named(graph) == {
        *{("input", "cell/i"), ("cell/i", "+"), ("cell/h", "+"), ("+", "output")}
    }
    assert named(graph, feedback=True) == {("+", "cell/h")}
    graph = graph_of(nn.RNN(nn.LSTMCell(3)), 7, 2, levels=1)
    assert named(graph) == {("input", "cell"), ("cell", "output")}
    assert named(graph, feedback=True) == {("cell", "cell")}


def test_words_of_a_state():
    class Step(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            y = nn.Dense(3, name="h")(carry) + nn.Dense(3, name="i")(x)
            return nn.tanh(y), nn.relu(y)

    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"variable_broadcast": "params", "split_rngs": {"params": False}}
            step = nn.scan(Step, **axes)(name="step")
            return step(jnp.zeros((3,)), x[0])[1]

    graph = graph_of(Loop(), 7, 2)
    assert worded(graph) == [
        ("+", "output", "ReLU"),
        ("+", "step/h", "tanh"),
        ("input", "step/i", ""),
        ("step/h", "+", ""),
        ("step/i", "+", ""),
    ]
    assert named(graph, feedback=True) == {("+", "step/h")}


def test_a_layer_that_is_a_loop_feeds_itself():
    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x):
            start = self.param("start", nn.initializers.zeros, x.shape[-1:])
            return lax.scan(lambda c, x: (0.5 * c + x, c), start, x[0])[1]

    graph = graph_of(nn.Sequential([nn.Dense(3), Sum()]), 7, 2)
    assert named(graph) == {("input", "layers_0"), ("layers_0", "layers_1"), ("layers_1", "output")}
    assert named(graph, feedback=True) == {("layers_1", "layers_1")}


def test_attention_and_several_inputs_and_outputs():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.MultiHeadAttention(2, name="t")(x["a"]), nn.Dense(2, name="d")(x["b"])

    inputs = {name: jax.ShapeDtypeStruct((1, 3, 4), jnp.float32) for name in "ab"}
    variables = jax.eval_shape(Model().init, jax.random.key(0), inputs)
    graph = connections(Model(), variables, inputs)
    found = named(graph)
    assert ("product", "product", "softmax") in worded(graph)
    assert found == {
        *{("input['a']", f"t/{name}") for name in ("query", "key", "value")},
        *{(f"t/{name}", "product") for name in ("query", "key", "value")},
        *{
            ("product", "product"),
            ("product", "t/out"),
            ("t/out", "output 0"),
            ("input['b']", "d"),
            ("d", "output 1"),
        },
    }


def test_a_loop_in_a_loop():
    """The inner state begins as the outer one: what comes back is feedback, not a circle."""

    class Cell(nn.Module):
        @nn.compact
        def __call__(self, state, x):
            state = nn.tanh(nn.Dense(4, name="in")(x) + nn.Dense(4, name="back")(state))
            return state, None

    def repeated(cell):
        return nn.scan(cell, variable_broadcast="params", split_rngs={"params": False})

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, state, x):
            return repeated(Cell)(name="c")(state, x)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1, name="last")(repeated(Outer)(name="o")(jnp.zeros(4), x[0])[0])

    graph = graph_of(Model(), 2, 3, 8)
    assert named(graph) == {
        *{("input", "o/c/in"), ("o/c/in", "+"), ("o/c/back", "+"), ("+", "last")},
        ("last", "output"),
    }
    assert named(graph, feedback=True) == {("+", "o/c/back")}


def test_weights_of_each_step_of_a_loop():
    """Flax traces such a loop for its shapes as well, which leaves equations without results."""

    class Step(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.relu(nn.Dense(4)(x)), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes: Any = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            x, _ = nn.scan(Step, length=3, **axes)(name="steps")(x, None)
            return nn.Dense(2, name="last")(x)

    assert named(graph_of(Model(), 4)) == {("input", "last"), ("last", "output")}


def test_a_model_without_parameters():
    assert named(graph_of(nn.Sequential([nn.relu, jnp.sin]), 4)) == {
        ("input", "(model)"),
        ("(model)", "output"),
    }


def test_levels_are_checked():
    with pytest.raises(InputError, match="levels must be an integer of at least 1, not 0"):
        graph_of(Residual(), 4, levels=0)
