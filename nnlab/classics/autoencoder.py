"""An auto-encoder for windows of a series: what it cannot rebuild is unlike what it has seen.

Dense layers narrow a window of w numbers to a code of c and widen it again, w -> h -> c -> h -> w
for h hidden units, with tanh between them. They have 2 (w h + h c) + 2 h + c + w parameters, 2,008
by default on windows of 32. The reconstruction error of a window is the baseline that prediction
errors are compared with.

References:
    Sakurada & Yairi, Anomaly detection using autoencoders with nonlinear dimensionality reduction,
    MLSDA 2014.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.networks import Network


class AutoEncoder(Network):
    """Rebuild windows: [batch, w] to [batch, w].

    Attributes:
        hidden: units of the two layers around the code.
        code: numbers that a window is narrowed to.
        arithmetic: arithmetic of all layers except the first and the last, which are float.
        dtype: dtype of the computation; outputs are float32 at least.

    Raises:
        InputError: `hidden` or `code` is below 1, or the input is not [batch, w].
    """

    hidden: int = 24
    code: int = 8
    arithmetic: Arithmetic = FLOAT
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if x.ndim != 2:
            raise InputError(f"an auto-encoder takes windows [batch, w], not {list(x.shape)}.")
        inner, options = self.arithmetic.dense, {"use_bias": True, "dtype": self.dtype}
        y = jnp.tanh(nn.Dense(self.hidden, dtype=self.dtype, name="first")(x))
        y = jnp.tanh(inner(self.code, name="encode", **options)(y))
        y = jnp.tanh(inner(self.hidden, name="decode", **options)(y))
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="last")(y)
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))


def reconstruction_error(outputs: jax.Array, windows: jax.Array) -> jax.Array:
    """Return the root of the mean squared difference of each window, [batch].

    Raises:
        InputError: the two differ in shape.
    """
    check_shape("outputs", outputs, windows.shape)
    return jnp.sqrt(jnp.mean(jnp.square(outputs - windows), axis=-1))
