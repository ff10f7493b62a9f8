"""Recurrent networks: their size and cost, what each option changes, symbols as one-hot inputs."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from nnlab import training
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.costs import count, stored_bytes
from nnlab.costs.summary import summarize
from nnlab.errors import InputError
from nnlab.files import borrow, lend
from nnlab.layers import GravesLSTMCell, GRUCell, LSTMCell, SimpleCell
from nnlab.models import LanguageModel, RecurrentNet, load_model
from nnlab.sequences.recurrent_net import torch_names

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
KEY = jax.random.key(0)
GOLDEN = Path(__file__).parent / "golden"
BATCH, TIME, M, N, K = 2, 5, 3, 8, 4
X: Any = np.random.default_rng(0).normal(size=(BATCH, TIME, M)).astype(np.float32)
SYMBOLS: Any = np.array([[0, 4, 2], [3, 3, 1]], np.int32)


def shapes(model, x=X):
    return jax.eval_shape(model.init, KEY, x)


def size(model, x=X):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, x)))


def test_parameters():
    assert size(LanguageModel(65), SYMBOLS) == 279_873
    classifier = K * (N + 1)
    first, later = 4 * N * (M + N + 1), 4 * N * (2 * N + 1)
    assert size(RecurrentNet(K, N, 3)) == first + 2 * later + classifier
    assert size(RecurrentNet(K, N, 1, GravesLSTMCell)) == first + 3 * N + classifier
    assert size(RecurrentNet(K, N, 1, GRUCell)) == 3 * N * (M + N + 1) + N + classifier
    ways = 2 * first + 2 * 4 * N * (3 * N + 1) + K * (2 * N + 1)
    assert size(RecurrentNet(K, N, 2, bidirectional=True)) == ways


PRODUCTS = TIME * BATCH * (M + 3 * N) * 4 * N  # terms of the cells of two layers
OUTPUTS = TIME * BATCH * N * K  # and of the classifier
# A step of a unit: the two products and the bias are added, then f c + i g; three products; three
# gates and two tanh.
STEPS = TIME * BATCH * N * 2


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_loop_counts_as_often_as_it_runs(bidirectional):
    if bidirectional:
        model, inputs = RecurrentNet(K, N, 1, bidirectional=True), M
        products, steps = 2 * TIME * BATCH * (inputs + N) * 4 * N, STEPS
        outputs = TIME * BATCH * 2 * N * K
    else:
        model, products, steps, outputs = RecurrentNet(K, N, 2), PRODUCTS, STEPS, OUTPUTS
    counts = count(model.apply, shapes(model), X)
    assert counts.multiplications == {"float32": products + outputs + 3 * steps}
    bias = TIME * BATCH * K
    assert counts.additions == {"float32": products + outputs + bias + (2 * 4 + 1) * steps}
    assert counts.other == {"float32": 5 * steps} and not counts.unknown


def test_adders_and_signs_in_a_loop_are_counted_as_such():
    floats, adders, signs = (
        count(model.apply, shapes(model), X)
        for model in (RecurrentNet(K, N, arithmetic=each) for each in (FLOAT, ADDER, BINARY))
    )
    for counts in (adders, signs):
        assert not counts.unknown
        rest = floats.multiplications["float32"] - PRODUCTS
        assert counts.multiplications == {"float32": rest}
    assert adders.additions["float32"] == floats.additions["float32"] + PRODUCTS
    assert signs.bit_operations == {"bool": PRODUCTS} and signs.additions["int8"] == PRODUCTS


def test_signs_are_stored_as_bits():
    """4 n (m + 3 n) weights of the cells are signs, the rest float32."""
    model: Any = RecurrentNet(K, N, arithmetic=BINARY)
    bits, rest = 4 * N * (M + 3 * N), 2 * 4 * N + K * (N + 1)
    assert stored_bytes(model.apply, shapes(model), X) == bits // 8 + 4 * rest


def test_the_lines_of_a_summary_add_up():
    model: Any = RecurrentNet(K, N, arithmetic=ADDER)
    summary = summarize(model, shapes(model), X)
    whole = count(model.apply, shapes(model), X)
    assert summary.total.operations == whole
    assert sum(summary.total.parameters.values()) == size(model)


def test_a_symbol_is_a_one_hot_input(random_variables):
    """The embedding E and the product W of the first layer are the product E W of one-hot."""
    model: Any = LanguageModel(5, N, 1)
    plain: Any = RecurrentNet(5, N, 1)
    params = random_variables(model, SYMBOLS)["params"]
    net = dict(params["network"])
    first = params["embedding"]["embedding"] @ net["cell1"]["input"]["kernel"]
    net["cell1"] = net["cell1"] | {"input": {"kernel": first}}
    expected = jit(plain.apply)({"params": net}, np.eye(5, dtype=np.float32)[SYMBOLS])
    # Three steps of float32 sums of eight terms of about 1, in another order.
    found = jit(model.apply)({"params": params}, SYMBOLS)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_lengths_the_features_and_both_ways(random_variables):
    model: Any = RecurrentNet(K, N, 1, bidirectional=True)
    variables = random_variables(model, X)

    @jit
    def apply(x, lengths):
        return model.apply(variables, x, lengths=lengths, mutable=["intermediates"])

    lengths, whole = np.array([5, 2]), np.array([5, 5])
    y, seen = jax.tree.map(np.asarray, apply(X, lengths))
    (features,) = seen["intermediates"]["features"]
    assert features.shape == (BATCH, TIME, 2 * N) and not features[1, 2:].any()
    later = X.copy()
    later[1, 2:] = 9  # beyond the length of the second
    np.testing.assert_array_equal(y[:, :2], np.asarray(apply(later, lengths)[0])[:, :2])
    assert (y[1, :2] != np.asarray(apply(later, whole)[0])[1, :2]).any()  # from the end


def test_outputs_are_float32_at_least_and_dropout_is_of_training(random_variables):
    model: Any = RecurrentNet(K, N, 1, dtype=jnp.bfloat16)
    variables = random_variables(model, X)

    def outputs(train, **rates):
        other: Any = dataclasses.replace(model, **rates)
        return other.apply(variables, X, train=train, rngs={"dropout": KEY})

    both = {"dropout": 0.5, "recurrent_dropout": 0.5}
    y, same, dropped, stilled = jit(
        lambda: (
            outputs(False),
            outputs(False, **both),
            outputs(True, dropout=0.5),
            outputs(True, recurrent_dropout=0.5),
        )
    )()
    assert y.dtype == jnp.float32 and np.array_equal(y, same)
    assert np.not_equal(dropped, y).any() and np.not_equal(stilled, y).any()


@pytest.mark.parametrize(
    "model",
    [
        LanguageModel(5, 2, 1, GRUCell, ADDER, norm=True, dropout=0.1),
        RecurrentNet(3, 2, 2, bidirectional=True),
    ],
    ids=["language", "recurrent"],
)
def test_files_of_an_earlier_version(request, model):
    """The class and all fields are those that version 0.1.0 saved, and so are the parameters."""
    saved = load_model(GOLDEN / f"{request.node.callspec.id}.safetensors")
    assert saved.model == model
    x = SYMBOLS if isinstance(model, LanguageModel) else X[..., :2]
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes(model, x))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), saved.variables) == expected


@pytest.mark.slow
def test_a_network_learns_what_only_a_state_can_tell():
    """The output at every step is the first input: of the steps alone half can be guessed."""

    def make(key):
        bits = jax.random.bernoulli(key, shape=(32, 6)).astype(jnp.int32)
        first = jnp.broadcast_to(bits[:, :1], bits.shape)
        return jax.nn.one_hot(bits, 2), first

    model, adam = RecurrentNet(2, 8, 1), optax.adam(0.02)
    state = training.init(KEY, model, adam, make(KEY)[0])
    run = jax.jit(training.generated_steps(training.train_step(model, adam), make, 300))
    _, metrics = run(state, 300)
    assert metrics["accuracy"][-20:].mean() > 0.99


class TorchNet(torch.nn.Module):
    """A user's module: symbols, a recurrent layer and a linear one, all of them with biases."""

    def __init__(self, kind, layers, bidirectional):
        super().__init__()
        torch.manual_seed(0)
        self.symbols = torch.nn.Embedding(5, N)
        options = {"bidirectional": bidirectional, "batch_first": True}
        self.rnn = getattr(torch.nn, kind)(N, N, layers, **options)
        self.out = torch.nn.Linear(2 * N if bidirectional else N, 5)

    def forward(self, x):
        return self.out(self.rnn(self.symbols(x))[0])


