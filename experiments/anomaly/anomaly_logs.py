r"""Does a network that predicts the next event of a log find lines that it has not learned?

Answer: On an excerpt of 2,000 lines it raises 6 alarms in the last 500, of which 5 are lines that
fit no template. The excerpt is too short to say more.

    python experiments/anomaly/anomaly_logs.py --file service.log \
        --log-format "<Date> <Time> <Content>"

DeepLog's LSTM (`nnlab.models.NextEvent`) on any log: drain3 (`pip install '.[series]'`) mines
the templates of its first lines, every line becomes an event, and the network learns which event
follows the last ones of the same session or, without --session, of the whole log. The last of the
lines to train on are held out: they decide when to stop and which surprise is unusual. Without a
file it is loghub's excerpt of HDFS's log, 2,000 lines drawn from 11 million, so that a block hardly
ever has more than one of them, and what comes next is mostly a matter of chance: a trial of the
whole way, not of the detector; for that see `anomaly_hdfs.py`.

The file `network.safetensors` holds the network, the templates and the threshold, and watches a log
that grows:

    nnlab watch runs/anomaly_logs service.log

Published: nothing that compares. Ours, seed 0: 12 templates in the first 1,200 lines; the mean
surprise of the 300 lines held out is 1.84 nats, and 2.38 by how often an event comes; both include
one line that fits no template, at 100 nats. In the last 500 lines there are 6 alarms, 5 of them for
such lines. 53,581 parameters, 12 epochs in 1.3 seconds on one core of an AMD EPYC
(`results/anomaly_logs.json` and `.png`).

    python experiments/anomaly/anomaly_logs.py --data-dir DIR
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import figures, runs, series, training
from nnlab.data.locate import takes_no_folder
from nnlab.errors import InputError
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.files import SavedModel
from nnlab.models import NextEvent, save_model
from nnlab.runs.fields import Check, Count, Fraction, Positive, PositiveInt, Seed
from nnlab.runs.script import run
from nnlab.series import LogDetector
from nnlab.series.alarms import alarms, threshold_for
from nnlab.series.hdfs import hdfs_log
from nnlab.series.log_detector import MOST
from nnlab.series.log_transformation import LogTransformation
from nnlab.series.logs import HDFS_FORMAT
from nnlab.series.templates import HDFS_MASKS

NAME = "next event"


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/anomaly_logs"
    file: str | None = None
    """A log; by default loghub's excerpt of HDFS's."""
    log_format: str = HDFS_FORMAT
    """What its lines begin with; the last field is the content."""
    masks: tuple[str, ...] = HDFS_MASKS
    """Regular expressions for what varies, such as addresses."""
    session: str | None = None
    r"""Regular expression for the names of a line's sessions, such as blk_-?\d+."""
    data_dir: str | None = None
    """Folder with hdfs/loghub-2k."""
    train: Fraction = 0.75
    """Share of the lines to train on; the others are only scored."""
    held_out: Fraction = 0.2
    """Share of these, the last, that decides on the epoch and the threshold."""
    max_malformed: Fraction = 0.01
    """Largest share of malformed lines."""
    alarms: Positive = 1.0
    """Alarms to allow in 1,000 normal lines."""
    similarity: Fraction = 0.5
    """Share of tokens that are equal in the lines of a template, for Drain."""
    units: PositiveInt = 64
    """Units in each of two layers."""
    window: Annotated[PositiveInt, Check("at most 1000", lambda n: n <= 1000)] = 10
    """Events that the network reads."""
    epochs: PositiveInt = 30
    patience: Count = 4
    """Stop when more epochs than this in a row were no better on held-out lines."""
    batch_size: PositiveInt = 64
    learning_rate: Positive = 1e-3
    seed: Seed = 0


