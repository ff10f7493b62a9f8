"""Q

python experiments/tutorial_lstm.py --data-dir DIR
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from nnlab import analysis, training
from nnlab.analysis import nab
from nnlab.data.nab import load_nab
from nnlab.deployment import load_model, save_model
from nnlab.errors import InputError
from nnlab.layers import GravesLSTMCell
from nnlab.models import RecurrentNet
from nnlab.training.script import (
    check_choices,
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)

CHARTS = ("normal", "cyclic", "increasing", "decreasing", "upward shift", "downward shift")
STEPS = 60  # of a chart
TASKS = ("charts", "windows")


@dataclasses.dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = TASKS
    data_dir: str | None = None
    """Folder of the NAB corpus."""
    units: int = 10
    learning_rate: float = 0.005
    clip: float = 0.5
    """Greatest absolute value of an entry of the gradient."""
    batch_size: int = 10
    epochs: int = 40
    """At most."""
    patience: int = 5
    """Epochs without a lower validation loss, after which training ends."""
    charts: int = 100
    """Of each class."""
    longest: int = 200
    """Steps of a piece of a NAB series, at most."""
    seed: int = 123
    out: str = "runs/tutorial_lstm"
    """Folder of the run."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    resume: bool = False
    """Go on with the run in that folder, or start it."""

    def __post_init__(self):
        check_choices("tasks", self.tasks, TASKS)
        for name in ("units", "batch_size", "epochs", "patience", "charts", "longest"):
            check_positive_integer(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_positive("clip", self.clip)
        check_seed("seed", self.seed)


class Sequences(NamedTuple):
    """Values [n, time, 1], labels int32 [n, time], and 1.0 where a step counts, [n, time]."""

    values: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    def part(self, chosen: np.ndarray) -> "Sequences":
        return Sequences(*(field[chosen] for field in self))

    def batch(self) -> tuple[Any, Any]:
        return self.values, (self.labels, self.counts)


def control_charts(key: jax.Array, each: int) -> Sequences:
    """Charts of Alcock & Manolopoulos' equations, `each` of a class; only the last step counts."""
    keys = iter(jax.random.split(key, 7))

    def uniform(low: float, high: float) -> jax.Array:
        return jax.random.uniform(next(keys), (each, 1), minval=low, maxval=high)

    t = jnp.arange(1, STEPS + 1)
    shifted = t >= uniform(STEPS / 3, 2 * STEPS / 3)
    wave = uniform(10, 15) * jnp.sin(2 * jnp.pi * t / uniform(10, 15))
    trend, shift = uniform(0.2, 0.5) * t, uniform(7.5, 20) * shifted
    courses = jnp.stack([jnp.zeros((each, STEPS)), wave, trend, -trend, shift, -shift])
    noise = jax.random.uniform(next(keys), courses.shape, minval=-3, maxval=3)
    values = np.asarray(30 + 2 * noise + courses).reshape(-1, STEPS, 1)
    labels = np.repeat(np.arange(len(CHARTS), dtype=np.int32), each)
    counts = np.zeros((len(labels), STEPS), np.float32)
    counts[:, -1] = 1
    return Sequences(values, np.repeat(labels[:, None], STEPS, axis=1), counts)


def series_pieces(data_dir: str | None, longest: int) -> tuple[Sequences, np.ndarray]:
    """NAB series in pieces behind their probation, padded at the end, and the number of the series.

    Values are standardised by the probation and clipped to [-10, 10]; a step's label is 1 within a
    window.
    """
    pieces, owners = [], []
    for number, series in enumerate(load_nab(data_dir)):
        start = nab.probation(len(series.values))
        seen = series.values[:start]
        values = (series.values - seen.mean()) / (seen.std() or 1.0)
        labels = np.zeros(len(values))
        for first, last in series.windows:
            labels[first : last + 1] = 1
        rows = np.stack([np.clip(values, -10, 10), labels, np.ones(len(values))], axis=-1)
        for first in range(start, len(rows), longest):
            piece = rows[first : first + longest]
            pieces.append(np.pad(piece, [(0, longest - len(piece)), (0, 0)]))  # of counts too
            owners.append(number)
    values, labels, counts = np.moveaxis(np.array(pieces, np.float32), -1, 0)
    return Sequences(values[..., None], labels.astype(np.int32), counts), np.array(owners)


def split(name: str, config: Config) -> list[Sequences]:
    """Training, validation and test, 60, 15 and 25 % of the charts, or of the series."""
    key = jax.random.key(config.seed)
    if name == "charts":
        data = control_charts(key, config.charts)
        owners = np.arange(len(data.values))
    else:
        data, owners = series_pieces(config.data_dir, config.longest)
    number = owners.max() + 1
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, 1), int(number)))
    edges = [round(0.6 * number), round(0.75 * number)]
    train, validation, test = (data.part(np.isin(owners, some)) for some in np.split(order, edges))
    if name == "charts":
        mean, deviation = train.values.mean(), train.values.std()
        parts = (train, validation, test)
        return [p._replace(values=(p.values - mean) / deviation) for p in parts]
    return [train, validation, test]


