"""Does a character network know where it is in a Java program? Brackets, against an n-gram model.

Answer: Mostly. From depth 2 on, the bracket that is due is the network's likeliest next character
in 61 to 77 % of its places, and the n-gram model's in 28 to 45 %. But of 50 files that the network
writes none is balanced.

Only what has been kept since the opening bracket tells which closing one is due: an n-gram model of
order 5 sees four characters. Two measures, for a network that `experiments/text/char_lm.py --corpus
java` has trained, on the test files, by which nothing was chosen:

- Given the true text before a closing bracket: how often is that bracket the likeliest next
  character, and how often the likeliest of the three closing ones, by nesting depth.
- Of the files that each model writes: how many end, and how many end with all brackets balanced.

Brackets in strings and characters do not count (`experiments/text/brackets.py`).

Ours: the LSTM of 2×256 of `char_lm.py`, seed 0 (`results/java_brackets.json`, `.png`). At depths
from 2 on the due bracket is the likeliest character in 61 to 77 % of its places, and in 28 to 45 %
for the n-gram model. Of the three closing ones both name the right one, in 98 to 100 % and 96 to
100 %: mostly the four characters before suffice. Neither writes programs: of 50 files of the
network 70 % end, none of them balanced (at temperature 0.8 40 %, none); of the n-gram model's
files, half as long, 94 % end and one is balanced.

    python experiments/text/java_brackets.py runs/char_lm_java --data-dir DIR
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from brackets import CLOSING, hits_by_depth, nesting
from ngram import NGram, count_ngrams, probabilities, write

from nnlab import figures, runs
from nnlab.commands.generate import load
from nnlab.errors import InputError
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.files import SavedModel
from nnlab.runs.fields import Positive, PositiveInt, Seed
from nnlab.runs.script import run
from nnlab.sequences.corpora import SEPARATOR, load_text
from nnlab.sequences.generation import decode, prefill
from nnlab.sequences.text import Vocabulary

PIECE = 500  # characters at a time


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/java_brackets"
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = "runs/char_lm"
    """Folder of the run, or the file of the network."""
    corpus: str = "java"
    """What the network was trained on, as char_lm.py names it."""
    data_dir: str | None = None
    """Folder with the corpus."""
    order: PositiveInt = 5
    """Order of the n-gram model."""
    files: PositiveInt = 50
    """Files that each model writes."""
    longest: PositiveInt = 10_000
    """Characters after which a file is cut off without an end."""
    temperature: Positive = 0.8
    """Temperature at which the network writes besides 1."""
    deepest: PositiveInt = 7
    """This depth and all greater ones are one row."""
    seed: Seed = 0


def main(config: Config) -> None:
    saved = load(config.network)
    corpus = load_text(config.corpus, config.data_dir)
    if not (corpus.files and saved.notes.get("end") == SEPARATOR):
        raise InputError(
            f"{config.network} or {config.corpus} does not consist of files; expected a network"
            " trained on files, and the same files."
        )
    vocabulary = Vocabulary(saved.notes["vocabulary"])
    ngram = count_ngrams(vocabulary.encode(corpus.train), len(vocabulary), config.order)
    sources = corpus.test.split(SEPARATOR)[:-1]
    name = f"{config.order}-gram"
    predictors = {"network": of_network(saved), name: lambda text: probabilities(ngram, text)}
    with config.open() as record:
        rows = accuracies(predictors, sources, vocabulary, config.deepest)
        hot = config.temperature
        writers = {
            "network": by_network(saved, vocabulary, 1.0, config),
            f"network at {hot}": by_network(saved, vocabulary, hot, config),
            name: by_ngram(ngram, vocabulary, config),
            "commons-lang itself" if corpus.name == "java" else corpus.name: [
                (source, True) for source in sources
            ],
        }
        files = [balance(writer, texts) for writer, texts in writers.items()]
        record.result({"table": rows, "files": files})
        record.figure(figure(rows))
    figures.print_table(rows)
    figures.print_table(files)


def accuracies(
    predictors: dict[str, Any], sources: Sequence[str], vocabulary: Vocabulary, deepest: int
) -> list[dict[str, Any]]:
    """Measure how often predictors name the due bracket, by nesting depth."""
    depths, likeliest, of_three = [], [[], []], [[], []]
    for source in sources:
        found = nesting(source)
        text = vocabulary.encode(SEPARATOR + source)
        depths.append(found.depths[found.closing])
        for which, predict in enumerate(predictors.values()):
            hits = bracket_hits(predict(text[:-1]), text[1:], found.closing, vocabulary)
            likeliest[which].append(hits[0])
            of_three[which].append(hits[1])
    hits = [np.concatenate(each) for each in (*likeliest, *of_three)]
    names = [f"{each}, {kind} / %" for kind in ("likeliest", "of three") for each in predictors]
    return [
        {"depth": f"{depth}+" if depth == deepest else str(depth), "closing brackets": count}
        | {name: 100 * share for name, share in zip(names, shares, strict=True)}
        for depth, count, shares in hits_by_depth(np.concatenate(depths), hits, deepest)
    ]


def of_network(saved: SavedModel):
    """Return a function from symbols [time] to logits [time, symbols] of the next ones."""

    @jax.jit
    def piece(carry: Any, symbols: jax.Array) -> tuple[Any, jax.Array]:
        logits, after = saved.model.apply(saved.variables | carry, symbols, mutable=["carry"])
        return after, logits[0]

    def logits(symbols: np.ndarray) -> np.ndarray:
        carry, found = {}, []
        padded = np.pad(symbols, (0, -len(symbols) % PIECE))[None]
        for first in range(0, padded.shape[1], PIECE):
            carry, part = piece(carry, jnp.asarray(padded[:, first : first + PIECE]))
            found.append(np.asarray(part))
        return np.concatenate(found)[: len(symbols)]

    return logits


def bracket_hits(
    scores: np.ndarray, labels: np.ndarray, closing: np.ndarray, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray]:
    """Say of each closing bracket whether it is the likeliest of all, and of the three."""
    brackets = vocabulary.encode(CLOSING)
    chosen, right = scores[closing], labels[closing]
    return chosen.argmax(-1) == right, brackets[chosen[:, brackets].argmax(-1)] == right


def by_network(
    saved: SavedModel, vocabulary: Vocabulary, temperature: float, config: Config
) -> list[tuple[str, bool]]:
    """Write files side by side, each with whether it has come to an end."""
    start = np.full((config.files, 1), vocabulary.encode(SEPARATOR)[0])
    position = prefill(saved.model, saved.variables, jnp.asarray(start))

    @jax.jit
    def piece(position, key):
        return decode(saved.model, saved.variables, key, position, PIECE, temperature=temperature)

    pieces, ended = [], np.zeros(config.files, bool)
    while not ended.all() and len(pieces) * PIECE < config.longest:
        position, symbols = piece(position, jax.random.key(config.seed))
        pieces.append(np.asarray(symbols))
        ended |= (pieces[-1] == start[0, 0]).any(axis=1)
    texts = (vocabulary.decode(row)[: config.longest] for row in np.concatenate(pieces, axis=1))
    return [(text.partition(SEPARATOR)[0], SEPARATOR in text) for text in texts]


def by_ngram(ngram: NGram, vocabulary: Vocabulary, config: Config) -> list[tuple[str, bool]]:
    rng = np.random.default_rng(config.seed)
    start = int(vocabulary.encode(SEPARATOR)[0])
    found = [write(ngram, rng, start, start, config.longest) for _ in range(config.files)]
    return [(vocabulary.decode(text), len(text) < config.longest) for text in found]


def balance(name: str, sources: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    balanced = [ended and nesting(text).balanced for text, ended in sources]
    brackets = [sum(text.count(each) for each in "([{") for text, _ in sources]
    return {
        "written by": name,
        "files": len(sources),
        "ended / %": 100 * float(np.mean([ended for _, ended in sources])),
        "ended and balanced / %": 100 * float(np.mean(balanced)),
        "median characters": int(np.median([len(text) for text, _ in sources])),
        "median opening brackets": int(np.median(brackets)),
    }


def figure(rows: Sequence[dict[str, Any]]):
    """Draw the accuracy by depth, one panel for each measure."""
    columns = list(rows[0])[2:]
    depths = list(range(1, 1 + len(rows)))
    panels = []
    for kind in ("likeliest", "of three"):
        some = [column for column in columns if kind in column]
        panels.append(
            Panel(
                f"the bracket is the {kind}" if kind == "likeliest" else "… of the closing three",
                "nesting depth",
                "closing brackets / %",
                [
                    Line(column.split(",")[0], depths, [row[column] for row in rows], colour)
                    for colour, column in enumerate(some)
                ],
            )
        )
    return figure_panels(panels)


if __name__ == "__main__":
    run(main, Config)
