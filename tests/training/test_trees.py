"""Trees of arrays as inputs and labels train as one array does that holds the same numbers.

Each case has a network of a tree. Packed, all arrays of an example lie in one row of floats, which
the same network unpacks first: the reference is then a training on a single array.
"""

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.data import Stream
from nnlab.errors import InputError
from nnlab.layers import LSTMCell, Recurrent
from nnlab.runs import RunFolder, fit, least_loss
from nnlab.training import parallel
from nnlab.training.steps import Step

N, BATCH = 14, 4  # three steps an epoch
RNG = np.random.default_rng(0)
SGD = optax.sgd(0.5, 0.9)


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
    "dict": ({"values": numbers(4, 3), "scale": numbers()}, LABELS),
    "ids and mask": ((whole(5, 4), mask(4)), LABELS),
    "graph": (Graph(numbers(4, 2), whole(4, 5), whole(4, 5), mask(4)), LABELS),
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


class Case(NamedTuple):
    """The same data and network twice: as trees, and with inputs that are one array."""

    data: Any
    model: Net
    state: training.State
    single: Any
    reference: Net

    @classmethod
    def named(cls, name: str) -> "Case":
        data = jax.tree.map(jnp.asarray, CASES[name])
        rows, unpack = packed(CASES[name][0])
        state = training.init(jax.random.key(0), Net(), SGD, data[0])
        return cls(data, Net(), state, (jnp.asarray(rows), data[1]), Net(unpack))


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return Case.named(request.param)


@pytest.fixture(scope="module")
def graph() -> Case:
    return Case.named("graph")


def step_of(model: Net, **options: Any) -> Step:
    return training.train_step(model, SGD, loss, metrics=error, **options)


def same(given: Any, expected: Any) -> None:
    """One computation in two programs, which may round otherwise."""
    chex.assert_trees_all_close(*map(comparable, (given, expected)), rtol=1e-5, atol=1e-6)


def comparable(tree: Any) -> Any:
    keys = jax.dtypes.prng_key
    return jax.tree.map(
        lambda a: jax.random.key_data(a) if jnp.issubdtype(jnp.result_type(a), keys) else a, tree
    )


def test_init_is_that_of_one_array(case):
    reference = training.init(jax.random.key(0), case.reference, SGD, case.single[0])
    chex.assert_trees_all_equal(comparable(case.state), comparable(reference))


def test_a_step_is_that_of_one_array_also_in_parts(case):
    expected = jax.jit(step_of(case.reference))(case.state, case.single)
    for parts in (1, 2):
        same(jax.jit(step_of(case.model, accumulate=parts))(case.state, case.data), expected)
    for before, after in zip(
        *map(jax.tree.leaves, (case.state.params, expected[0].params)), strict=True
    ):
        assert jnp.abs(after - before).max() > 1e-4


def record(state: training.State, batch: Any) -> Any:
    """A step that reports its batch."""
    leaves = enumerate(jax.tree.leaves(batch))
    seen = {str(number): leaf for number, leaf in leaves}
    return state._replace(step=state.step + 1), seen


def rows_seen(seen: Any, data: Any) -> list[int]:
    """Which example each one seen is, [steps, batch, ...], checked in all its arrays."""
    structure = jax.tree.structure(data)
    seen = structure.unflatten(seen[str(number)] for number in range(structure.num_leaves))
    seen = jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), seen)
    target = np.asarray(data[1]["target"])
    rows = [int(np.flatnonzero((target == each).all(1))[0]) for each in seen[1]["target"]]
    taken = jax.tree.map(lambda a: np.asarray(a)[np.array(rows)], data)
    chex.assert_trees_all_equal(seen, taken)
    chex.assert_trees_all_equal_dtypes(seen, taken)
    return rows


@dataclass
class Rows:
    """Records of trees."""

    data: Any

    def __len__(self):
        return N

    def __getitem__(self, index):
        return jax.tree.map(lambda a: np.asarray(a)[index], self.data)


