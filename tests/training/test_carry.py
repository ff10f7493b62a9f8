"""The state that recurrent layers carry from batch to batch: truncated back-propagation."""

import os
import subprocess
import sys
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.layers import Recurrent, SimpleCell
from nnlab.runs import restore, save
from nnlab.training import State, cross_entropy, init, train_step, train_steps

RNG = np.random.default_rng(0)
STREAMS, LENGTH, STEPS = 2, 3, 4
ROWS = STREAMS * STEPS
DATA = (
    RNG.normal(size=(ROWS, LENGTH, 2)).astype(np.float32),
    RNG.integers(0, 3, (ROWS, LENGTH)).astype(np.int32),
)
SGD = optax.sgd(0.5)
KEY = jax.random.key(0)


class Net(nn.Module):
    """A recurrent layer and a classifier of every step."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(3)(Recurrent(SimpleCell(4))(x))


STEP = train_step(Net(), SGD)
START = init(KEY, Net(), SGD, DATA[0], streams=STREAMS)
RUN = jax.jit(train_steps(STEP, STREAMS, shuffle=False))


def same_bits(a, b):
    chex.assert_trees_all_equal(
        *(state._replace(key=jax.random.key_data(state.key)) for state in (a, b))
    )


def test_init_makes_zeros_for_every_stream():
    assert jax.tree.map(jnp.shape, START.carry) == {"Recurrent_0": {"state": (2, 4)}}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(START.carry))
    assert init(KEY, Net(), SGD, DATA[0]).carry == ()

    class Still(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            return nn.Dense(3)(x)

    with pytest.raises(InputError, match=r"^Still has no recurrent layer that carries a state"):
        init(KEY, Still(), SGD, DATA[0], streams=2)


def test_an_epoch_is_truncated_back_propagation_by_hand():
    """A window after the other, the gradient of each with the state before it a constant."""

    @jax.jit
    def by_hand(params, carry, x, labels):
        def loss(params):
            y, after = Net().apply({"params": params, "carry": carry}, x, mutable=["carry"])
            return cross_entropy(y, labels), after["carry"]

        grads, after = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), after

    state, params = START, START.params
    for _ in range(2):
        carry = jax.tree.map(np.zeros_like, START.carry)
        for step in range(STEPS):
            rows = slice(step * STREAMS, (step + 1) * STREAMS)
            params, carry = by_hand(params, carry, DATA[0][rows], DATA[1][rows])
        state, _ = RUN(state, DATA, STEPS)
        # Eight steps of float32 sums of a dozen terms below 1, in two programs.
        chex.assert_trees_all_close((state.params, state.carry), (params, carry), atol=2e-6)
    assert state.step == 8


def test_an_epoch_begins_with_zeros_and_a_step_within_it_does_not():
    def with_carry(state, value):
        carry = jax.tree.map(lambda leaf: np.full_like(leaf, value), state.carry)
        return state._replace(carry=carry)

    same_bits(RUN(with_carry(START, 0.5), DATA, 2)[0], RUN(START, DATA, 2)[0])
    second = RUN(START, DATA, STEPS)[0]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(second.carry))
    same_bits(RUN(with_carry(second, 0.5), DATA, 1)[0], RUN(second, DATA, 1)[0])
    within = RUN(START, DATA, 1)[0]
    a, b = (RUN(each, DATA, 1)[0] for each in (with_carry(within, 0.5), within))
    assert np.not_equal(*(each.params["Dense_0"]["kernel"] for each in (a, b))).any()


@pytest.mark.parametrize("counts", [[4], [1, 1, 1, 1], [3, 100]])
def test_pieces_of_any_length_have_the_same_bits(counts):
    state = START
    for count in counts:
        state, _ = RUN(state, DATA, count)
    same_bits(state, RUN(START, DATA, STEPS)[0])


def test_a_run_that_goes_on_within_an_epoch_has_the_same_bits(tmp_path):
    whole = RUN(RUN(START, DATA, STEPS)[0], DATA, STEPS)[0]
    seventh = RUN(RUN(START, DATA, STEPS)[0], DATA, STEPS - 1)[0]
    save(tmp_path / "seventh", seventh)
    same_bits(RUN(restore(tmp_path / "seventh", START), DATA, STEPS)[0], whole)


class OldState(NamedTuple):
    """The fields that a state had before there was a carry."""

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    key: Any


def test_a_checkpoint_from_before_there_was_a_carry(tmp_path):
    state = START._replace(carry=())
    save(tmp_path / "old", OldState(*state[:5]))
    fresh = jax.tree.map(lambda p: jnp.asarray(np.ones(p.shape, p.dtype), p.dtype), state.params)
    loaded = restore(tmp_path / "old", state._replace(params=fresh))
    assert isinstance(loaded, State)
    same_bits(loaded, state)
    with pytest.raises(InputError, match=r"carry\['Recurrent_0'\].* is absent in it, not float32"):
        restore(tmp_path / "old", START)


@pytest.mark.parametrize("skipping", [False, True])
def test_a_step_that_is_not_finite_leaves_the_carry(skipping):
    optimizer = optax.apply_if_finite(SGD, 3) if skipping else SGD
    step = jax.jit(train_step(Net(), optimizer))
    state = START._replace(opt_state=optimizer.init(START.params))
    state, _ = step(state, (DATA[0][:2], DATA[1][:2]))
    inputs = DATA[0][2:4].copy()
    inputs[0, 2, 0] = np.nan
    after, metrics = step(state, (inputs, DATA[1][2:4]))
    chex.assert_trees_all_equal(after.carry, state.carry)
    chex.assert_trees_all_equal(after.params, state.params)
    assert (metrics["nonfinite"] < 0) == skipping and after.step == state.step + skipping


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"axis_name": "data"}])
def test_a_carry_needs_whole_batches(options):
    step = train_step(Net(), SGD, **options)
    with pytest.raises(InputError, match=r"^a carried state needs accumulate=1 and no axis_name"):
        step(START, (DATA[0][:2], DATA[1][:2]))


def test_batches_of_another_size_than_the_streams_are_refused():
    sentence = r"^the carried state must be of shapes \[\(4, 4\)\], not \[\(2, 4\)\]"
    with pytest.raises(InputError, match=sentence):
        STEP(START, (DATA[0][:4], DATA[1][:4]))


ON_A_MESH = """
import jax, jax.numpy as jnp, numpy as np, optax
import flax.linen as nn
from nnlab.layers import LSTMCell, Recurrent
from nnlab.training import data_mesh, in_memory, init, parallel, train_step

jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 4

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        layer = Recurrent(LSTMCell(4, dtype=jnp.float64))
        return nn.Dense(3, dtype=jnp.float64)(layer(x))

rng = np.random.default_rng(0)
data = rng.normal(size=(24, 3, 2)), rng.integers(0, 3, (24, 3)).astype(np.int32)
data = jax.tree.map(jnp.asarray, data)
sgd = optax.sgd(0.5)
step = train_step(Net(), sgd)
ends = []
for mesh in (None, data_mesh(jax.devices()[:2]), data_mesh()):
    state = init(jax.random.key(0), Net(), sgd, data[0], streams=8)
    if mesh is not None:
        state = parallel.replicate(state, mesh)
    with in_memory(data, 8, shuffle=False).compile(step, state, mesh) as advance:
        for _ in range(4):
            state, metrics = advance(state, 2)
    assert state.step == 6 and np.isfinite(metrics["loss"]).all()
    ends.append((state.params, state.carry))
for end in ends[1:]:
    # Six steps of float64 sums of 24 terms of about 1; what one rounds otherwise may grow tenfold.
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(ends[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=6 * 24 * 10 * 2.0**-53)
        assert a.dtype == b.dtype and np.any(a)
"""


@pytest.mark.slow
def test_on_several_devices_a_carry_is_that_of_one():
    xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    flags = {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_A_MESH]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
