"""Layers of sequences: padding, the state from call to call, dropout, what is refused."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.layers import (
    Bidirectional,
    GRUCell,
    LSTMCell,
    Recurrent,
    SimpleCell,
    Stacked,
)

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
BATCH, TIME, M, N = 4, 6, 3, 5
X: Any = np.asarray(RNG.normal(size=(BATCH, TIME, M)), np.float32)
LENGTHS: Any = np.array([6, 4, 0, 4], np.int32)
# Of float32 sums of eight terms below 1, in two programs.
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def lstm(**options):
    return Recurrent(LSTMCell(N), **options)


def both():
    return Bidirectional(lstm(), lstm(reverse=True))


LAYERS = {
    "forward": lstm,
    "bidirectional": both,
    "stacked": lambda: Stacked([both(), both()]),
    "cell of Flax's": lambda: Recurrent(nn.GRUCell(N)),
}


@functools.cache
def shapes_of(name):
    return jax.eval_shape(LAYERS[name]().init, KEY, X)


def drawn(shapes):
    """Variables at random; with a bias that is not zero, an input of zeros changes the state."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: np.asarray(0.3 + 0.4 * rng.normal(size=leaf.shape), np.float32), shapes
    )


def variables_of(name):
    return drawn(shapes_of(name))


@pytest.mark.parametrize("name", ["bidirectional", slow("forward"), slow("cell of Flax's")])
def test_a_padded_batch_is_each_sequence_alone(name):
    run, variables, padded = jit(LAYERS[name]().apply), variables_of(name), X.copy()
    padded[1, 4:], padded[2], padded[3, 4:] = np.nan, 7.0, np.inf
    y = np.asarray(run(variables, padded, LENGTHS))
    for x, of_batch, length in zip(X, y, LENGTHS.tolist(), strict=True):
        assert not of_batch[length:].any()
        if 0 < length < TIME:
            close(of_batch[None, :length], run(variables, x[None, :length]))


@pytest.mark.parametrize("cell", [LSTMCell, *map(slow, (SimpleCell, GRUCell, nn.LSTMCell))])
def test_the_carried_state_is_that_at_the_end_of_each_sequence(cell):
    layer: Any = Recurrent(cell(N))
    variables = drawn(jax.eval_shape(layer.init, KEY, X))
    run = jit(functools.partial(layer.apply, mutable=["carry"]))
    after = jax.device_get(run(variables, X, LENGTHS)[1]["carry"]["state"])
    for row, length in enumerate(LENGTHS.tolist()):
        alone = [np.zeros(N)] * len(jax.tree.leaves(after))
        if length:
            alone = jax.tree.leaves(run(variables, X[row : row + 1, :length])[1])
        for leaf, expected in zip(jax.tree.leaves(after), alone, strict=True):
            close(leaf[row], np.ravel(expected))


@pytest.mark.parametrize("padding", [np.nan, slow(5.0), slow(np.inf)])
def test_gradients_do_not_see_padding(padding):
    layer, variables = LAYERS["bidirectional"](), variables_of("bidirectional")

    @jit
    def gradients(x):
        return jax.grad(lambda v, x: jnp.sum(jnp.sin(layer.apply(v, x, LENGTHS))), argnums=(0, 1))(
            variables, x
        )

    counts = np.arange(TIME) < LENGTHS[:, None]
    of_zeros, of_padding = (
        jax.device_get(gradients(np.where(counts[..., None], X, np.asarray(number, np.float32))))
        for number in (0, padding)
    )
    jax.tree.map(np.testing.assert_array_equal, of_padding, of_zeros)
    assert not of_padding[1][~counts].any() and of_padding[1][counts].all()


@pytest.mark.parametrize(
    ("cell", "pieces"),
    [
        (GRUCell, [5, 1]),
        *(slow(cell, [2, 4]) for cell in (SimpleCell, nn.LSTMCell)),
        slow(LSTMCell, [1] * 6),
    ],
)
def test_a_network_runs_on_where_it_stood(cell, pieces):
    layer: Any = Stacked([Recurrent(cell(N)), Recurrent(cell(N))])
    variables = drawn(jax.eval_shape(layer.init, KEY, X))
    run = jit(functools.partial(layer.apply, mutable=["carry"]))
    whole, end = run(variables, X)
    after, outputs = {}, []
    for x in np.split(X, np.cumsum(pieces[:-1]), axis=1):
        y, after = run(variables | after, x)
        outputs.append(y)
    close(np.concatenate(outputs, axis=1), whole)
    jax.tree.map(close, after, end)
    assert after["carry"].keys() == {"layers_0", "layers_1"}
    # A state that is given and not to be changed is where the call starts.
    again = jit(layer.apply)(variables | after, X[:, :1])
    assert np.abs(np.asarray(again) - np.asarray(whole)[:, :1]).max() > 0.01


def test_nothing_is_carried_unless_asked():
    layer: Any = lstm()
    variables = variables_of("forward")
    assert variables.keys() == {"params"}
    mutable = functools.partial(layer.apply, mutable=["batch_stats", "carry"])
    _, after = jit(mutable)(variables, X)
    assert after.keys() == {"carry"}
    backward: Any = lstm(reverse=True)
    mutable = functools.partial(backward.apply, mutable=["carry"])
    assert not jax.eval_shape(mutable, variables, X)[1]
    run = jit(backward.apply)
    assert np.array_equal(run(variables | after, X), run(variables, X))


