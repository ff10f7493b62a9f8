"""What does the configuration of the classic LSTM tutorials learn?

Answer: It learns to tell control charts apart (95.3 % of six classes), but on labelled windows of
NAB no more than to name the majority class.

It is that of DeepLearning4j's "Sequence classification of synthetic control data" when it had a
Graves LSTM: seed 123, Xavier initialisation, SGD of rate 0.005 with Nesterov momentum 0.9, each
entry of the gradient clipped to ±0.5, one `GravesLSTM` of 1 input and 10 units with tanh whose
forget gates start open, a softmax output at every step, batches of 10, 40 epochs. Ours stops early
if the loss on a validation part has not fallen for 5 epochs. The network is saved, read again, and
gives the same bits. Two tasks:

- charts, the tutorial's: control charts of 60 steps in six classes, of which only the last step
  counts. UCI's 600 are simulated; so are these, by the same equations
  (`experiments/anomaly/control_charts.py`).
- windows, an anomaly detector of the same configuration: the series of NAB after their probation,
  standardised by it, in pieces of up to 200 rows, padded and masked; two classes a step, inside a
  labelled window or not. Training, validation and test are different series.

Ours, 3 seconds of training a task on one core of an AMD EPYC (`results/tutorial_lstm.json`):

=======  ==========  ======  ========  ==========  ========  ==============  ====
task     parameters  epochs  training  validation  test      majority class  AUC
=======  ==========  ======  ========  ==========  ========  ==============  ====
charts   576         40      99.2 %    98.9 %      95.3 %    20.0 %
windows  532         8       89.6 %    90.0 %      90.6 %    90.6 %          0.57
=======  ==========  ======  ========  ==========  ========  ==============  ====

The charts are learned. The windows are not: the network says "no anomaly" at every step of the
test, which is the majority class, and ranks steps hardly better than chance. A window is a stretch
around an anomaly in which most rows are normal, and what is normal differs by series; labels of 60
series cannot teach it. `experiments/anomaly/anomaly_nab.py` shows how it is done: learn each
series, and score what is unlike it.

    python experiments/anomaly/tutorial_lstm.py --data-dir DIR
"""

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from control_charts import CLASSES, control_charts
from flax.traverse_util import flatten_dict, unflatten_dict

from nnlab import figures, runs, training
from nnlab.data.locate import takes_no_folder
from nnlab.errors import InputError
from nnlab.layers import GravesLSTMCell
from nnlab.models import RecurrentNet, load_model, save_model
from nnlab.runs.fields import Positive, PositiveInt, Seed, SomeOf
from nnlab.runs.script import run
from nnlab.series import nab
from nnlab.series.nab_corpus import load_nab

TASKS = ("charts", "windows")


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/tutorial_lstm"
    tasks: Annotated[tuple[str, ...], SomeOf(TASKS)] = TASKS
    data_dir: str | None = None
    """Folder of the NAB corpus."""
    units: PositiveInt = 10
    """Units of the LSTM."""
    learning_rate: Positive = 0.005
    clip: Positive = 0.5
    """Greatest absolute value of an entry of the gradient."""
    batch_size: PositiveInt = 10
    epochs: PositiveInt = 40
    """Most epochs."""
    patience: PositiveInt = 5
    """Stop when more epochs than this in a row had no lower validation loss."""
    charts: PositiveInt = 100
    """Charts of each class."""
    longest: PositiveInt = 200
    """Most steps of a piece of a NAB series."""
    seed: Seed = 123

    def __post_init__(self) -> None:
        super().__post_init__()
        if "windows" not in self.tasks:
            takes_no_folder("charts", "a generator of random numbers", self.data_dir)


def main(config: Config) -> None:
    with config.open("epochs", "patience") as record:
        for name in config.tasks:
            record.row(trained(name, config, record.folder))
        for row in record.rows():
            figures.print_table([row])


class Sequences(NamedTuple):
    """Values [n, time, 1], labels int32 [n, time], and 1.0 where a step counts, [n, time]."""

    values: np.ndarray
    labels: np.ndarray
    counts: np.ndarray

    def part(self, chosen: np.ndarray) -> "Sequences":
        return Sequences(*(field[chosen] for field in self))

    def batch(self) -> tuple[Any, Any]:
        return self.values, (self.labels, self.counts)


