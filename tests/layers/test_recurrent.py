"""Recurrent cells: those of Flax and of PyTorch with the same weights, and in any arithmetic."""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import kernels
from nnlab.arithmetics import (
    ADDER,
    BINARY,
    FLOAT,
    NAMED,
)
from nnlab.layers import (
    Bidirectional,
    GravesLSTMCell,
    GRUCell,
    LSTMCell,
    Recurrent,
    SimpleCell,
    Stacked,
)

BATCH, TIME, M, N = 3, 5, 4, 6
X: Any = np.random.default_rng(0).normal(size=(BATCH, TIME, M))
CELLS = SimpleCell, GRUCell, LSTMCell, GravesLSTMCell
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
GATES = {
    SimpleCell: [""],
    GRUCell: ["r", "z", "n"],
    LSTMCell: ["i", "f", "g", "o"],
    GravesLSTMCell: ["i", "f", "g", "o"],
}


def random_like(tree, seed=1, scale=0.5):
    """Float64 values in the place of every leaf."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: scale * rng.normal(size=leaf.shape), tree)


def parameters(layer, x=X, seed=1):
    shapes = jax.eval_shape(layer.init, jax.random.key(0), np.asarray(x, np.float32))
    return random_like(shapes["params"], seed)


def as_flax(cell, params):
    """Our parameters under the names that Flax has for each gate."""
    names, found = GATES[cell], {}
    part = functools.partial(jnp.split, indices_or_sections=len(names), axis=-1)
    bias_at = "h" if cell is LSTMCell else "i"
    for side, layer in (("i", "input"), ("h", "recurrent")):
        for name, kernel in zip(names, part(params[layer]["kernel"]), strict=True):
            found[side + name] = {"kernel": kernel}
    for name, bias in zip(names, part(params["bias"]), strict=True):
        found[bias_at + name]["bias"] = bias
    if cell is GRUCell:
        found["hn"]["bias"] = params["recurrent_bias"]
    return found


@pytest.mark.parametrize(
    ("cell", "flax"),
    [
        pytest.param(SimpleCell, nn.SimpleCell, marks=pytest.mark.slow),
        (GRUCell, nn.GRUCell),
        (LSTMCell, nn.OptimizedLSTMCell),
    ],
)
def test_in_float_a_cell_is_that_of_flax(cell, flax):
    with jax.enable_x64(True):
        x = jnp.asarray(X)
        ours: Any = Recurrent(cell(N, dtype=jnp.float64))
        wide: Any = flax(N, dtype=jnp.float64, param_dtype=jnp.float64)
        params = parameters(ours)["cell"]

        def loss(apply, params):
            y = apply({"params": {"cell": params}}, x)
            return jnp.sum(jnp.sin(y)), y

        def of(apply, rename=lambda params: params):
            return jit(jax.grad(lambda p: loss(apply, rename(p)), has_aux=True))(params)

        rename = functools.partial(as_flax, cell)
        grads, y = of(ours.apply)
        expected = of(nn.RNN(wide).apply, rename)
        # Float64 rounding of five steps with weights of about 1.
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-13)
        jax.tree.map(close, (grads, y), expected)
        variables = {"params": {"cell": params}}
        theirs: Any = nn.RNN(cell(N, dtype=jnp.float64))
        close(jit(theirs.apply)(variables, x), y)
        variables = {"params": {"cell": jit(rename)(params)}}
        theirs = Recurrent(wide)
        close(jit(theirs.apply)(variables, x), y)


def as_torch(cell, params, suffix):
    """The same under PyTorch's names, with everything of `bias` in the input's."""
    import torch

    arrays = {
        "weight_ih": params["input"]["kernel"].T,
        "weight_hh": params["recurrent"]["kernel"].T,
    }
    arrays["bias_ih"], arrays["bias_hh"] = params["bias"], np.zeros_like(params["bias"])
    if cell is GRUCell:
        arrays["bias_hh"][2 * N :] = params["recurrent_bias"]
    return {f"{name}_{suffix}": torch.tensor(np.array(a)) for name, a in arrays.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "kind"), [(LSTMCell, "LSTM"), (GRUCell, "GRU")])
def test_stacked_both_ways_and_padded_is_that_of_pytorch(cell, kind):
    import torch

    lengths = np.array([5, 1, 3], np.int32)
    with jax.enable_x64(True):
        make = functools.partial(cell, N, dtype=jnp.float64)
        both = [Bidirectional(Recurrent(make()), Recurrent(make(), reverse=True)) for _ in range(2)]
        model: Any = Stacked(both)
        params = parameters(model)
        y = jit(model.apply)({"params": params}, jnp.asarray(X), jnp.asarray(lengths))
    peer = getattr(torch.nn, kind)(
        M, N, 2, bidirectional=True, batch_first=True, dtype=torch.float64
    )
    state = {}
    for layer in range(2):
        for way, suffix in (("forward", ""), ("backward", "_reverse")):
            found = params[f"layers_{layer}"][way]["cell"]
            state |= as_torch(cell, jax.tree.map(np.asarray, found), f"l{layer}{suffix}")
    peer.load_state_dict(state)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(X), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    expected = torch.nn.utils.rnn.pad_packed_sequence(peer(packed)[0], batch_first=True)[0]
    np.testing.assert_allclose(y, expected.detach(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (SimpleCell, N * (M + N + 1)),
        (GRUCell, 3 * N * (M + N + 1) + N),
        (LSTMCell, 4 * N * (M + N + 1)),
        (GravesLSTMCell, 4 * N * (M + N + 1) + 3 * N),
    ],
)
def test_parameters_of_the_docstring(cell, expected):
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters(Recurrent(cell(N))))) == expected


def normalised(y, scale):
    y = y - y.mean(-1, keepdims=True)
    return scale * y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-6)


def test_a_normalised_lstm_is_that_of_ba_et_al():
    """Equations 20 to 22, and the peepholes of Graves with them."""
    with jax.enable_x64(True):
        layer: Any = Recurrent(GravesLSTMCell(N, norm=True, dtype=jnp.float64))
        params = parameters(layer)
        y = np.asarray(jit(layer.apply)({"params": params}, X))
    p = params["cell"]
    c, h = np.zeros((2, BATCH, N))

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    for step in range(TIME):
        a = normalised(X[:, step] @ p["input"]["kernel"], p["input_norm"]["scale"])
        a = a + normalised(h @ p["recurrent"]["kernel"], p["recurrent_norm"]["scale"]) + p["bias"]
        i, f, g, o = np.split(a, 4, axis=-1)
        i, f = i + p["input_peephole"] * c, f + p["forget_peephole"] * c
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o + p["output_peephole"] * c) * np.tanh(normalised(c, p["cell_norm"]["scale"]))
        np.testing.assert_allclose(y[:, step], h, rtol=0, atol=1e-12)


def test_peepholes_of_zero_are_none():
    params = parameters(Recurrent(GravesLSTMCell(N)))
    narrow = jax.tree.map(np.float32, params["cell"])
    with_zeros = {name: 0 * p if "peephole" in name else p for name, p in narrow.items()}
    without = {name: p for name, p in narrow.items() if "peephole" not in name}
    x = np.asarray(X, np.float32)
    graves, plain = (
        jit(Recurrent(cell(N)).apply)({"params": {"cell": params}}, x)
        for cell, params in ((GravesLSTMCell, with_zeros), (LSTMCell, without))
    )
    assert np.array_equal(graves, plain)


def start(cell):
    """Its parameters at the start, for 64 inputs."""
    init = jit(Recurrent(cell).init)
    return jax.device_get(init(jax.random.key(0), np.zeros((1, 1, 64), np.float32)))["params"][
        "cell"
    ]


def test_float_weights_start_as_those_of_flax():
    """LeCun's variance 1/m for inputs and an orthogonal matrix for each gate of the state."""
    params = start(LSTMCell(32, forget_bias=1.0))
    for part in np.split(params["recurrent"]["kernel"], 4, axis=1):
        np.testing.assert_allclose(part.T @ part, np.eye(32), atol=1e-5)
    # 8,192 draws: their variance is right to 1.6 % (one standard deviation), a sixth of the bound.
    assert np.var(params["input"]["kernel"]) * 64 == pytest.approx(1, abs=0.1)
    assert np.array_equal(params["bias"], np.repeat([0.0, 1.0, 0.0, 0.0], 32))
    chex.assert_trees_all_equal(params, start(LSTMCell(32, FLOAT.dense, forget_bias=1.0)))
    params = start(LSTMCell(3, kernel_init=nn.initializers.ones, recurrent_kernel_init=_twos))
    assert (params["input"]["kernel"] == 1).all() and (params["recurrent"]["kernel"] == 2).all()


