"""Long sequences in pieces: the figures are those of the sequences as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.errors import InputError
from nnlab.models import LanguageModel

MODEL = LanguageModel(5, features=4, layers=2)
SYMBOLS = jax.random.randint(jax.random.key(1), (3, 12), 0, 5)
DATA = SYMBOLS[:, :-1], SYMBOLS[:, 1:]


@pytest.fixture(scope="module")
def state():
    return training.init(jax.random.key(0), MODEL, optax.sgd(1.0), DATA[0])


@pytest.mark.parametrize("length", [1, 4, 11, 50])
def test_figures_are_those_of_the_whole(state, length):
    found = training.long_evaluation(MODEL, length=length)(state, DATA)
    logits = np.asarray(MODEL.apply({"params": state.params}, DATA[0]), np.float64)
    likelihoods = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    of_labels = np.take_along_axis(likelihoods, np.asarray(DATA[1])[..., None], -1)
    # Sums of 33 terms near 1.6 in float32, in another order.
    np.testing.assert_allclose(found["loss"], -np.log(of_labels).mean(), rtol=33 * 2**-24)
    np.testing.assert_allclose(found["accuracy"], (logits.argmax(-1) == DATA[1]).mean(), rtol=1e-6)


def test_weights_and_metrics_are_given(state):
    def metrics(logits, labels):
        return {"first": jnp.mean(labels == 0), "largest": jnp.mean(jnp.abs(logits))}

    evaluate = training.long_evaluation(
        MODEL,
        length=4,
        weights=lambda state: jax.tree.map(jnp.zeros_like, state.params),
        metrics=metrics,
    )
    found = evaluate(state, DATA)
    assert set(found) == {"loss", "first", "largest"}
    np.testing.assert_allclose(found["loss"], np.log(5), rtol=1e-6)
    np.testing.assert_allclose(found["first"], np.mean(np.asarray(DATA[1]) == 0), rtol=1e-6)
    assert found["largest"] == 0


def test_a_length_below_one():
    with pytest.raises(InputError, match="length must be at least 1, not 0"):
        training.long_evaluation(MODEL, length=0)
