r"""Does a network that foretells the next event of a log find lines that it has not learned?

Answer: On an excerpt of 2,000 lines it raises 6 alarms in the last 500, of which 5 are lines that
fit no template. The excerpt is too short to say more.

    python experiments/anomaly/anomaly_logs.py --file service.log \
        --log-format "<Date> <Time> <Content>"

DeepLog's LSTM (`nnlab.models.NextEvent`) on the text of a log as it is: the templates of its first
lines are mined with drain3 (`pip install 'nnlab[series]'`), every line becomes an event, and the
network learns which event follows the last ones of the same session, or, without --session, of the
whole log. Of the lines to train on the last are held out: they say when to stop, and which surprise
is unusual. Without a file it is the excerpt of HDFS's log in loghub, 2,000 lines drawn from a log
of 11 million, so that a block has hardly more than one of them, and what comes next is mostly a
matter of chance: a trial of the whole way, not of the detector; for that see `anomaly_hdfs.py`.

What is saved, `network.safetensors`, holds the network, the templates and the threshold, and
watches a log that grows:

    python -m nnlab watch runs/anomaly_logs service.log

Published: nothing that compares. Ours, seed 0: 12 templates in the first 1,200 lines; the mean
surprise of the 300 lines held out is 1.84 nats, and 2.38 by how often an event comes, each with one
line that fits no template, at 100 nats, among them. In the last 500 lines 6 alarms, 5 of such
lines. 53,581 parameters, 12 epochs in 1.3 seconds on one core of an AMD EPYC
(`results/anomaly_logs.json` and `.png`).

    python experiments/anomaly/anomaly_logs.py --data-dir DIR
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import (
    figures,
    runs,
    series,
    training,
)
from nnlab.errors import InputError
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.files import SavedModel
from nnlab.models import NextEvent, save_model
from nnlab.runs.script import (
    check_count,
    check_fraction,
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)
from nnlab.series import LogDetector
from nnlab.series.alarms import alarms, threshold_for
from nnlab.series.hdfs import hdfs_log
from nnlab.series.log_detector import MOST
from nnlab.series.log_transformation import LogTransformation
from nnlab.series.logs import HDFS_FORMAT
from nnlab.series.templates import HDFS_MASKS

NAME = "next event"


@dataclasses.dataclass(frozen=True)
class Config:
    file: str | None = None
    """A log; by default loghub's excerpt of HDFS's."""
    log_format: str = HDFS_FORMAT
    """What its lines begin with; the last field is what is said."""
    masks: tuple[str, ...] = HDFS_MASKS
    """Regular expressions for what varies, such as addresses."""
    session: str | None = None
    r"""Regular expression for the names of a line's sessions, such as blk_-?\d+."""
    data_dir: str | None = None
    """Folder with hdfs/loghub-2k."""
    train: float = 0.75
    """Part of the lines to train on; the others are only scored."""
    held_out: float = 0.2
    """Part of these, the last, that chooses the epoch and the threshold."""
    max_malformed: float = 0.01
    """Largest part of the lines that may be malformed."""
    alarms: float = 1.0
    """That may come in 1,000 lines as they should be."""
    similarity: float = 0.5
    """Part of the tokens that Drain wants equal in the lines of a template."""
    units: int = 64
    """Of each of two layers."""
    window: int = 10
    """Events that the network reads."""
    epochs: int = 30
    patience: int = 4
    """End when more epochs than this in a row have not been better on held-out lines."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0
    out: str = "runs/anomaly_logs"
    """Folder of the run."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    resume: bool = False
    """Go on with the run in that folder, or start it."""

    def __post_init__(self):
        for name in ("train", "held_out", "max_malformed", "similarity"):
            check_fraction(name, getattr(self, name))
        for name in ("units", "window", "epochs", "batch_size"):
            check_positive_integer(name, getattr(self, name))
        for name in ("alarms", "learning_rate"):
            check_positive(name, getattr(self, name))
        check_count("patience", self.patience)
        check_seed("seed", self.seed)
        if self.window > 1000:
            raise InputError(f"--window must be at most 1000, not {self.window}.")