def test_a_state_that_is_passed_on_has_a_gradient_where_it_is_not_held():
    """Truncation is that the state is given; nothing is cut behind the back."""
    layer: Any = lstm()

    @jit
    @jax.grad
    def through_the_state(params):
        after = layer.apply({"params": params}, X, mutable=["carry"])[1]
        stopped = jax.lax.stop_gradient(after)
        return layer.apply({"params": params} | after, X).sum() - (
            layer.apply({"params": params} | stopped, X).sum()
        )

    gradients = through_the_state(variables_of("forward")["params"])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_dropout_of_inputs_is_one_draw_a_sequence():
    layer: Any = Stacked([_Passing(), _Passing()], dropout=0.25)
    ones = np.ones((50, TIME, 40), np.float32)
    train = jit(lambda key: layer.apply({}, ones, train=True, rngs={"dropout": key}))
    y = np.asarray(train(KEY))
    assert (y == y[:, :1]).all()
    # Three draws, each one that scales what it leaves.
    np.testing.assert_allclose(np.unique(y), [0, 0.75**-3], rtol=1e-6)
    # 2,000 draws of 0.42: five standard deviations are 0.055.
    assert np.mean(y[:, 0] > 0) == pytest.approx(0.75**3, abs=0.055)
    assert np.array_equal(layer.apply({}, ones, train=False), ones)


class _Passing(nn.Module):
    @nn.compact
    def __call__(self, x, lengths=None, train=False):
        return x


def test_dropout_of_states_is_one_draw_a_sequence():
    """h' = tanh(1 + h) by a weight of one: a unit whose state is dropped stays at tanh 1, another
    goes on from its state over the rate kept."""
    layer: Any = Recurrent(SimpleCell(8), dropout=0.25)
    x, eye = np.zeros((250, TIME, 1), np.float32), np.eye(8, dtype=np.float32)
    params = {"input": {"kernel": eye[:1] * 0}, "recurrent": {"kernel": eye}}
    variables = {"params": {"cell": params | {"bias": np.ones(8, np.float32)}}}
    run = jit(lambda key: layer.apply(variables, x, train=True, rngs={"dropout": key}))
    y = np.asarray(run(KEY))
    dropped, kept = [np.tanh(1.0)] * TIME, [np.tanh(1.0)]
    for _ in range(TIME - 1):
        kept.append(np.tanh(1 + kept[-1] / 0.75))
    is_kept = y[:, 1] > (dropped[1] + kept[1]) / 2
    expected = np.where(is_kept[:, None], np.array(kept)[:, None], dropped[0])
    close(y, expected)
    # 2,000 draws of 0.75: five standard deviations are 0.048.
    assert np.mean(is_kept) == pytest.approx(0.75, abs=0.048)
    assert not np.array_equal(run(jax.random.key(1)), y)
    np.testing.assert_array_equal(
        jit(layer.apply)(variables, x), jit(Recurrent(SimpleCell(8)).apply)(variables, x)
    )


@pytest.mark.parametrize("shape", [(BATCH, 0, M), (0, TIME, M), (0, 0, M)])
def test_nothing_goes_in_and_nothing_comes_out(shape):
    layer, variables = LAYERS["stacked"](), shapes_of("stacked")
    for lengths in (None, jax.ShapeDtypeStruct(shape[:1], jnp.int32)):
        y = jax.eval_shape(layer.apply, variables, np.zeros(shape, np.float32), lengths)
        assert y.shape == (*shape[:2], 2 * N)


@pytest.mark.parametrize(
    ("x", "lengths", "sentence"),
    [
        (X[0], None, "takes [batch, time, features], not [6, 3]."),
        (X, LENGTHS[:3], "an integer for each of the 4 sequences, not int32[3]."),
        (X, LENGTHS[:, None], "an integer for each of the 4 sequences, not int32[4, 1]."),
        (X, np.ones(4, np.float32), "an integer for each of the 4 sequences, not float32[4]."),
        (X, np.asarray([7, 4, 0, 4], np.int32), "from 0 to the 6 steps, not from 0 to 7."),
        (X, np.asarray([-1, 4, 0, 4], np.int32), "from 0 to the 6 steps, not from -1 to 4."),
    ],
)
def test_bad_shapes_and_lengths_are_named(x, lengths, sentence):
    with pytest.raises(InputError) as error:
        lstm().apply(variables_of("forward"), x, lengths)
    assert str(error.value).endswith(sentence)


def test_lengths_that_are_not_known_before_the_program_runs_are_cut_to_what_there_is():
    run = jit(lstm().apply)
    far = run(variables_of("forward"), X, np.asarray([99, 6, -5, 0], np.int32))
    near = run(variables_of("forward"), X, np.asarray([6, 6, 0, 0], np.int32))
    assert np.array_equal(far, near)


def test_a_state_of_another_batch_is_refused():
    variables = variables_of("forward")
    mutable = functools.partial(lstm().apply, mutable=["carry"])
    after = jax.eval_shape(mutable, variables, X)[1]
    sentence = r"^the carried state must be of shapes \[\(1, 5\), \(1, 5\)\], not \[\(4, 5\), \(4"
    with pytest.raises(InputError, match=sentence):
        jax.eval_shape(lstm().apply, variables | after, X[:1])


def test_dropout_of_the_states_of_another_cell_is_refused():
    layer: Any = Recurrent(nn.LSTMCell(N), dropout=0.5)
    variables = jax.eval_shape(layer.init, KEY, X)
    train = functools.partial(layer.apply, train=True, rngs={"dropout": KEY})
    with pytest.raises(InputError, match=r"needs a cell of nnlab\.layers, not LSTMCell\."):
        jax.eval_shape(train, variables, X)
