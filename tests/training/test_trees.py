"""Trees of arrays as inputs and labels train as one array does that holds the same numbers.

Each case has a network of a tree. Packed, all arrays of an example lie in one row of floats, which
the same network unpacks first: the reference is then a training on a single array.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.errors import InputError
from nnlab.training import parallel

N = 8
RNG = np.random.default_rng(0)
SGD = optax.sgd(0.5)


class Graph(NamedTuple):
    """Padded graphs: nodes [batch, nodes, m], edges by their ends, and which nodes there are."""

    nodes: Any
    senders: Any
    receivers: Any
    mask: Any


class Net(nn.Module):
    """One output a node, or token, or example; `unpack` makes the tree of packed inputs."""

    unpack: Callable[[Any], Any] | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        dtype = jnp.result_type(float)
        inputs = inputs if self.unpack is None else self.unpack(inputs)
        if isinstance(inputs, Graph):
            h = nn.Dense(3, param_dtype=dtype)(inputs.nodes)
            messages = jnp.take_along_axis(h, inputs.senders[..., None], axis=1)
            h += jax.vmap(lambda m, at: jnp.zeros_like(h[0]).at[at].add(m))(
                messages, inputs.receivers
            )
            h = jnp.where(inputs.mask[..., None], jnp.tanh(h), 0)
        elif isinstance(inputs, tuple):
            ids, mask = inputs
            h = jnp.where(mask[..., None], nn.Embed(5, 3, param_dtype=dtype)(ids), 0)
        else:
            h = jnp.tanh(inputs["values"]) * inputs["scale"][:, None, None]
        return nn.Dense(1, param_dtype=dtype)(h)[..., 0]


def loss(outputs: jax.Array, labels: Any) -> jax.Array:
    return jnp.mean(labels["counts"] * jnp.square(outputs - labels["target"]))


def error(outputs: jax.Array, labels: Any) -> dict[str, jax.Array]:
    return {"error": jnp.mean(jnp.abs(outputs - labels["target"]))}


def numbers(*shape: int) -> np.ndarray:
    return RNG.normal(size=(N, *shape)).astype(np.float32)


def mask(*shape: int) -> np.ndarray:
    return RNG.random((N, *shape)) < 0.7


def whole(largest: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, largest, (N, *shape)).astype(np.int32)


LABELS = {"target": numbers(4), "counts": mask(4)}
CASES = {
    "dict": {"values": numbers(4, 3), "scale": numbers()},
    "ids and mask": (whole(5, 4), mask(4)),
    "graph": Graph(numbers(4, 2), whole(4, 5), whole(4, 5), mask(4)),
}


def packed(tree: Any) -> tuple[np.ndarray, Callable[[Any], Any]]:
    """One float array [n, numbers] of a tree, and the way back."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]

    def unpack(rows: jax.Array) -> Any:
        return structure.unflatten(
            part.reshape(-1, *leaf.shape[1:]).astype(leaf.dtype)
            for part, leaf in zip(jnp.split(rows, ends, axis=1), leaves, strict=True)
        )

    rows = [leaf.reshape(len(leaf), -1).astype(np.float32) for leaf in leaves]
    return np.concatenate(rows, axis=1), unpack


def backwards(tree: Any) -> Any:
    return jax.tree.map(lambda a: a[::-1], tree)


@pytest.mark.parametrize("name", CASES)
def test_training_and_evaluation_are_those_of_one_array(name):
    inputs = CASES[name]
    rows, unpack = packed(CASES[name])
    options: Any = {"metrics": error, "augment": lambda key, inputs: backwards(inputs)}
    step = training.train_step(Net(), SGD, loss, accumulate=2, **options)
    reference = training.train_step(Net(unpack), SGD, loss, **options)
    state = training.init(jax.random.key(0), Net(), SGD, inputs)
    after, metrics = jax.jit(step)(state, (inputs, LABELS))
    expected, measured = jax.jit(reference)(state, (rows, LABELS))
    # Sums of a few dozen float32 numbers of about 1, in two programs.
    chex.assert_trees_all_close(
        (after.params, metrics), (expected.params, measured), rtol=1e-5, atol=1e-6
    )
    for before, moved in zip(*map(jax.tree.leaves, (state.params, after.params)), strict=True):
        assert np.abs(np.subtract(moved, before)).max() > 1e-4
    evaluate = training.evaluation(Net(), loss, 5, metrics=error)
    evaluated = evaluate(state, (backwards(inputs), LABELS))
    chex.assert_trees_all_close(
        evaluated, {key: measured[key] for key in evaluated}, rtol=1e-5, atol=1e-6
    )


class Messages(nn.Module):
    """Nodes [nodes, m] that add up what edges [edges, 2] bring them; no axis of examples."""

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        nodes, edges = inputs
        h = nn.Dense(3)(nodes)
        received = jax.ops.segment_sum(h[edges[:, 0]], edges[:, 1], len(nodes))
        return nn.Dense(2)(received)


def test_a_graph_of_nodes_and_edges_is_a_batch():
    inputs = np.eye(3, 4, dtype=np.float32), np.array([[0, 1], [1, 2], [2, 0], [0, 2], [1, 0]])
    labels = np.array([0, 1, 1])
    state = training.init(jax.random.key(0), Messages(), SGD, inputs)
    assert state.params["Dense_0"]["kernel"].shape == (4, 3)
    step, losses = jax.jit(training.train_step(Messages(), SGD)), []
    for _ in range(20):
        state, metrics = step(state, (inputs, labels))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]


UNEQUAL = (np.zeros((8, 4), np.int32), np.ones((6, 4), bool)), np.zeros(8)
STATE = training.State(jnp.int32(0), {}, {}, (), jax.random.key(0))


@pytest.mark.parametrize(
    "use",
    [
        lambda step: step(STATE, UNEQUAL),
        lambda step: training.steps_per_epoch(UNEQUAL, 2),
        lambda step: training.train_epoch(step, 2)(STATE, UNEQUAL),
        lambda step: training.in_memory(UNEQUAL, 2),
        lambda step: training.generated(lambda key: UNEQUAL, 2),
        lambda step: training.evaluation(Net(), loss)(STATE, UNEQUAL),
        lambda step: training.in_batches(lambda tree: tree[0], UNEQUAL, 2),
        lambda step: parallel.split(UNEQUAL, 2),
        lambda step: parallel.shard(UNEQUAL, training.data_mesh()),
        lambda step: parallel.on_mesh(step, training.data_mesh())(STATE, UNEQUAL),
    ],
)
def test_unequal_numbers_of_examples_are_refused(use):
    with pytest.raises(InputError, match=r"has 8 .* has 6"):
        use(training.train_step(Net(), SGD, loss, metrics=error, accumulate=2))