def main(config: Config) -> None:
    table = series.read_log(
        config.file or hdfs_log(config.data_dir),
        config.log_format,
        max_malformed=config.max_malformed,
    )
    print(table.report())
    contents = [str(text) for text in list(table.columns.values())[-1]]
    stop = round(config.train * len(contents))
    fitted = stop - round(config.held_out * stop)
    if fitted < config.batch_size or fitted == stop:
        raise InputError(
            f"{len(contents)} lines give {fitted} to fit and {stop - fitted} held out; expected at"
            f" least {config.batch_size} (--batch-size) and 1."
        )
    templates = series.mine_templates(contents[:fitted], config.masks, similarity=config.similarity)
    record = LogTransformation(config.log_format, templates, config.session, config.window)
    events = [templates.event(content) for content in contents]
    folder = runs.RunFolder.create(config.out, config, config.overwrite, config.resume)
    parts = [slice(0, fitted), slice(fitted, stop), slice(stop, None)]
    windows = [of_part(record, contents[part], events[part]) for part in parts]
    model = NextEvent(len(templates.templates), config.units, window=config.window)
    variables, history = trained(model, windows[0], windows[1], config, folder)
    notes: dict[str, Any] = {"log": record.to_json(), "threshold": MOST}
    detector = LogDetector(SavedModel(model, variables, notes))
    held, rest = (detector.scores(each.before, each.next) for each in windows[1:])
    seen = held[held < MOST]  # a template that is not known is an anomaly whatever the others are
    threshold = threshold_for(seen if len(seen) else held, config.alarms * len(held) / 1000)
    notes["threshold"] = threshold
    window = jax.ShapeDtypeStruct((1, config.window), jnp.int32)
    save_model(folder.network, model, variables, window, notes=notes, overwrite=True)
    row = {
        "lines to fit": fitted,
        "held out": stop - fitted,
        "malformed": table.malformed,
        "templates": len(templates.templates),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables)),
        "best epoch": 1 + int(np.argmin(history["test_loss"])),
        "surprise held out / nats": float(held.mean()),
        "without the events before / nats": by_frequency(windows[0].next, windows[1].next, model),
        "threshold / nats": threshold,
        "alarms held out": alarms(held, threshold),
        "lines scored": len(contents) - stop,
        "alarms": alarms(rest, threshold),
        "seconds": sum(history["seconds"]),
    }
    result = {"config": dataclasses.asdict(config), "table": [row], "history": history}
    folder.write_result(runs.provenance() | result)
    figure(held, rest, threshold).savefig(folder.curves, dpi=120)
    figures.print_table([{"": key, "value": value} for key, value in row.items()])
    print(f"Watch a log: python -m nnlab watch {config.out} FILE")


def of_part(
    record: LogTransformation, contents: Sequence[str], events: Sequence[int]
) -> series.Windows:
    """Each event with those before it, of sessions that begin with the part."""
    if record.session is None:
        sessions: Sequence[Sequence[int]] = [events]
    else:
        named, nameless = series.sessions_by_name(contents, events, record.session)
        sessions = list(named.values())
        print(f"{len(named):,} sessions, {nameless:,} lines in none")
    if not any(sessions):
        return series.Windows(*np.zeros((3, 0), np.int32))._replace(
            before=np.zeros((0, record.window), np.int32)
        )
    return series.next_event_windows(sessions, record.window)


def trained(
    model: NextEvent,
    fit: series.Windows,
    held: series.Windows,
    config: Config,
    folder: runs.RunFolder,
) -> tuple[Any, dict[str, list[float]]]:
    """The variables of the epoch that was best on the held-out events."""

    def loss(logits: jax.Array, events: jax.Array) -> jax.Array:
        """Over events that are known; no network can foretell the others."""
        known = events < model.events
        found = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, events, 0))
        return jnp.where(known, found, 0.0).mean()

    examples, tests = ((jnp.asarray(each.before), jnp.asarray(each.next)) for each in (fit, held))
    feed = training.in_memory(examples, config.batch_size)
    optimizer = optax.adam(config.learning_rate)
    last, history = runs.fit(
        NAME,
        training.init(jax.random.key(config.seed), model, optimizer, examples[0]),
        training.train_step(model, optimizer, loss),
        training.evaluation(model, loss),
        feed,
        tests,
        epochs=config.epochs,
        folder=folder,
        patience=config.patience,
        score=runs.least_loss,
    )
    best, _ = runs.best_state(NAME, last, history, folder, runs.least_loss)
    return {"params": best.params}, history


def by_frequency(fit: np.ndarray, held: np.ndarray, model: NextEvent) -> float:
    """Mean surprise of held-out events by how often each came, one added."""
    counts = Counter(fit.tolist())
    total = len(fit) + model.events
    nats = (
        math.log(total / (counts[event] + 1)) if event < model.events else MOST
        for event in held.tolist()
    )
    return math.fsum(nats) / len(held)


def figure(held: np.ndarray, rest: np.ndarray, threshold: float):
    """Surprise by line."""
    split = len(held) + np.arange(len(rest))
    lines = [
        Line("held out", np.arange(len(held)), held, 1),
        Line("others", split, rest, 0),
        Line("threshold", [0, len(held) + len(rest)], [threshold] * 2, None, True),
    ]
    return figure_panels([Panel("", "event", "surprise / nats", lines)])


if __name__ == "__main__":
    run(main, Config)