def _twos(key, shape, dtype=jnp.float32):
    return jnp.full(shape, 2, dtype)


def test_other_weights_start_as_their_arithmetic_has_it():
    kernel = start(LSTMCell(32, ADDER.dense))["recurrent"]["adder_kernel"]
    assert np.std(kernel) == pytest.approx(1, abs=0.1)  # N(0, 1); 4,096 draws


# One of each kind: two arrays of weights, draws at random, a norm of its own.
KINDS = {"shift_ps", "binary_connect_stochastic", "adder"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in KINDS else pytest.mark.slow) for n in NAMED]
)
def test_every_arithmetic_has_a_gradient_of_all_parameters(name):
    layer: Any = Recurrent(GravesLSTMCell(N, NAMED[name].dense, norm=True))
    x = jnp.zeros((BATCH, TIME, M))

    def gradients(key):
        variables = layer.init(key, x)

        def loss(params):
            y = layer.apply({"params": params}, x, train=True, rngs={"dropout": key})
            assert y.shape == (BATCH, TIME, N)
            return y.sum()

        return jax.grad(loss)(variables["params"]), variables["params"]

    with kernels.use("cpu"):  # nothing to trace for other platforms
        grads, params = jax.eval_shape(gradients, jax.random.key(0))
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize(
    ("arithmetic", "cell"),
    [
        *(pytest.param(ADDER, cell, marks=pytest.mark.slow) for cell in CELLS),
        pytest.param(FLOAT, GravesLSTMCell, marks=pytest.mark.slow),
        (BINARY, GravesLSTMCell),
    ],
)
def test_gradients_are_finite_and_of_every_weight(arithmetic, cell):
    layer: Any = Recurrent(cell(N, arithmetic.dense, norm=True))
    x = np.asarray(X, np.float32)

    @jit
    @jax.grad
    def gradients(params):
        return jnp.square(layer.apply({"params": params}, x)).sum()

    found = jax.device_get(gradients(jax.tree.map(np.float32, parameters(layer))))
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all() and np.any(leaf, axis=0).all(), name