def in_memory(data: Any) -> training.Feed:
    return training.in_memory(data, BATCH)


def generated(data: Any) -> training.Feed:
    def make(key):
        chosen = jax.random.choice(key, N, (BATCH,), replace=False)
        return jax.tree.map(lambda a: a[chosen], data)

    return training.generated(make, 3)


def streamed(data: Any) -> training.Feed:
    return training.streamed(Stream(Rows(data), BATCH, seed=1))


@pytest.mark.parametrize("feed", [in_memory, generated, streamed])
def test_every_feed_keeps_the_arrays_of_an_example_together(case, feed):
    feed = feed(case.data)
    assert feed.batch_size == BATCH
    empty = training.State(jnp.int32(0), {}, {}, (), jax.random.key(0))
    with feed.compile(record, empty, None) as advance:
        _, seen = advance(empty, 2)
    rows = rows_seen(seen, case.data)
    assert len(rows) == 2 * BATCH and len({*rows[:BATCH]}) == BATCH


def test_an_epoch_visits_whole_examples_once(case):
    empty = training.State(jnp.int32(0), {}, {}, (), jax.random.key(0))
    rows = rows_seen(training.train_epoch(record, BATCH)(empty, case.data)[1], case.data)
    assert len(rows) == len({*rows}) == 3 * BATCH


def test_a_stream_transforms_the_tree_of_inputs(graph):
    stream = Stream(Rows(graph.data), BATCH, seed=1, transform=lambda inputs: inputs.nodes)
    with contextlib.closing(stream.batches()) as batches:
        nodes, labels = next(batches)
    (row,) = np.flatnonzero((np.asarray(graph.data[1]["target"]) == labels["target"][2]).all(1))
    np.testing.assert_array_equal(nodes[2], graph.data[0].nodes[row])


@pytest.mark.parametrize("size", [5, 50])
def test_evaluation_is_that_of_one_array(case, size):
    given = training.evaluation(case.model, loss, size, metrics=error)(case.state, case.data)
    outputs = case.reference.apply({"params": case.state.params}, case.single[0])
    same(given, {"loss": loss(outputs, case.data[1]), **error(outputs, case.data[1])})


def test_in_batches_gives_back_a_tree(case):
    given = training.in_batches(lambda tree: {"again": tree}, case.data, 5)
    chex.assert_trees_all_equal(given, {"again": case.data})


def test_augmentation_gets_the_whole_tree(graph):
    def shift(key, inputs):
        return inputs._replace(nodes=inputs.nodes + jax.random.normal(key, ()))

    state = graph.state
    key, _ = jax.random.split(jax.random.fold_in(jax.random.fold_in(state.key, 1), 0))
    given = jax.jit(step_of(graph.model, augment=shift))(state, graph.data)
    shifted = shift(key, graph.data[0]), graph.data[1]
    same(given, jax.jit(step_of(graph.model))(state, shifted))


@dataclass
class Config:
    learning_rate: float = 0.5


def test_a_run_resumes_to_the_bit(tmp_path, monkeypatch):
    module = importlib.import_module("nnlab.runs.fit")
    monkeypatch.setattr(module, "_EXAMPLES", 7)  # two pieces of the test data
    case = Case.named("ids and mask")
    evaluate = training.evaluation(case.model, loss, metrics=error)

    def run(folder, epochs):
        trained = fit(
            "net",
            case.state,
            step_of(case.model),
            evaluate,
            in_memory(case.data),
            case.data,
            epochs=epochs,
            folder=folder,
            score=least_loss,
        )
        history = {k: each for k, each in trained.history.items() if k != "seconds"}
        return comparable(trained.last), history

    whole, cut = (RunFolder.create(tmp_path / name, Config()) for name in ("a", "b"))
    through = run(whole, 2)
    run(cut, 1)
    chex.assert_trees_all_equal(run(RunFolder(cut.path, resume=True), 2), through)
    state, history = through
    tested = evaluate(case.state._replace(params=state.params), case.data)
    assert history["test_loss"][-1] == pytest.approx(float(tested["loss"]), rel=1e-5)


