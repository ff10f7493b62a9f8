r"""A recurrent network that predicts the next value of a series, and how sure it is.

After `layers` recurrent layers of `features` units a dense layer outputs two numbers at every step:
the expected change of the value, and the logarithm of the scale :math:`\sigma` of the error:

.. math::
    e &= (x_{t+1} - \hat x_{t+1}) / \sigma_t, \qquad \hat x_{t+1} = x_t + \Delta_t,        (1) \\
    \mathrm{loss} &= \tfrac{1}{2} e^2 + \log \sigma_t,                                     (2)

where (2) is the Gaussian negative log-likelihood without its constant. |e| is the *surprise*: an
error counts for little where errors are expected. One LSTM of m inputs and n units has
4n (m + n + 1) + 2 (n + 1) parameters, 2,546 for a value alone and 24 units.

References:
    Malhotra et al., Long short term memory networks for anomaly detection in time series, ESANN
    2015, for prediction errors of an LSTM; Nix & Weigend, Estimating the mean and variance of the
    target probability distribution, 1994, for (2).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.data.batches import check_shape
from nnlab.layers.recurrent import Cell, LSTMCell
from nnlab.layers.sequences import Recurrent, Stacked
from nnlab.networks import Network

LOG_SCALES = (-5.0, 5.0)  # a series without noise would send the scale to zero


class NextValue(Network):
    """A network that maps [batch, time, m] to [batch, time, 2]: next value, logarithm of scale.

    The first input is the value; the others are whatever is known of the next row beforehand, such
    as the time of day.
    `lengths` and the state from call to call are as in `nnlab.layers.sequences`.

    Attributes:
        features: units n a layer.
        layers: number of layers.
        cell: class of the cells, from `nnlab.layers`; forget gates of LSTMs start open, at 1.
        arithmetic: arithmetic of the products in all cells.
        norm: LayerNorm in the cells, which adders need (`nnlab.layers.recurrent`).
        dtype: dtype of the computation; outputs are float32 at least.

    Raises:
        InputError: `layers` or `features` is below 1.
    """

    features: int = 24
    layers: int = 1
    cell: type[Cell] = LSTMCell
    arithmetic: Arithmetic = FLOAT
    norm: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, lengths: jax.Array | None = None
    ) -> jax.Array:
        remembers = {"forget_bias": 1.0} if issubclass(self.cell, LSTMCell) else {}
        cell = functools.partial(
            self.cell,
            self.features,
            self.arithmetic.dense,
            self.norm,
            dtype=self.dtype,
            **remembers,
        )
        stack = [
            Recurrent(cell(name=f"cell{number}"), name=f"layer{number}")
            for number in range(1, self.layers + 1)
        ]
        h = Stacked(stack, name="stack")(x, lengths, train)
        start = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")  # near x_t, scale 1
        y = nn.Dense(2, kernel_init=start, dtype=self.dtype, name="forecast")(h)
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        return jnp.stack([x[..., 0] + y[..., 0], jnp.clip(y[..., 1], *LOG_SCALES)], axis=-1)


def surprise(outputs: jax.Array, values: jax.Array) -> jax.Array:
    """Compute |e| of (1) from outputs [..., 2] and the values [...] that came.

    Raises:
        InputError: there is not one value for each output.
    """
    check_shape("values", values, outputs.shape[:-1])
    return jnp.abs(values - outputs[..., 0]) * jnp.exp(-outputs[..., 1])  # (1)


def negative_log_likelihood(outputs: jax.Array, values: jax.Array) -> jax.Array:
    """Compute (2), in nats and not averaged, from outputs [..., 2] and values [...]."""
    return jnp.square(surprise(outputs, values)) / 2 + outputs[..., 1]  # (2)
