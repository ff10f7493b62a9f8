r"""DeepLog's detector: an LSTM that predicts the next event of a log.

The network reads the last `window` events of a session. Events are numbers below `events`, one-hot;
an event that training did not have is `unknown`, and the end of a session is an event too, `end`.
With the events e_1 ... e_T of a session and e_{T+1} = end, the rank of an event,

.. math:: r_t = \#\{e : p(e \mid e_{t-w} \dots e_{t-1}) > p(e_t \mid e_{t-w} \dots e_{t-1})\},  (1)

says how many events were likelier. An event of rank k or more is surprising, and a session that
holds one is abnormal. An unknown event is never predicted: its rank is the last.

The paper's choices for HDFS: 2 layers of 64 units, window 10, k = 9. Deviations: windows at the
beginning of a session are padded with blanks, so that its first events count too, and its end
counts as an event; the paper says neither. Binary cells need `absent=-1`: with `absent=0` an event
that came, 1, and all that did not come, 0, would have the same sign.

An LSTM of n events, without normalisation, has 256 (n + 65) + 256·129 + 65 (n + 1) parameters:
54,223 for 14 events.

References:
    Du, Li, Zheng and Srikumar, DeepLog: anomaly detection and diagnosis from system logs through
    deep learning, CCS 2017, section 3.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.recurrent import Cell, LSTMCell
from nnlab.layers.sequences import Recurrent, Stacked
from nnlab.networks import Network


class NextEvent(Network):
    """A network that maps events int [batch, window] to logits [batch, events + 2] of the next.

    A number outside of [0, events) is read as a blank, all `absent`. The logit of `unknown` is the
    least float.

    Attributes:
        events: number of known events.
        features: units a layer.
        layers: number of layers.
        window: how many events it reads; the call takes any number.
        cell: class of the cells, from `nnlab.layers`.
        arithmetic: arithmetic of the products in all cells.
        classifier: arithmetic of the output layer.
        norm: LayerNorm in the cells, which adders need (`nnlab.layers.recurrent`).
        absent: what a one-hot vector holds for the events that did not come.
        dtype: dtype of the computation; outputs are float32 at least.

    Raises:
        InputError: `events`, `features`, `layers` or `window` is below 1, or the inputs are not
            integers [batch, window].
    """

    events: int
    features: int = 64
    layers: int = 2
    window: int = 10
    cell: type[Cell] = LSTMCell
    arithmetic: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    norm: bool = False
    absent: float = 0.0
    dtype: Dtype | None = None

    @property
    def unknown(self) -> int:
        """The event that training did not have."""
        return self.events

    @property
    def end(self) -> int:
        """The end of a session."""
        return self.events + 1

    @nn.compact
    def __call__(self, before: jax.Array, train: bool = False) -> jax.Array:
        if before.ndim != 2 or not jnp.issubdtype(before.dtype, jnp.integer):
            raise InputError(
                f"events are {before.dtype} {list(before.shape)}, expected integers"
                " [batch, window]."
            )
        x = jax.nn.one_hot(before, self.events, dtype=self.dtype or jnp.float32)
        x = jnp.where(x == 0, self.absent, x)
        dense = self.arithmetic.dense
        cells = [
            self.cell(self.features, dense, self.norm, dtype=self.dtype, name=f"cell{number}")
            for number in range(1, self.layers + 1)
        ]
        x = Stacked([Recurrent(cell) for cell in cells], name="stack")(x, None, train)[:, -1]
        y = self.classifier.dense(
            self.events + 1, use_bias=True, dtype=self.dtype, name="classifier"
        )(x)
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        return jnp.insert(y, self.unknown, jnp.finfo(y.dtype).min, axis=-1)


def ranks(logits: jax.Array, events: jax.Array) -> jax.Array:
    """Count the events that were likelier than those that came, eq. (1).

    Args:
        logits: [..., n].
        events: int [...]; one outside of [0, n) is likelier than none.

    Returns:
        int32 [...], from 0 to n - 1, and n for an event outside or with a logit of NaN.
    """
    n = logits.shape[-1]
    there = (events >= 0) & (events < n)
    chosen = jnp.take_along_axis(logits, jnp.where(there, events, 0)[..., None], axis=-1)
    likelier = jnp.sum(logits > chosen, axis=-1)
    return jnp.where(there & ~jnp.isnan(chosen[..., 0]), likelier, n).astype(jnp.int32)
