"""The Neural Turing Machine: its size, a run by loops in float64, its state, refusals."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, NAMED
from nnlab.errors import InputError
from nnlab.layers import GravesLSTMCell, GRUCell, LSTMCell
from nnlab.models import NTM
from nnlab.sequences.algorithmic_tasks import copy
from nnlab.sequences.episode_scores import bits_per_sequence
from nnlab.sequences.ntm import Unrolled

KEY = jax.random.key(0)
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICK)
SMALL: dict[str, Any] = {"width": 5, "locations": 6, "size": 3}


def single(values):
    return np.asarray(values, np.float32)


def double(values):
    return np.asarray(values, np.float64)


def shapes(model, inputs):
    x = jax.ShapeDtypeStruct((1, 2, inputs), jnp.float32)
    return jax.eval_shape(model.init, KEY, x)["params"]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def random_params(model, inputs, seed=0):
    """Float32 parameters of unit variance, so that every gate is somewhere else."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes(model, inputs)
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def by_loops(params, x, model):
    """Logits and weightings of one sequence [time, m], float64, a head after the other."""
    params = jax.tree.map(double, params)
    cell, size, locations = params["cell"], model.size, model.locations
    heads, taps = model.read_heads + model.write_heads, 2 * model.reach + 1
    memory = np.full((locations, size), model.fill)
    reads = np.tanh(params["first_reads"])
    weightings = [softmax(row) for row in params["first_weightings"]]
    carry = [(np.zeros(model.width), np.zeros(model.width)) for _ in range(model.layers)]
    logits, seen = [], []
    for step in double(x):
        h = np.concatenate([step, *reads])
        for n in range(model.layers):
            layer = cell[f"controller{n + 1}"]
            if model.controller is None:
                h = np.tanh(h @ layer["kernel"] + layer["bias"])
                continue
            c, last = carry[n]
            kernels = layer["input"]["kernel"], layer["recurrent"]["kernel"]
            i, f, g, o = np.split(h @ kernels[0] + last @ kernels[1] + layer["bias"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            carry[n] = c, h
        said = np.clip(h @ cell["heads"]["kernel"] + cell["heads"]["bias"], -model.clip, model.clip)
        per_head = size + 3 + taps
        for head in range(heads):
            z = said[head * per_head : (head + 1) * per_head]
            key, (beta, gate, gamma) = np.tanh(z[:size]), z[size : size + 3]
            beta, gate, gamma = np.log1p(np.exp(beta)), sigmoid(gate), 1 + np.log1p(np.exp(gamma))
            similar = np.zeros(locations)
            for i in range(locations):
                norms = (key @ key + 1e-8) * (memory[i] @ memory[i] + 1e-8)
                similar[i] = key @ memory[i] / np.sqrt(norms)
            gated = gate * softmax(beta * similar) + (1 - gate) * weightings[head]
            shifts = softmax(z[size + 3 :])
            moved = sum(shifts[k] * np.roll(gated, k - model.reach) for k in range(taps))
            weightings[head] = moved**gamma / (moved**gamma).sum()
        reads = np.array([w @ memory for w in weightings[: model.read_heads]])
        writes = said[heads * per_head :].reshape(2, model.write_heads, size)
        for w, erase in zip(weightings[model.read_heads :], writes[0], strict=True):
            memory = memory * (1 - np.outer(w, sigmoid(erase)))
        for w, add in zip(weightings[model.read_heads :], writes[1], strict=True):
            memory = memory + np.outer(w, np.tanh(add))
        output = cell["output"]
        logits.append(np.concatenate([h, *reads]) @ output["kernel"] + output["bias"])
        seen.append(np.array(weightings))
    return np.array(logits), np.array(seen), memory


def test_parameters():
    # (9 + 20 + 1) 100 + 101 (2 (20 + 6) + 40) + 8 (100 + 20 + 1) + 20 + 2 · 128
    assert count(shapes(NTM(8), 9)) == 3000 + 9292 + 968 + 276 == 13_536
    # 4 · 100 (9 + 20 + 100 + 1) in place of the 3000.
    assert count(shapes(NTM(8, LSTMCell), 9)) == 62_536
    model = NTM(2, width=5, layers=3, read_heads=2, write_heads=3, locations=7, size=4, reach=2)
    # 5 (3 + 8 + 1) + 2 · 30, 6 (5 · (4 + 4 + 4) + 2 · 3 · 4), 2 (5 + 8 + 1), 2 · 4 + 5 · 7.
    assert count(shapes(model, 3)) == 60 + 60 + 6 * (60 + 24) + 28 + 8 + 35


def close_to_loops(model, params, x, unrolled):
    """Float32 rounds by 6e-8; five steps of sharpened softmaxes raise that some hundredfold."""
    unrolled = jax.tree.map(np.asarray, unrolled)
    for n in range(len(x)):
        found = unrolled.logits[n], unrolled.weightings[n], unrolled.state.memory[n]
        for array, expected in zip(found, by_loops(params, x[n], model), strict=True):
            np.testing.assert_allclose(array, expected, rtol=0, atol=5e-5)


X = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)


def test_a_run_is_that_of_loops():
    model: Any = NTM(2, layers=2, read_heads=2, write_heads=2, reach=2, **SMALL)
    params = random_params(model, 4)
    run = jit(lambda params: model.apply({"params": params}, X, method="unroll"))
    close_to_loops(model, params, X, run(params))


def test_steps_alone_are_those_of_loops():
    model: Any = NTM(2, LSTMCell, layers=2, clip=1.0, **SMALL)
    params = random_params(model, 4)
    variables = {"params": params}
    state = jit(lambda: model.apply(variables, len(X), method="start"))()
    step = jit(lambda x, state: model.apply(variables, x, state, method="unroll"))
    steps = []
    for time in range(X.shape[1]):
        *outputs, state = step(X[:, time : time + 1], state)
        steps.append(outputs)
    whole: Any = [np.concatenate(parts, axis=1) for parts in zip(*steps, strict=True)]
    close_to_loops(model, params, X, Unrolled(whole[0], whole[1], state))


def test_weightings_are_sown():
    model: Any = NTM(2, read_heads=3, write_heads=2, **SMALL)
    _, made = jax.eval_shape(
        lambda: model.init_with_output(KEY, X, mutable=["params", "intermediates"])
    )
    assert jax.tree.map(jnp.shape, made["intermediates"]) == {
        "read_weightings": ((2, 5, 3, 6),),
        "write_weightings": ((2, 5, 2, 6),),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"controller": GravesLSTMCell, "arithmetic": ADDER, "norm": True}]
)
def test_a_gradient_reaches_every_parameter_and_is_finite_at_the_start(options):
    model: Any = NTM(3, **{**SMALL, **options})
    inputs, labels = copy(KEY, 2, (3, 3), bits=3)

    def gradients(key):
        params = model.init(key, inputs)["params"]
        return jax.grad(lambda p: bits_per_sequence(model.apply({"params": p}, inputs), labels))(
            params
        )

    grads = jit(gradients)(KEY)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(leaf).all() and leaf.any(), path