@pytest.mark.parametrize(
    "cell", [pytest.param(c, marks=[] if c is GRUCell else pytest.mark.slow) for c in CELLS]
)
def test_in_bfloat16_outputs_are_narrow_and_the_carry_is_not(cell):
    layer: Any = Recurrent(cell(N, dtype=jnp.bfloat16))
    x = X.astype(jnp.bfloat16)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    variables = jax.tree.map(np.float32, random_like(shapes, scale=0.3))
    y, after = jit(functools.partial(layer.apply, mutable=["carry"]))(variables, x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.float32)}
    expected = jit(Recurrent(cell(N)).apply)(variables, x.astype(np.float32))
    # Five steps, each of sums of ten products and gates that are rounded to 2^-9.
    np.testing.assert_allclose(np.asarray(y, float), expected, rtol=0, atol=5 * 10 * 2**-9)


def test_small_steps_add_up_in_a_bfloat16_cell():
    """c grows by 0.5 tanh(0.004) = 0.002 a step; at 1 a bfloat16 has steps of 0.0078."""
    layer: Any = Recurrent(LSTMCell(1, dtype=jnp.bfloat16))
    x = jnp.ones((1, 1000, 1), jnp.bfloat16)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    zeros["cell"]["bias"] = np.asarray([0, 30, 0.00390625, 0], np.float32)
    after = jit(functools.partial(layer.apply, mutable=["carry"]))({"params": zeros}, x)[1]
    c = after["carry"]["state"][0]
    # tanh of it is rounded to bfloat16 once, by 2^-9 of it at most.
    assert float(c[0, 0]) == pytest.approx(1000 * 0.5 * 0.00390625, rel=2**-8)
