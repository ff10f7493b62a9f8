"""Does a network that predicts the next event of a log find abnormal sessions?

Answer: Yes. At the published ratio of normal to abnormal sessions its F1 is 91.1 % in float and
91.5 % with adders and with signs (DeepLog: 96 %). The published normal test sessions are lost, so
training sessions that were held out take their place.

DeepLog's LSTM (`nnlab.models.NextEvent`) in float, with adders and with signs, on the sessions of
the HDFS log. A session is abnormal if one of its events, or its end, is not among the k likeliest.
Published (Du et al., DeepLog, CCS 2017): F1 96 % at k = 9, trained on 4,855 normal sessions, tested
on 553,366 other normal ones and 16,838 abnormal ones.

The other normal sessions of that test are no longer published. So the 4,855 are split into folds: a
network is trained on all but one fold and tested on that one, so that each normal session is scored
by a network that has not seen it (though perhaps one like it: there are 839 different ones), and on
all abnormal sessions. Precision depends on how many sessions are abnormal: with P abnormal ones
among P + N, and a share f of false alarms among the normal ones,

    precision = recall P / (recall P + f N).                                                  (1)

It is given for the sessions at hand ("here") and for the numbers of the published test; one false
alarm among 4,855 is worth 0.6 points there.

"surprise" is another rule on the same network: a session is abnormal if an event, or its end, had a
probability below exp(-threshold). Baselines: tables of n-grams, which rank an event that never
followed the n - 1 before it last, and "unseen", which looks only for events that training lacks.

Ours, 3 folds, 5 epochs, seed 0; 7 minutes of training on one core of an AMD EPYC that was shared
with another training (`results/anomaly_hdfs.json` and `.png`); F1 at its best threshold (each was
tried, and none was chosen on other sessions):

=============  =========  ============  ======  =========  ====  =========
detector       threshold  false alarms  recall  precision  F1    F1 here
=============  =========  ============  ======  =========  ====  =========
float LSTM     k = 6      0.66          100.0   82.2       90.2  99.9
adder LSTM     k = 5      0.76          97.1    79.5       87.4  98.4
binary LSTM    k = 6      0.68          97.3    81.3       88.6  98.5
float LSTM     7 nats     0.49          97.2    85.7       91.1  98.5
adder LSTM     8 nats     0.43          96.2    87.1       91.5  98.0
binary LSTM    8 nats     0.37          94.6    88.6       91.5  97.2
float LSTM     k = 9      0.31          80.1    88.7       84.2  88.9
2-grams        k = 13     0.27          83.6    90.5       86.9  91.0
6-grams        k = 8      3.95          100     43.5       60.6  99.4
unseen         1          0             47.0    100        63.9  63.9
=============  =========  ============  ======  =========  ====  =========

All in %. The three arithmetics find about the same. At the paper's k = 9 our float networks miss a
fifth of the abnormal sessions: of the 28 events in the files they know the 14 that occur in normal
sessions, so that nine allow most. 47 % of the abnormal sessions hold an event that training lacks,
which no network is needed to find; most of the others end too early, so it is decisive to score the
end of a session. The rank of an event that was never seen at its place is a matter of chance
between networks, its probability is not, and so surprise is the better rule.

    python experiments/anomaly/anomaly_hdfs.py --data-dir DIR
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import figures, runs, series, training
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import InputError
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.models import NextEvent, save_model
from nnlab.runs.fields import DataDir, Positive, PositiveInt, Seed, SomeOf
from nnlab.runs.script import run
from nnlab.series.hdfs import ABNORMAL_IN_TEST, NORMAL_IN_TEST
from nnlab.series.next_event import ranks

ARITHMETICS = {"float": FLOAT, "adder": ADDER, "binary": BINARY}
Scorer = Callable[[series.Windows], np.ndarray]  # ranks, or surprise in nats, of the events
SURPRISE = ", surprise"
RANKS, NATS = range(1, 14), range(1, 21)


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/anomaly_hdfs"
    networks: Annotated[tuple[str, ...], SomeOf(ARITHMETICS)] = ("float", "adder", "binary")
    data_dir: DataDir = None
    folds: PositiveInt = 3
    """Parts of the normal sessions, at least 2."""
    sessions: PositiveInt = 16_838
    """Most sessions of each kind."""
    epochs: PositiveInt = 5
    batch_size: PositiveInt = 256
    learning_rate: Positive = 0.003
    """Peak learning rate of Adam (cosine decay)."""
    features: PositiveInt = 64
    """Units in each of the two layers."""
    window: PositiveInt = 10
    """Events that the network reads."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds < 2:
            raise InputError(f"--folds must be at least 2, not {self.folds}.")