def loss(outputs: jax.Array, labels: Any) -> jax.Array:
    """Cross-entropy of the steps that count, summed over a sequence and averaged over the batch."""
    classes, counts = labels
    each = optax.softmax_cross_entropy_with_integer_labels(outputs, classes)
    return (counts * each).sum() / counts.shape[0]


def accuracy(outputs: jax.Array, labels: Any) -> dict[str, jax.Array]:
    classes, counts = labels
    right = outputs.argmax(-1) == classes
    return {"accuracy": (counts * right).sum() / jnp.maximum(counts.sum(), 1)}


def xavier(key: jax.Array, params: Any) -> Any:
    """Normal weights of variance 2 / (inputs + outputs), and forget gates that start open."""
    flat: dict[Any, Any] = dict(flatten_dict(params))
    init = jax.nn.initializers.glorot_normal()
    for number, (path, leaf) in enumerate(sorted(flat.items())):
        if path[-1] == "kernel":
            flat[path] = init(jax.random.fold_in(key, number), leaf.shape)
        elif path[-2:] == ("cell1", "bias"):
            flat[path] = leaf.at[leaf.size // 4 : leaf.size // 2].set(1.0)
    return unflatten_dict(flat)


def evaluation(model: RecurrentNet, variables: Any, data: Sequences) -> dict[str, float]:
    """Accuracy and, for two classes, how much of a chance ranking is beaten (AUC), of 1."""
    outputs = model.apply(variables, jnp.asarray(data.values))
    assert isinstance(outputs, jax.Array)
    found = {"accuracy": float(accuracy(outputs, data.batch()[1])["accuracy"])}
    if model.outputs == 2:
        from sklearn.metrics import roc_auc_score

        counted = data.counts > 0
        found["AUC"] = float(
            roc_auc_score(data.labels[counted], (outputs[..., 1] - outputs[..., 0])[counted])
        )
    return found


def trained(name: str, config: Config, folder: training.RunFolder) -> dict[str, Any]:
    train, validation, test = split(name, config)
    if len(np.unique(train.labels[train.counts > 0])) < 2:
        raise InputError(
            f"The training steps of {name} are all of one class, expected some of each."
        )
    model = RecurrentNet(len(CHARTS) if name == "charts" else 2, config.units, 1, GravesLSTMCell)
    optimizer = optax.chain(
        optax.clip(config.clip), optax.sgd(config.learning_rate, momentum=0.9, nesterov=True)
    )
    state = training.init(jax.random.key(config.seed), model, optimizer, jnp.asarray(train.values))
    params = xavier(jax.random.fold_in(jax.random.key(config.seed), 2), state.params)
    state, history = training.fit(
        name,
        state._replace(params=params),
        training.train_step(model, optimizer, loss, metrics=accuracy),
        training.evaluation(model, loss, metrics=accuracy),
        training.in_memory(train.batch(), config.batch_size),
        validation.batch(),
        epochs=config.epochs,
        folder=folder,
        patience=config.patience,
        score=training.least_loss,
    )
    variables = {"params": state.params}
    path = folder.path / f"{name}.safetensors"
    save_model(path, model, variables, train.values[:1], notes={"task": name}, overwrite=True)
    saved = load_model(path)
    before, after = (jax.jit(m.apply)(v, test.values) for m, v in ((model, variables), saved[:2]))
    if not np.array_equal(before, after):
        raise RuntimeError(f"{path} gives other predictions than the network that was saved.")
    counted = test.labels[test.counts > 0]
    return {
        "task": name,
        "sequences": f"{len(train.values)}/{len(validation.values)}/{len(test.values)}",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "epochs": len(history["test_loss"]),
        "train accuracy / %": round(100 * history["train_accuracy"][-1], 2),
        "validation accuracy / %": round(100 * history["test_accuracy"][-1], 2),
        **{
            f"test {key} / %": round(100 * value, 2)
            for key, value in evaluation(model, variables, test).items()
        },
        "majority class / %": round(100 * np.bincount(counted).max() / counted.size, 2),
        "reloaded": "same bits",
        "seconds / epoch": round(float(np.median(history["seconds"])), 3),
    }


def main(config: Config) -> None:
    folder = training.RunFolder.create(config.out, config, config.overwrite, config.resume)
    rows = [trained(name, config, folder) for name in config.tasks]
    result = {"config": dataclasses.asdict(config), "table": rows}
    folder.write_result(training.provenance() | result)
    for row in rows:
        analysis.print_table([row])


if __name__ == "__main__":
    run(main, Config)