class Sequences(nn.Module):
    """A recurrent network of values, of which some are not known."""

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        x = jnp.where(inputs["known"][..., None], inputs["values"], 0)
        return nn.Dense(1)(Recurrent(LSTMCell(3))(x))[..., 0]


def test_long_evaluation_and_a_carried_state_take_trees():
    data = {"values": numbers(9, 2), "known": mask(9)}, {"target": numbers(9), "counts": mask(9)}
    data = jax.tree.map(jnp.asarray, data)
    state = training.init(jax.random.key(0), Sequences(), SGD, data[0], streams=N)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state.carry)} == {N}
    expected = training.evaluation(Sequences(), loss, metrics=error)(state, data)
    same(training.long_evaluation(Sequences(), loss, 4, metrics=error)(state, data), expected)
    unequal = data[0] | {"known": data[0]["known"][:, :8]}, data[1]
    with pytest.raises(InputError, match=r"axis 1.* has 8 .* has 9"):
        training.long_evaluation(Sequences(), loss, 4)(state, unequal)


UNEQUAL = (np.zeros((8, 4), np.int32), np.ones((6, 4), bool)), np.zeros(8)


@pytest.mark.parametrize(
    "use",
    [
        lambda state, step: training.init(jax.random.key(0), Net(), SGD, UNEQUAL[0]),
        lambda state, step: step_of(Net(), accumulate=2)(state, UNEQUAL),
        lambda state, step: training.steps_per_epoch(UNEQUAL, 2),
        lambda state, step: training.train_epoch(step, 2)(state, UNEQUAL),
        lambda state, step: training.in_memory(UNEQUAL, 2),
        lambda state, step: training.generated(lambda key: UNEQUAL, 2),
        lambda state, step: training.evaluation(Net(), loss)(state, UNEQUAL),
        lambda state, step: training.in_batches(lambda tree: tree[0], UNEQUAL, 2),
        lambda state, step: parallel.split(UNEQUAL, 2),
        lambda state, step: parallel.shard(UNEQUAL, training.data_mesh()),
        lambda state, step: parallel.on_mesh(step, training.data_mesh())(state, UNEQUAL),
    ],
)
def test_unequal_numbers_of_examples_are_refused(graph, use):
    with pytest.raises(InputError, match=r"has 8 .* has 6"):
        use(graph.state, step_of(Net()))


def on_two_devices() -> None:
    """In float64: every way to several devices is, but for rounding, the step on one."""
    jax.config.update("jax_enable_x64", True)
    mesh = training.data_mesh()
    assert mesh.size == 2
    data, model, state, *_ = Case.named("graph")
    batch = jax.tree.map(lambda a: a[:8], data)
    expected = jax.device_get(jax.jit(step_of(model))(state, batch))
    parts = step_of(model, axis_name="data", accumulate=2)
    for got in (
        parallel.on_mesh(step_of(model), mesh)(state, batch),
        parallel.per_device(parts, mesh)(state, parallel.shard(batch, mesh)),
        parallel.pmapped(parts)(state, parallel.split(batch, 2)),
    ):
        same(jax.device_get(got), expected)
    for feed in (in_memory, streamed):
        empty = training.State(jnp.int32(0), {}, {}, (), jax.random.key(0))
        with feed(data).compile(record, parallel.replicate(empty, mesh), mesh) as advance:
            rows_seen(advance(parallel.replicate(empty, mesh), 2)[1], data)
    data = jax.tree.map(lambda a: a[:13], data)  # one example is left over, and padded to two
    evaluate = training.evaluation(model, loss, 4, metrics=error, mesh=mesh)
    got = evaluate(parallel.replicate(state, mesh), parallel.replicate(data, mesh))
    same(got, training.evaluation(model, loss, metrics=error)(state, data))


@pytest.mark.slow
def test_on_two_simulated_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    on_two_devices()
