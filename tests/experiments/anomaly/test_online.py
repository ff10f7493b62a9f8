"""Learning from a stream, against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from online import learn_online, score_streams

from nnlab import training
from nnlab.errors import InputError
from nnlab.models import NextValue
from nnlab.series.next_value import negative_log_likelihood, surprise

MODEL, OPTIMIZER = NextValue(3), optax.adam(1e-2)


def loss(outputs, labels):
    return negative_log_likelihood(outputs, labels).mean()


STEP = training.train_step(
    MODEL, OPTIMIZER, loss, metrics=lambda y, t: {"surprise": surprise(y, t)}
)


RUN = jax.jit(lambda *given: learn_online(STEP, *given))


def blocks_of(seed, blocks=6, rows=4):
    values = np.random.default_rng(seed).normal(size=blocks * rows + 1)
    values = jnp.asarray(values, jnp.float32)
    x, y = values[:-1].reshape(blocks, 1, rows, 1), values[1:].reshape(blocks, 1, rows)
    state = training.init(jax.random.key(seed), MODEL, OPTIMIZER, x[0], streams=1)
    return state, (x, y)


def test_rows_are_scored_before_they_are_learned_and_held_states_keep_all_but_the_carry():
    state, (x, y) = blocks_of(0)
    learns = np.array([True, True, False, True, False, False])
    end, metrics = RUN(state, (x, y), learns)
    one = jax.jit(STEP)
    params, opt_state, carry, step = state.params, state.opt_state, state.carry, state.step
    for number, wanted in enumerate(learns):
        variables = {"params": params, "carry": carry}
        outputs, after = MODEL.apply(variables, x[number], mutable=["carry"])
        expected = surprise(outputs, y[number])
        np.testing.assert_allclose(metrics["surprise"][number], expected, rtol=1e-5, atol=1e-6)
        if wanted:
            state = training.State(step, params, {}, opt_state, state.key, carry)
            state, _ = one(state, (x[number], y[number]))
            params, opt_state, step = state.params, state.opt_state, state.step
        carry = after["carry"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), end.params, params
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), end.carry, carry
    )
    assert end.step == 3


def test_what_comes_later_changes_nothing_before():
    state, (x, y) = blocks_of(1)
    learns = np.ones(6, bool)
    _, metrics = RUN(state, (x, y), learns)
    x2, y2 = x.at[4:].set(9.0), y.at[4:].set(-9.0)
    _, other = RUN(state, (x2, y2), learns)
    np.testing.assert_array_equal(metrics["surprise"][:4], other["surprise"][:4])
    assert np.all(metrics["surprise"][4] != other["surprise"][4])


def test_many_streams_mapped_are_each_on_its_own():
    each = [blocks_of(seed) for seed in (2, 3)]
    state, blocks = jax.tree.map(lambda *a: jnp.stack(a), *each)
    learns = np.ones((2, 6), bool)
    _, mapped = jax.jit(jax.vmap(lambda *a: learn_online(STEP, *a)))(state, blocks, learns)
    for number, (state, blocks) in enumerate(each):
        _, metrics = RUN(state, blocks, learns[0])
        np.testing.assert_allclose(
            mapped["surprise"][number], metrics["surprise"], rtol=1e-4, atol=1e-5
        )


def counted_loss(outputs, labels):
    return (labels[1] * negative_log_likelihood(outputs, labels[0])).mean()


COUNTED = training.train_step(
    MODEL, OPTIMIZER, counted_loss, metrics=lambda y, labels: {"row": surprise(y, labels[0])}
)


def fresh(key, inputs):
    return training.init(key, MODEL, OPTIMIZER, inputs, streams=1)


def stream_of(seed, rows):
    values = np.random.default_rng(seed).normal(size=rows + 1).astype(np.float32)
    return values[:-1, None], (values[1:], np.ones(rows))


def test_streams_of_different_length_are_scored_as_each_alone_by_hand():
    streams, key = [stream_of(4, 22), stream_of(5, 13), stream_of(6, 9)], jax.random.key(0)
    found = score_streams(
        COUNTED, fresh, key, streams, [9, 4, 3], metric="row", block=4, passes=2, bounds=(10, 50)
    )
    assert [len(each) for each in found] == [22, 13, 9]
    first_state, step = jax.jit(fresh), jax.jit(COUNTED)
    for k, (x, (y, _)), early, rows in zip(
        jax.random.split(key, 3), streams, (2, 1, 0), found, strict=True
    ):
        end = -len(x) % 4
        blocks = [np.pad(a, [(0, end), *[(0, 0)] * (a.ndim - 1)]) for a in (x, y, np.ones(len(x)))]
        x, y, counts = (a.reshape(-1, 1, 4, *a.shape[1:]) for a in blocks)
        state = first = first_state(k, x[0])
        for _ in range(2):  # passes over the early blocks
            for i in range(early):
                state, _ = step(state, (x[i], (y[i], counts[i])))
            state = state._replace(carry=first.carry)
        expected = []
        for i in range(len(x)):
            state, metrics = step(state, (x[i], (y[i], counts[i])))
            expected.append(metrics["row"][0])
        expected = np.concatenate(expected)[: len(rows)]
        np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-4)


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


def test_what_is_late_can_be_scored_without_being_learned():
    streams, key = [stream_of(7, 16)], jax.random.key(0)
    learnt, held = (
        score_streams(COUNTED, fresh, key, streams, [8], metric="row", block=4, late=late)[0]
        for late in (True, False)
    )
    np.testing.assert_array_equal(learnt[:12], held[:12])
    assert np.all(learnt[12:] != held[12:])


def test_bad_input_is_named():
    streams, key = [stream_of(0, 8)], jax.random.key(0)
    with pytest.raises(InputError, match="block=0 and 1 numbers"):
        score_streams(COUNTED, fresh, key, streams, [2], metric="row", block=0)
    with pytest.raises(InputError, match="2 numbers of early rows were given for 1"):
        score_streams(COUNTED, fresh, key, streams, [2, 2], metric="row", block=4)