def charts(key: jax.Array, each: int) -> Sequences:
    """Draw `each` charts of every class; only the last step counts."""
    values, classes = control_charts(key, each)
    counts = np.zeros(values.shape, np.float32)
    counts[:, -1] = 1
    labels = np.broadcast_to(classes[:, None], values.shape)
    return Sequences(values[..., None], labels, counts)


def series_pieces(data_dir: str | None, longest: int) -> tuple[Sequences, np.ndarray]:
    """Cut NAB series into pieces after their probation, and return each piece's series too.

    Pieces are padded at the end. Values are standardised by the probation and clipped to [-10, 10];
    a step's label is 1 within a window.
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
    """Split the charts, or the series: 60 % training, 15 % validation, 25 % test."""
    key = jax.random.key(config.seed)
    if name == "charts":
        data = charts(key, config.charts)
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
    """Sum the cross-entropy of the steps that count, and average it over the batch."""
    classes, counts = labels
    each = optax.softmax_cross_entropy_with_integer_labels(outputs, classes)
    return (counts * each).sum() / counts.shape[0]


def accuracy(outputs: jax.Array, labels: Any) -> dict[str, jax.Array]:
    classes, counts = labels
    right = outputs.argmax(-1) == classes
    return {"accuracy": (counts * right).sum() / jnp.maximum(counts.sum(), 1)}


def xavier(key: jax.Array, params: Any) -> Any:
    """Draw normal weights of variance 2 / (inputs + outputs); forget gates start open."""
    flat: dict[Any, Any] = dict(flatten_dict(params))
    init = jax.nn.initializers.glorot_normal()
    for number, (path, leaf) in enumerate(sorted(flat.items())):
        if path[-1] == "kernel":
            flat[path] = init(jax.random.fold_in(key, number), leaf.shape)
        elif path[-2:] == ("cell1", "bias"):
            flat[path] = leaf.at[leaf.size // 4 : leaf.size // 2].set(1.0)
    return unflatten_dict(flat)


def evaluation(outputs: jax.Array, data: Sequences) -> dict[str, float]:
    """Compute the accuracy and, for two classes, how often the right step ranks higher (AUC)."""
    found = {"accuracy": float(jax.jit(accuracy)(outputs, data.batch()[1])["accuracy"])}
    if outputs.shape[-1] == 2:
        from sklearn.metrics import roc_auc_score

        counted = data.counts > 0
        found["AUC"] = float(
            roc_auc_score(data.labels[counted], (outputs[..., 1] - outputs[..., 0])[counted])
        )
    return found


def trained(name: str, config: Config, folder: runs.RunFolder) -> dict[str, Any]:
    train, validation, test = split(name, config)
    if len(np.unique(train.labels[train.counts > 0])) < 2:
        raise InputError(
            f"The training steps of {name} are all of one class, expected some of each."
        )
    model = RecurrentNet(len(CLASSES) if name == "charts" else 2, config.units, 1, GravesLSTMCell)
    optimizer = optax.chain(
        optax.clip(config.clip), optax.sgd(config.learning_rate, momentum=0.9, nesterov=True)
    )
    state = training.init(jax.random.key(config.seed), model, optimizer, jnp.asarray(train.values))
    params = xavier(jax.random.fold_in(jax.random.key(config.seed), 2), state.params)
    fitted = runs.fit(
        name,
        state._replace(params=params),
        training.train_step(model, optimizer, loss, metrics=accuracy),
        training.evaluation(model, loss, metrics=accuracy),
        training.in_memory(train.batch(), config.batch_size),
        validation.batch(),
        epochs=config.epochs,
        folder=folder,
        patience=config.patience,
        score=runs.least_loss,
    )
    history, variables = fitted.history, {"params": fitted.last.params}
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
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables)),
        "epochs": len(history["test_loss"]),
        "train accuracy / %": round(100 * history["train_accuracy"][-1], 2),
        "validation accuracy / %": round(100 * history["test_accuracy"][-1], 2),
        **{
            f"test {key} / %": round(100 * value, 2)
            for key, value in evaluation(before, test).items()
        },
        "majority class / %": round(100 * np.bincount(counted).max() / counted.size, 2),
        "reloaded": "same bits",
        "seconds / epoch": round(float(np.median(history["seconds"])), 3),
    }


if __name__ == "__main__":
    run(main, Config)
