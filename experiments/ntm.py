"""Does a network with a memory of its own learn algorithms, where an LSTM learns examples?

The five tasks of the Neural Turing Machine (`nnlab.data.algorithmic_tasks`), each learnt by one
with a feed-forward controller of 100 units or one with an LSTM of 100, and by a stacked LSTM, from
the same batches and with the same optimiser: Adam with a cosine to 0 and clipping by norm, not the
paper's RMSProp, after Collier & Beel, https://arxiv.org/abs/1807.08518. Measured in bits a
sequence, on 100 new sequences of the training's lengths and on as many of others.

Published (Graves, Wayne & Danihelka, 2014, https://arxiv.org/abs/1410.5401, sections 4.1 to 4.5; an
episode is one sequence, not one batch): on copying the NTM comes to nearly 0 much sooner than the
LSTM and goes on to lengths well beyond 20; repeat copy generalises in length and in number, but the
end marker is miscounted; on associative recall it is near 0 after about 30,000 episodes, the LSTM
not after a million, and near perfect to 12 items; on n-grams it is slightly better than the LSTM
and never optimal; it sorts better than the LSTM. The paper's LSTMs are larger, of 3 layers of 128
to 512 units.

    python experiments/ntm.py --task copy --epochs 20
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from nnlab import analysis, training
from nnlab.analysis.heatmaps import HeatMap, figure_heatmaps
from nnlab.analysis.panels import Line, Panel, figure_panels
from nnlab.data import algorithmic_tasks as tasks
from nnlab.data.episode_scores import bits_per_sequence, wholly_right
from nnlab.layers import LSTMCell
from nnlab.models import NTM, RecurrentNet
from nnlab.training.script import (
    check_choices,
    check_count,
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)

Make = Callable[[jax.Array, int], tasks.Episodes]
TESTED = 100  # episodes a length
SEEN = "training"  # the lengths of the training


class Task(NamedTuple):
    """Episodes to train on, others to test on by name, and the heads of the NTM of each kind."""

    make: Callable[..., tasks.Episodes]
    tests: dict[str, dict[str, Any]]
    heads: int = 1


def each(name: str, *counts: int) -> dict[str, dict[str, Any]]:
    return {f"{name[:-1]} {count}": {name: (count, count)} for count in counts}


def repeated(*pairs: tuple[int, int]) -> dict[str, dict[str, Any]]:
    return {f"length {n}, {r} times": {"lengths": (n, n), "repeats": (r, r)} for n, r in pairs}


TASKS = {
    "copy": Task(tasks.copy, each("lengths", 10, 20, 30, 50, 120)),
    "repeat_copy": Task(tasks.repeat_copy, repeated((10, 10), (10, 15), (10, 20), (20, 10))),
    "associative_recall": Task(
        tasks.associative_recall, each("items", 2, 6, 8, 10, 12, 15, 20), heads=2
    ),
    "ngrams": Task(tasks.ngrams, {}),
    "priority_sort": Task(tasks.priority_sort, {}, heads=4),
}
NETWORKS = ("NTM", "NTM-LSTM", "LSTM")


@dataclasses.dataclass(frozen=True)
class Config:
    task: str = "copy"
    """copy, repeat_copy, associative_recall, ngrams or priority_sort."""
    networks: tuple[str, ...] = ("NTM", "LSTM")
    """Some of NTM (feed-forward controller), NTM-LSTM (LSTM controller) and LSTM."""
    epochs: int = 40
    """An epoch is `steps` steps, then the networks are tested."""
    steps: int = 250
    batch_size: int = 16
    learning_rate: float = 1e-3
    """Of Adam at the start of its cosine."""
    clip: float = 10.0
    """Norm to which gradients are clipped."""
    lstm_layers: int = 3
    lstm_width: int = 128
    """Units a layer of the LSTM."""
    heads: int = 0
    """Of the NTM, of each kind; 0 is the task's own number."""
    seed: int = 0
    out: str = "runs/ntm"
    """Folder of the run."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    resume: bool = False
    """Go on with the run in that folder, or start it."""

    def __post_init__(self):
        check_choices("task", (self.task,), TASKS)
        check_choices("networks", self.networks, NETWORKS)
        for field in ("epochs", "steps", "batch_size", "lstm_layers", "lstm_width"):
            check_positive_integer(field, getattr(self, field))
        check_positive("learning_rate", self.learning_rate)
        check_positive("clip", self.clip)
        check_count("heads", self.heads)
        check_seed("seed", self.seed)


def network(name: str, outputs: int, heads: int, config: Config) -> nn.Module:
    if name == "LSTM":
        return RecurrentNet(outputs, config.lstm_width, config.lstm_layers)
    controller = LSTMCell if name == "NTM-LSTM" else None
    return NTM(outputs, controller, read_heads=heads, write_heads=heads)


def main(config: Config) -> None:
    folder = training.RunFolder.create(config.out, config, config.overwrite, config.resume)
    task = TASKS[config.task]
    test = task.make(jax.random.key(config.seed + 1), TESTED)
    rows, trainings, curves = [], [], {}
    if config.task == "ngrams":
        rows.append(scores("optimal", SEEN, tasks.ngram_estimates(test[0]), test[1]))
    for name in config.networks:
        model: Any = network(name, test[1][0].shape[-1], config.heads or task.heads, config)
        state, history = trained(name, model, task, test, config, folder)
        variables = {"params": state.params}
        apply = jax.jit(model.apply)
        rows.append(scores(name, SEEN, apply(variables, test[0]), test[1]))
        for number, (about, options) in enumerate(task.tests.items()):
            key = jax.random.key(config.seed + 2 + number)
            inputs, labels = task.make(key, TESTED, **options)
            rows.append(scores(name, about, apply(variables, inputs), labels))
        if name != "LSTM":
            options = list(task.tests.values())[1:2] or [{}]
            episode = task.make(jax.random.key(config.seed), 1, **options[0])
            maps(model, variables, episode).savefig(folder.path / f"{name}.png", dpi=120)
        curves[name] = {key: values for key, values in history.items() if "test" in key}
        counts = analysis.count(model.apply, variables, test[0][:1]).totals()
        trainings.append(
            {
                "network": name,
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
                "multiply-adds / step": counts["multiplications"] // test[0].shape[1],
                "sequences": config.epochs * config.steps * config.batch_size,
                "minutes": sum(history["seconds"]) / 60,
            }
        )
        result = {"config": dataclasses.asdict(config), "trainings": trainings, "tests": rows}
        folder.write_result(training.provenance() | result | {"curves": curves})
    figure(curves, rows, config).savefig(folder.curves, dpi=120)
    analysis.print_table(trainings)
    analysis.print_table(rows)


def trained(name, model, task, test, config: Config, folder):
    steps = config.epochs * config.steps
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps)),
    )
    return training.fit(
        name,
        training.init(jax.random.key(config.seed), model, optimizer, test[0]),
        training.train_step(model, optimizer, bits_per_sequence, metrics=wholly_right),
        training.evaluation(model, bits_per_sequence, TESTED, metrics=wholly_right),
        training.generated(functools.partial(task.make, batch=config.batch_size), config.steps),
        test,
        epochs=config.epochs,
        folder=folder,
        score=training.least_loss,
    )


def scores(name: str, about: str, logits: jax.Array, labels) -> dict[str, Any]:
    bits, right = bits_per_sequence(logits, labels), wholly_right(logits, labels)["right"]
    return {"network": name, "test": about, "bits": float(bits), "right / %": 100 * float(right)}


def maps(model: Any, variables, episode):
    """What goes in and comes out of one episode, and where the memory is written and read."""
    inputs, (targets, mask) = episode
    logits, weightings, _ = model.apply(variables, inputs, method="unroll")
    outputs = jax.nn.sigmoid(logits[0]) * mask[0][:, None]
    pictures = [
        HeatMap("input", "", inputs[0]),
        HeatMap("wanted", "", targets[0]),
        HeatMap("output", "", outputs),
    ]
    for head in range(weightings.shape[2]):
        kind = "read" if head < model.read_heads else "write"
        values = np.asarray(weightings[0, :, head])
        pictures.append(HeatMap(f"{kind} weighting", "location", values))
    return figure_heatmaps(pictures, "step")


def figure(curves, rows, config: Config):
    """Bits a sequence after so many sequences; dashed, what is best for n-grams."""
    lines = []
    for colour, (name, history) in enumerate(curves.items()):
        bits = np.maximum(history["test_loss"], 1e-4)
        seen = config.steps * config.batch_size * np.arange(1, len(bits) + 1)
        lines.append(Line(name, seen, bits, colour))
    for row in rows:
        if row["network"] == "optimal":
            ends = [0, config.epochs * config.steps * config.batch_size]
            lines.append(Line("optimal", ends, [row["bits"]] * 2, None, True))
    scale = "linear" if config.task == "ngrams" else "log"
    panel = Panel(config.task, "sequences", "bits / sequence", lines, ("linear", scale))
    return figure_panels([panel])


if __name__ == "__main__":
    run(main, Config)