def main(config: Config) -> None:
    normal, abnormal = (each[: config.sessions] for each in series.load_hdfs(config.data_dir))
    folds = np.arange(len(normal)) % config.folds
    folds = np.random.default_rng(config.seed).permutation(folds)
    largest = collections.defaultdict(list)  # scores by detector: of normal and abnormal sessions
    with config.open() as record:
        for fold in range(config.folds):
            seen = [session for session, part in zip(normal, folds, strict=True) if part != fold]
            held = [session for session, part in zip(normal, folds, strict=True) if part == fold]
            known = sorted(set(itertools.chain(*seen)))
            train, *both = (
                series.next_event_windows(numbered(some, known), config.window, len(known) + 1)
                for some in (seen, held, abnormal)
            )
            scorers: dict[str, Scorer] = {f"{n}-grams": ngrams(train, n) for n in (2, 3, 6)}
            scorers["unseen"] = functools.partial(unseen, len(known))
            for network in config.networks:
                rules = trained(network, fold, train, both[0], known, config, record.folder)
                scorers |= {f"{network} LSTM{rule}": scorer for rule, scorer in rules.items()}
            for name, scorer in scorers.items():
                parts = [of_sessions(scorer(windows), windows.session) for windows in both]
                largest[name].append(parts)
        table = [
            row(name, threshold, [np.concatenate(each) for each in zip(*parts, strict=True)])
            for name, parts in largest.items()
            for threshold in thresholds(name)
        ]
        record.result({"table": table})
        record.figure(figure(table))
    figures.print_table([row for row in table if row["threshold"] in (1, 5, 6, 8, 9)])


def thresholds(name: str) -> Sequence[int]:
    return NATS if name.endswith(SURPRISE) else (1,) if name == "unseen" else RANKS


def numbered(sessions: Sequence[Sequence[int]], known: Sequence[int]) -> list[list[int]]:
    """Replace events by their places among the known ones, and others by how many these are."""
    places = {event: place for place, event in enumerate(known)}
    return [[places.get(event, len(known)) for event in session] for session in sessions]