def test_another_arithmetic_in_the_controller():
    arithmetic = NAMED["binary_connect_stochastic"]
    model: Any = NTM(2, GRUCell, arithmetic=arithmetic, norm=True, **SMALL)
    x = np.zeros((2, 3, 4), np.float32)

    def gradients(key):
        params = model.init({"params": key, "dropout": key}, x)["params"]

        def total(params):
            return model.apply({"params": params}, x, train=True, rngs={"dropout": key}).sum()

        return jax.grad(total)(params), params

    grads, params = jax.eval_shape(gradients, KEY)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    kernels = [k for k in params["cell"]["controller1"] if "kernel" in k or k == "recurrent"]
    assert kernels and set(params["cell"]["heads"]) == {"kernel", "bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, r"width must be an integer of at least 1, not 0\."),
        ({"write_heads": -1}, r"write_heads must be an integer of at least 1, not -1\."),
        ({"locations": 3, "reach": 4}, r"reach must be from 0 to the 3 locations, not 4\."),
    ],
)
def test_options_that_it_refuses(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        jax.eval_shape(NTM(2, **options).init, KEY, np.ones((1, 2, 3), np.float32))


def test_inputs_that_it_refuses():
    with pytest.raises(InputError, match=r"\[batch, time, features\], not \[2, 3\]\."):
        jax.eval_shape(NTM(2).init, KEY, np.ones((2, 3), np.float32))
