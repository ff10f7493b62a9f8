"""From a training to what figures and the report show of its network."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from nnlab import training
from nnlab.errors import InputError
from nnlab.figures.plots import Network

_BATCH = 500


def network_of(
    name: str,
    model: nn.Module,
    state: training.State,
    history: Mapping[str, Sequence[float]],
    train: tuple[Any, Any],
    test: tuple[Any, Any],
) -> Network:
    """Return what `nnlab.figures.report.write_report` shows of a trained network.

    Args:
        name: of the network.
        model: names what it gives its classifier, `self.sow("intermediates", "features", x)`.
        state: after the training.
        history: losses and accuracies of each epoch, as `nnlab.runs.fit` returns.
        train, test: inputs [n, ...] and labels [n].

    Raises:
        InputError: the model names no features, or has no parameter called a kernel.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def features(inputs: Any) -> jax.Array:
        sown: Any = model.apply(variables, inputs, mutable=["intermediates"])[1]
        found = sown.get("intermediates", {}).get("features")
        if not found:
            raise InputError(
                f"{type(model).__name__} names no features; expected"
                ' self.sow("intermediates", "features", x) before its classifier.'
            )
        return found[0].reshape(len(found[0]), -1)

    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    kernels = [w for path, w in leaves if str(getattr(path[-1], "key", "")).endswith("kernel")]
    if not kernels:
        raise InputError(f"{type(model).__name__} has no parameter whose name ends in kernel.")
    (train_inputs, train_labels), (inputs, labels) = train, test
    return Network(
        name,
        {key: list(values) for key, values in history.items()},
        weights=max(kernels, key=np.size),
        features=training.in_batches(features, inputs, _BATCH),
        labels=labels,
        train_features=training.in_batches(features, train_inputs, _BATCH),
        train_labels=train_labels,
    )
