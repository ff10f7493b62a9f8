"""Long sequences in pieces: the figures are those of the sequences as a whole."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.errors import InputError
from nnlab.layers import Recurrent, SimpleCell

RNG = np.random.default_rng(1)
SYMBOLS = RNG.integers(0, 5, (3, 12))
INPUTS = {"ids": SYMBOLS[:, :-1], "known": RNG.random((3, 11)) < 0.7}
DATA = INPUTS, SYMBOLS[:, 1:]


class Net(nn.Module):
    """A language model of symbols, some of which are not known."""

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> jax.Array:
        x = jnp.where(inputs["known"][..., None], jax.nn.one_hot(inputs["ids"], 5), 0)
        return nn.Dense(5)(Recurrent(SimpleCell(4))(x))


@pytest.fixture(scope="module")
def state():
    return training.init(jax.random.key(0), Net(), optax.sgd(1.0), INPUTS)


@pytest.fixture(scope="module")
def expected(state):
    """Loss and accuracy of the whole sequences, in float64."""
    variables = {"params": state.params}
    logits = np.asarray(jax.jit(Net().apply)(variables, INPUTS), np.float64)
    likelihoods = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    of_labels = np.take_along_axis(likelihoods, SYMBOLS[:, 1:, None], -1)
    return -np.log(of_labels).mean(), (logits.argmax(-1) == SYMBOLS[:, 1:]).mean()


@pytest.mark.parametrize("length", [1, 4, 50])
def test_figures_are_those_of_the_whole(state, expected, length):
    found = training.long_evaluation(Net(), length=length)(state, DATA)
    # Sums of 33 terms near 1.6 in float32, in another order.
    np.testing.assert_allclose(found["loss"], expected[0], rtol=33 * 2**-24)
    np.testing.assert_allclose(found["accuracy"], expected[1], rtol=1e-6)


def test_weights_and_metrics_are_given(state):
    def metrics(logits, labels):
        return {"first": jnp.mean(labels == 0), "largest": jnp.mean(jnp.abs(logits))}

    evaluate = training.long_evaluation(
        Net(),
        length=11,
        weights=lambda state: jax.tree.map(jnp.zeros_like, state.params),
        metrics=metrics,
    )
    found = evaluate(state, DATA)
    assert set(found) == {"loss", "first", "largest"}
    np.testing.assert_allclose(found["loss"], np.log(5), rtol=1e-6)
    np.testing.assert_allclose(found["first"], np.mean(SYMBOLS[:, 1:] == 0), rtol=1e-6)
    assert found["largest"] == 0


def test_what_does_not_fit_is_refused(state):
    with pytest.raises(InputError, match="length must be an integer of at least 1, not 0"):
        training.long_evaluation(Net(), length=0)
    unequal = INPUTS | {"known": INPUTS["known"][:, :8]}, DATA[1]
    with pytest.raises(InputError, match=r"axis 1.* has 11 .* has 8"):
        training.long_evaluation(Net())(state, unequal)
