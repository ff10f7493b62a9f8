"""The series of NAB as streams: what networks read of a row, and learning from it afterwards.

Each series has a network of its own, which scores every row before it learns from it
(`online.score_streams`). Values are standardised by the probation of the series, in which the
benchmark scores nothing.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from online import score_streams

from nnlab import training
from nnlab.series import nab
from nnlab.series.nab_corpus import Series
from nnlab.series.next_value import surprise

if TYPE_CHECKING:
    from anomaly_nab import Config

GROUPS = (2600, 5400, 15_000)  # rows; series between two of them are padded to one length
Rows = list[np.ndarray]  # one array a series, [rows] or [rows, n]


class Network(NamedTuple):
    """What is trained on each series.

    Attributes:
        model: the network.
        parts: makes inputs and targets, each [rows, …], of a series.
        loss, measure: functions of outputs and targets, one number a row.
        recurrent: whether it reads rows as a sequence.
        online: whether it learns after the probation too.
    """

    model: nn.Module
    parts: Callable[[Series], tuple[np.ndarray, np.ndarray]]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    measure: Callable[[jax.Array, jax.Array], jax.Array]
    recurrent: bool = True
    online: bool = True


def measured(network: Network, corpus: Sequence[Series], config: "Config", key: jax.Array) -> Rows:
    """Measure each row of each series before the network learns from it; row 0 measures 0."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    def loss(outputs, labels):
        targets, counts = labels
        return (counts * network.loss(outputs, targets)).mean()

    def metrics(outputs, labels):
        return {"row": labels[1] * network.measure(outputs, labels[0])}

    def fresh(key, inputs):
        streams = 1 if network.recurrent else None
        return training.init(key, network.model, optimizer, inputs, streams=streams)

    return score_streams(
        training.train_step(network.model, optimizer, loss, metrics=metrics),
        fresh,
        key,
        [(inputs, (y, np.arange(len(y)) > 0)) for inputs, y in map(network.parts, corpus)],
        [nab.probation(len(series.values)) for series in corpus],
        metric="row",
        block=config.block,
        passes=config.passes,
        late=network.online,
        recurrent=network.recurrent,
        bounds=GROUPS,
    )


def standardized(series: Series) -> np.ndarray:
    """Scale values by mean and deviation of the probation, and then like a logarithm."""
    seen = series.values[: nab.probation(len(series.values))]
    scale = seen.std() or 1e-3 * max(abs(seen.mean()), 1.0)
    return np.clip(np.arcsinh((series.values - seen.mean()) / scale), -20, 20)


def value_before(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Make the value before each row the input, and its own the target."""
    values = standardized(series)
    return np.concatenate([[0.0], values[:-1]])[:, None], values


def value_and_clock(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Add sine and cosine of the row's time of day, which is known beforehand, to the inputs."""
    before, values = value_before(series)
    angle = 2 * np.pi * (series.times.astype(np.int64) % 86_400) / 86_400
    return np.stack([before[:, 0], np.sin(angle), np.cos(angle)], axis=-1), values


def windows_of(series: Series, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Make the last `length` values up to each row both input and target."""
    padded = np.concatenate([np.zeros(length - 1), standardized(series)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)
    return windows, windows


def log_surprise(outputs: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.log1p(surprise(outputs, values))


def thinned(series: Series, every: int) -> Series:
    """Keep one of every `every` rows."""
    windows = [(-(-first // every), last // every) for first, last in series.windows]
    return Series(series.name, series.times[::every], series.values[::every], windows)