def trained(
    network: str,
    fold: int,
    train: series.Windows,
    held: series.Windows,
    known: Sequence[int],
    config: Config,
    folder: runs.RunFolder,
) -> dict[str, Scorer]:
    """Train a network; return how it scores events, by rank and by surprise."""
    model = NextEvent(
        len(known),
        config.features,
        window=config.window,
        arithmetic=ARITHMETICS[network],
        norm=ARITHMETICS[network].needs_norm,
        absent=-1.0 if network == "binary" else 0.0,
    )
    examples, tests = ((jnp.asarray(each.before), jnp.asarray(each.next)) for each in (train, held))
    steps = config.epochs * training.steps_per_epoch(examples, config.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    key = jax.random.fold_in(jax.random.key(config.seed), fold)
    state = runs.fit(
        f"{network}_{fold}",
        training.init(key, model, optimizer, examples[0]),
        training.train_step(model, optimizer),
        training.evaluation(model),
        training.in_memory(examples, config.batch_size),
        tests,
        epochs=config.epochs,
        folder=folder,
    ).last
    variables = {"params": state.params}
    if (network, fold) == (config.networks[0], 0):
        notes = {"events": list(known), "window": config.window, "k": 9}
        window = jax.ShapeDtypeStruct((1, config.window), jnp.int32)
        save_model(folder.network, model, variables, window, notes=notes, overwrite=True)

    @jax.jit
    def scores(before: jax.Array, following: jax.Array) -> dict[str, jax.Array]:
        logits = training.in_batches(lambda b: model.apply(variables, b), before, 1024)
        surprise = optax.softmax_cross_entropy_with_integer_labels(logits, following)
        return {"": ranks(logits, following), SURPRISE: surprise}

    def scorer(rule: str, windows: series.Windows) -> np.ndarray:
        both = np.concatenate([windows.before, windows.next[:, None]], axis=1)
        different, place = np.unique(both, axis=0, return_inverse=True)
        return np.asarray(scores(different[:, :-1], different[:, -1])[rule])[place.ravel()]

    return {rule: functools.partial(scorer, rule) for rule in ("", SURPRISE)}


def unseen(known: int, windows: series.Windows) -> np.ndarray:
    """Score unknown events 999 and others 0."""
    return 999 * (windows.next == known)


def ngrams(train: series.Windows, n: int) -> Scorer:
    """Score an event by how many followed the n - 1 before it more often; 999 if it never did."""

    def grams(windows: series.Windows) -> zip:
        before = windows.before[:, windows.before.shape[1] - (n - 1) :].tolist()
        return zip(map(tuple, before), windows.next.tolist(), strict=True)

    followed = collections.defaultdict(collections.Counter)
    for before, event in grams(train):
        followed[before][event] += 1
    rank = {
        (before, event): sum(other > count for other in counts.values())
        for before, counts in followed.items()
        for event, count in counts.items()
    }
    return lambda windows: np.array([rank.get(gram, 999) for gram in grams(windows)])


def of_sessions(ranks: np.ndarray, session: np.ndarray) -> np.ndarray:
    """Return the largest rank of each session."""
    largest = np.zeros(session.max() + 1)
    np.maximum.at(largest, session, ranks)
    return largest


def row(name: str, threshold: int, largest: Sequence[np.ndarray]) -> dict[str, Any]:
    """Figures of a detector at one threshold, from the largest of normal and abnormal sessions."""
    false_alarms, recall = (float(np.mean(scores >= threshold)) for scores in largest)
    rates = {"false alarms / %": false_alarms, "recall / %": recall}
    for where, negatives in ((" here", len(largest[0])), ("", NORMAL_IN_TEST)):
        found, false = round(recall * ABNORMAL_IN_TEST), round(false_alarms * negatives)
        rates[f"precision{where} / %"] = found / max(found + false, 1)  # (1)
        rates[f"F1{where} / %"] = 2 * found / (found + false + ABNORMAL_IN_TEST)
    return {"detector": name, "threshold": threshold} | {
        key: round(100 * rate, 2) for key, rate in rates.items()
    }


def figure(table: Sequence[dict[str, Any]]):
    """Draw a line for each detector by its threshold; above by rank, below by surprise."""
    panels = []
    for rule, label in (("", "k"), (SURPRISE, "surprise / nats")):
        names = dict.fromkeys(row["detector"] for row in table if row["detector"] != "unseen")
        chosen = [name for name in names if name.endswith(SURPRISE) == bool(rule)]
        for key in ("false alarms / %", "recall / %", "F1 / %"):
            lines = []
            for colour, name in enumerate(chosen):
                rows = [row for row in table if row["detector"] == name]
                x, y = ([row[column] for row in rows] for column in ("threshold", key))
                lines.append(Line(name.removesuffix(rule), x, y, colour, "grams" in name))
            panels.append(Panel("", label, key, lines))
    return figure_panels(panels)


if __name__ == "__main__":
    run(main, Config)