@pytest.mark.parametrize(
    ("kind", "cell", "bidirectional"),
    [("LSTM", LSTMCell, True), ("GRU", GRUCell, False), ("RNN", SimpleCell, False)],
)
def test_weights_of_pytorch_give_its_outputs(kind, cell, bidirectional):
    theirs = TorchNet(kind, 2, bidirectional)
    state_dict = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    embedded = jnp.asarray(state_dict["symbols.weight"])[SYMBOLS]
    if bidirectional:
        del state_dict["symbols.weight"]
        model: Any = RecurrentNet(5, N, 2, cell, bidirectional=True)
    else:
        model, embedded = LanguageModel(5, N, 2, cell), SYMBOLS
    names = torch_names(model, "rnn", "out", "symbols")
    borrowed = borrow(shapes(model, embedded), state_dict, names)
    with torch.no_grad():
        expected = theirs(torch.tensor(SYMBOLS)).numpy()
    assert np.ptp(expected, axis=(0, 1)).min() > 0.01
    np.testing.assert_allclose(jit(model.apply)(borrowed, embedded), expected, rtol=0, atol=1e-6)
    again = borrow(shapes(model, embedded), lend(borrowed, names), names)
    jax.tree.map(np.testing.assert_array_equal, borrowed, again)


def test_weights_of_another_recurrent_layer_are_refused():
    theirs = TorchNet("LSTM", 1, False)
    state_dict = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    for model, said in (
        (LanguageModel(5, N, 1, GRUCell), "rnn.bias_ih_l0 has shape [32], in the order here [32]"),
        (
            LanguageModel(5, N, 2),
            "LanguageModel, which needs rnn.bias_hh_l1, rnn.bias_ih_l1, rnn.weight_hh_l1 …",
        ),
        (LanguageModel(5, N, 1, norm=True), "no entry for network/cell1/cell_norm/scale"),
    ):
        with pytest.raises(InputError) as error:
            borrow(shapes(model, SYMBOLS), state_dict, torch_names(model, "rnn", "out", "symbols"))
        assert said in str(error.value)
