"""Learning from a stream, against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from online import learn_online, score_streams

from nnlab import training
from nnlab.errors import InputError


def toy_step(state, batch):
    """Learns by adding, so that no gradient has to be compiled; a row sees weight and carry."""
    x, (y, counts) = batch
    weight, carry = state.params["weight"], state.carry["sum"]
    rows = counts * (weight * x[..., 0] + carry[:, None])
    params = {"weight": weight + (counts * y).mean()}
    carried = {"sum": carry + (counts * x[..., 0]).sum(axis=1)}
    return state._replace(step=state.step + 1, params=params, carry=carried), {"row": rows}


def toy_state(key, inputs):
    params, zero = {"weight": jax.random.uniform(key)}, jnp.zeros((), jnp.int32)
    return training.State(zero, params, {}, (), key, {"sum": np.zeros(len(inputs), np.float32)})


def test_rows_are_scored_before_they_are_learned_and_held_states_keep_all_but_the_carry():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(6, 1, 4)).astype(np.float32) for _ in range(2))
    blocks = x[..., None], (y, np.ones_like(y))
    learns = np.array([True, True, False, True, False, False])
    first = toy_state(jax.random.key(0), x[0])
    end, metrics = jax.jit(lambda *given: learn_online(toy_step, *given))(first, blocks, learns)
    weight, carried = float(first.params["weight"]), 0.0
    for number, wanted in enumerate(learns):
        expected = weight * x[number] + carried
        np.testing.assert_allclose(metrics["row"][number], expected, rtol=1e-5, atol=1e-6)
        carried += x[number].sum()
        weight += y[number].mean() if wanted else 0.0
    np.testing.assert_allclose(end.params["weight"], weight, rtol=1e-5)
    np.testing.assert_allclose(end.carry["sum"], [carried], rtol=1e-5)
    assert end.step == 3


def stream_of(seed, rows):
    values = np.random.default_rng(seed).normal(size=rows + 1).astype(np.float32)
    return values[:-1, None], (values[1:], np.ones(rows))


@pytest.mark.parametrize(("late", "bounds"), [(False, ()), (True, (10, 50))])
def test_streams_of_different_length_are_scored_as_each_alone_by_hand(late, bounds):
    streams, key = [stream_of(4, 22), stream_of(5, 13), stream_of(6, 9)], jax.random.key(0)
    options = {"metric": "row", "block": 4, "passes": 2, "late": late, "bounds": bounds}
    found = score_streams(toy_step, toy_state, key, streams, [9, 4, 3], **options)
    assert [len(each) for each in found] == [22, 13, 9]
    step = jax.jit(toy_step)
    for k, (x, (y, _)), early, rows in zip(
        jax.random.split(key, 3), streams, (2, 1, 0), found, strict=True
    ):
        end = -len(x) % 4
        blocks = [np.pad(a, [(0, end), *[(0, 0)] * (a.ndim - 1)]) for a in (x, y, np.ones(len(x)))]
        x, y, counts = (a.reshape(-1, 1, 4, *a.shape[1:]) for a in blocks)
        state = first = toy_state(k, x[0])
        for _ in range(2):  # passes over the early blocks
            for i in range(early):
                state, _ = step(state, (x[i], (y[i], counts[i])))
            state = state._replace(carry=first.carry)
        expected = []
        for i in range(len(x)):
            after, metrics = step(state, (x[i], (y[i], counts[i])))
            state = after if late or i < early else state._replace(carry=after.carry)
            expected.append(metrics["row"][0])
        expected = np.concatenate(expected)[: len(rows)]
        np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-5)


def test_inputs_may_be_a_tree():
    def step(state, batch):
        inputs, labels = batch
        return state, {"row": inputs["a"] * inputs["b"][:, 0] + labels}

    def empty(key, inputs):
        assert {name: leaf.shape for name, leaf in inputs.items()} == {"a": (4,), "b": (4, 2)}
        return training.State(jnp.int32(0), {}, {}, (), key)

    a, b, labels = np.arange(10.0), np.arange(20.0).reshape(10, 2), np.ones(10)
    streams = [({"a": each, "b": b[: len(each)]}, labels[: len(each)]) for each in (a, a[:6])]
    found = score_streams(
        step, empty, jax.random.key(0), streams, [0, 0], metric="row", block=4, recurrent=False
    )
    for rows in found:
        np.testing.assert_array_equal(rows, (a * b[:, 0] + 1)[: len(rows)])
    assert [*map(len, found)] == [10, 6]


def test_bad_input_is_named():
    streams, key = [stream_of(0, 8)], jax.random.key(0)
    with pytest.raises(InputError, match="block=0 and 1 numbers"):
        score_streams(toy_step, toy_state, key, streams, [2], metric="row", block=0)
    with pytest.raises(InputError, match="2 numbers of early rows were given for 1"):
        score_streams(toy_step, toy_state, key, streams, [2, 2], metric="row", block=4)
