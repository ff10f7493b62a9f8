"""Stacked states train as each alone does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.errors import InputError


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(not train)(nn.Dense(5)(x))
        return nn.Dense(3)(nn.relu(x))


MODEL = Net()
OPTIMIZER = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9)
DATA = np.random.default_rng(0).normal(size=(22, 4)).astype(np.float32), np.arange(22) % 3


def start(seed, rate):
    state = training.init(jax.random.key(seed), MODEL, OPTIMIZER, DATA[0])
    return state._replace(opt_state=optax.tree.set(state.opt_state, learning_rate=jnp.array(rate)))


@pytest.fixture(scope="module")
def trained():
    """States, the epoch, and what two epochs make of each state alone."""
    states = [start(0, 0.1), start(1, 0.1), start(0, 0.5), start(0, np.nan)]
    epoch = training.train_epoch(training.train_step(MODEL, OPTIMIZER), 5)
    alone = []
    for state in states:
        state, first = epoch(state, DATA)
        alone.append((*epoch(state, DATA), first))
    return states, epoch, alone


@pytest.mark.parametrize(("how", "tolerance"), [("loop", 1e-6), ("vmap", 1e-5)])
def test_stacked_states_train_as_alone(how, tolerance, trained):
    states, epoch, alone = trained
    together = training.over_states(epoch, how)
    stacked, first = together(training.stack_states(states), DATA)
    stacked, second = together(stacked, DATA)
    assert first["loss"].shape == (4, 4)
    for number, (state, found) in enumerate(
        zip([one[0] for one in alone], training.unstack_states(stacked), strict=True)
    ):
        assert (found.key, int(found.step)) == (state.key, [8, 8, 8, 0][number])
        same = found._replace(key=()), state._replace(key=())
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), *same
        )
        np.testing.assert_allclose(
            second["loss"][number], alone[number][1]["loss"], rtol=tolerance, atol=tolerance
        )


def test_what_does_not_stack():
    with pytest.raises(InputError, match="0 states"):
        training.stack_states([])
    one = training.State(jnp.int32(0), {"w": jnp.zeros(3)}, {}, (), jax.random.key(0))
    with pytest.raises(InputError, match=r"params\['w'\] is float32\[2\] in state 1"):
        training.stack_states([one, one._replace(params={"w": jnp.zeros(2)})])
    with pytest.raises(InputError, match="another structure"):
        training.stack_states([one, one._replace(params={})])
    with pytest.raises(InputError, match="how must be"):
        training.over_states(lambda state: state, "both")  # pyright: ignore[reportArgumentType]