def main(config: Config) -> None:
    if config.file is not None:
        takes_no_folder("--file", "its path", config.data_dir)
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
    log = LogTransformation(config.log_format, templates, config.session, config.window)
    events = [templates.event(content) for content in contents]
    with config.open("epochs", "patience") as record:
        parts = [slice(0, fitted), slice(fitted, stop), slice(stop, None)]
        windows = [of_part(log, contents[part], events[part]) for part in parts]
        model = NextEvent(len(templates.templates), config.units, window=config.window)
        trained = train(model, windows[0], windows[1], config, record.folder)
        variables, history = {"params": trained.best.params}, trained.history
        notes: dict[str, Any] = {"log": log.to_json(), "threshold": MOST}
        detector = LogDetector(SavedModel(model, variables, notes))
        held, rest = (detector.score_events(each.before, each.next) for each in windows[1:])
        seen = held[held < MOST]  # an unknown template is an anomaly whatever the others are
        threshold = threshold_for(seen if len(seen) else held, config.alarms * len(held) / 1000)
        notes["threshold"] = threshold
        window = jax.ShapeDtypeStruct((1, config.window), jnp.int32)
        save_model(record.folder.network, model, variables, window, notes=notes, overwrite=True)
        row = {
            "lines to fit": fitted,
            "held out": stop - fitted,
            "malformed": table.malformed,
            "templates": len(templates.templates),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables)),
            "best epoch": trained.best_epoch,
            "surprise held out / nats": float(held.mean()),
            "without the events before / nats": by_frequency(
                windows[0].next, windows[1].next, model
            ),
            "threshold / nats": threshold,
            "alarms held out": alarms(held, threshold),
            "lines scored": len(contents) - stop,
            "alarms": alarms(rest, threshold),
            "seconds": sum(history["seconds"]),
        }
        record.result({"table": [row], "history": history})
        record.figure(figure(held, rest, threshold))
    figures.print_table([{"": key, "value": value} for key, value in row.items()])
    print(f"Watch a log: nnlab watch {config.out} FILE")


def of_part(
    log: LogTransformation, contents: Sequence[str], events: Sequence[int]
) -> series.Windows:
    """Return each event with those before it; sessions begin with the part."""
    if log.session is None:
        sessions: Sequence[Sequence[int]] = [events]
    else:
        named, nameless = series.sessions_by_name(contents, events, log.session)
        sessions = list(named.values())
        print(f"{len(named):,} sessions, {nameless:,} lines in none")
    if not any(sessions):
        return series.Windows(*np.zeros((3, 0), np.int32))._replace(
            before=np.zeros((0, log.window), np.int32)
        )
    return series.next_event_windows(sessions, log.window)


def train(
    model: NextEvent,
    fit: series.Windows,
    held: series.Windows,
    config: Config,
    folder: runs.RunFolder,
) -> runs.Trained:
    """Train the network, scored by its loss on the held-out events."""

    def loss(logits: jax.Array, events: jax.Array) -> jax.Array:
        """Average over all events, but count only known ones; nobody can predict the others."""
        known = events < model.events
        found = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, events, 0))
        return jnp.where(known, found, 0.0).mean()

    examples, tests = ((jnp.asarray(each.before), jnp.asarray(each.next)) for each in (fit, held))
    feed = training.in_memory(examples, config.batch_size)
    optimizer = optax.adam(config.learning_rate)
    return runs.fit(
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


def by_frequency(fit: np.ndarray, held: np.ndarray, model: NextEvent) -> float:
    """Return the mean surprise of held-out events by how often each came, plus one."""
    counts = Counter(fit.tolist())
    total = len(fit) + model.events
    nats = (
        math.log(total / (counts[event] + 1)) if event < model.events else MOST
        for event in held.tolist()
    )
    return math.fsum(nats) / len(held)


def figure(held: np.ndarray, rest: np.ndarray, threshold: float):
    """Draw the surprise of each line."""
    split = len(held) + np.arange(len(rest))
    lines = [
        Line("held out", np.arange(len(held)), held, 1),
        Line("others", split, rest, 0),
        Line("threshold", [0, len(held) + len(rest)], [threshold] * 2, None, True),
    ]
    return figure_panels([Panel("", "event", "surprise / nats", lines)])


if __name__ == "__main__":
    run(main, Config)
