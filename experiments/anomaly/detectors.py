"""The detectors that `anomaly_nab.py` compares: scores of rows, mixed from a few channels.

A channel is a number for each row, such as the value itself, its mean over the last rows, or how
much a network was surprised. It becomes a score by how far it leaves the range seen before
(`seen_range`), or by its anomaly likelihood (`nnlab.series.anomaly_likelihood`); the score of
several channels is their maximum. All functions are causal.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import seen_range
import windowed_gaussian
from streams import Network, Rows, log_surprise, measured, value_and_clock, value_before, windows_of

from nnlab.arithmetics import ADDER
from nnlab.classics.autoencoder import reconstruction_error
from nnlab.layers import GRUCell
from nnlab.models import AutoEncoder, NextValue
from nnlab.series import anomaly_likelihood
from nnlab.series.nab_corpus import Series
from nnlab.series.next_value import negative_log_likelihood

if TYPE_CHECKING:
    from anomaly_nab import Config

OTHERS = ("probation", "clock", "GRU", "adder", "auto-encoder")
CHOSEN = "value, level, surprise; all LSTMs"


def detectors(corpus: Sequence[Series], config: "Config") -> dict[str, Rows]:
    """Score every row of every series, by the name of the detector."""
    values = [series.values for series in corpus]
    value, level = range_excess(values, 1), range_excess(values, config.span)
    spatial = [np.where(each > 0.05, 1.0, 0.0) for each in value]

    def with_values(rows: Rows) -> Rows:
        return maximum(value, level, range_excess(rows, config.span))

    lstm = Network(NextValue(config.units), value_before, negative_log_likelihood, log_surprise)
    keys = jax.random.split(jax.random.key(config.seed), config.members)
    members = [measured(lstm, corpus, config, key) for key in keys]
    mean = [np.mean(each, axis=0) for each in zip(*members, strict=True)]
    first = functools.partial(measured, corpus=corpus, config=config, key=keys[0])
    error = first(lstm._replace(measure=lambda y, values: jnp.abs(values - y[..., 0])))
    found = {
        "windowed Gaussian": [windowed_gaussian.of_series(each) for each in values],
        "value": value,
        "value, level": maximum(value, level),
        "error": error,
        "likelihood of error": likelihood(error),
        "likelihood of error, spatial": maximum(likelihood(error), spatial),
        "likelihood of error over 1 row, spatial": maximum(likelihood(error, 1), spatial),
        "error outside": range_excess(error, config.span),
        "surprise outside": range_excess(members[0], config.span),
        "value, surprise": maximum(value, range_excess(members[0], config.span)),
        "value, level, error": with_values(error),
        "value, level, surprise without log": with_values([np.expm1(row) for row in members[0]]),
        "value, level, surprise over 3 rows": maximum(value, level, range_excess(members[0], 3)),
    }
    for number, rows in enumerate(members, 1):
        found[f"value, level, surprise; LSTM {number}"] = with_values(rows)
    found[CHOSEN] = with_values(mean)
    for name in config.compare:
        rows = first(other_networks(lstm, config)[name])
        if name == "auto-encoder":
            found["likelihood of auto-encoder, spatial"] = maximum(likelihood(rows), spatial)
        found[f"value, level, {name}"] = with_values(rows)
    return found


def other_networks(lstm: Network, config: "Config") -> dict[str, Network]:
    """Return the networks to compare the LSTM with, by their names in `OTHERS`."""
    networks = (
        lstm._replace(online=False),
        lstm._replace(parts=value_and_clock),
        lstm._replace(model=NextValue(config.units, cell=GRUCell)),
        lstm._replace(model=NextValue(config.units, arithmetic=ADDER, norm=True)),
        Network(
            AutoEncoder(),
            functools.partial(windows_of, length=config.window),
            lambda outputs, windows: jnp.square(outputs - windows).mean(axis=-1),
            reconstruction_error,
            recurrent=False,
        ),
    )
    return dict(zip(OTHERS, networks, strict=True))


def per_series(function: Callable, rows: Rows) -> Rows:
    """Apply a causal function of [series, rows] to series, padded to one length."""
    length = max(map(len, rows))
    padded = np.zeros((len(rows), length), np.float32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    out = np.asarray(function(padded), np.float64)
    return [each[: len(row)] for each, row in zip(out, rows, strict=True)]


def range_excess(rows: Rows, length: int) -> Rows:
    """Score how far the mean of `length` rows leaves the range seen before (`seen_range`)."""
    return per_series(functools.partial(seen_range.of_series, length=length), rows)


def likelihood(rows: Rows, short: int = 10) -> Rows:
    """Score rows by their anomaly likelihood over `short` rows."""
    return per_series(lambda x: anomaly_likelihood.of_series(x, short=short).score, rows)


def maximum(*channels: Rows) -> Rows:
    return [np.maximum.reduce(each) for each in zip(*channels, strict=True)]
