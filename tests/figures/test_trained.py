"""What the report shows of a network is what the network computes."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.errors import InputError
from nnlab.figures.plots import HISTORY
from nnlab.figures.trained import network_of


class Net(nn.Module):
    named: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(5)(x)
        if self.named:
            self.sow("intermediates", "features", x)
        return nn.Dense(2)(x)


def test_features_and_the_largest_kernel():
    rng = np.random.default_rng(0)
    train, test = ((rng.normal(size=(n, 3)).astype("f"), np.arange(n) % 2) for n in (7, 4))
    history = {key: [0.5] for key in HISTORY}
    state = training.init(jax.random.key(0), Net(), optax.sgd(0.1), train[0])
    network = network_of("mine", Net(), state, history, train, test)
    first = state.params["Dense_0"]
    assert (network.name, network.history) == ("mine", history)
    np.testing.assert_array_equal(network.weights, first["kernel"])
    for features, (x, y), labels in (
        (network.train_features, train, network.train_labels),
        (network.features, test, network.labels),
    ):
        np.testing.assert_allclose(
            np.asarray(features), x @ first["kernel"] + first["bias"], rtol=1e-5
        )
        np.testing.assert_array_equal(labels, y)
    with pytest.raises(InputError, match=r"^Net names no features; expected self\.sow"):
        network_of("mine", Net(named=False), state, history, train, test)
