"""How well does a recurrent network learn to write in an hour on a CPU?

Answer: On tiny-shakespeare an LSTM of 2×256 has a validation loss of 1.444 nats a character after
40 minutes on one core (a transformer of 10 million parameters: 1.47), on Java sources 0.698, and on
the Penn Treebank 1.031.

It predicts the next character from all before it: an embedding, recurrent layers in any arithmetic
and a dense float layer, trained by truncated back-propagation with the state carried on, AdamW with
a warm-up and cosine decay, and gradients clipped by their norm. Binary and shift kernels keep the
optimiser of their kind (`nnlab.optim.adder_recipe`); adder kernels have Adam, which did better here
than AdderNet's rate per layer. The figures are those of the epoch with the least validation loss.
Validation and test text are each read as one stream from a state of zeros, and every character of
them counts.

Published, on tiny-shakespeare: 1.4697 nats a character by a transformer of 6 layers of 384
(nanoGPT's readme); char-rnn, whose default is an LSTM of 2×128, gives no figure. Nothing here is
comparable for the Penn Treebank, where networks are larger and trained for longer.

Ours, seed 0, one core of an AMD EPYC, the first four beside other programs (`results/char_lm.json`,
with samples); nothing was chosen by the "test" text:

================  ================  ==========  ======  ==================  =====  =======
corpus            LSTM              parameters  epochs  validation / nats   test   minutes
================  ================  ==========  ======  ==================  =====  =======
tiny-shakespeare  2×256             1,083,969   16      1.444 (2.083 bits)         40
tiny-shakespeare  2×128             279,873     12      1.508 (2.175 bits)         5
Java              2×256             1,099,872   12      0.698 (1.006 bits)  0.732  21
Penn Treebank     2×256             1,076,274   5       1.031 (1.487 bits)  1.002  31
tiny-shakespeare  2×64              74,433      5       1.646 (2.375 bits)         0.6
tiny-shakespeare  2×64, LayerNorm   75,585      5       1.575 (2.272 bits)         0.9
tiny-shakespeare  2×64, adder       75,585      5       1.736 (2.505 bits)         1.2
tiny-shakespeare  2×64, binary      75,585      5       1.889 (2.725 bits)         1.1
================  ================  ==========  ======  ==================  =====  =======

The last four differ only in LayerNorm, which adders and signs need, and in the arithmetic of the
cells' matrix products. An adder LSTM is 0.16 nats worse than float with LayerNorm, a binary one
0.31. Float was tried at one learning rate, adders and signs at several, which favours these;
AdderNet's own recipe is worse here than Adam.

    python experiments/text/char_lm.py --features 256 --dropout 0.3 --epochs 16
    python experiments/text/char_lm.py --features 128 --epochs 12
    python experiments/text/char_lm.py --corpus java --features 256 --dropout 0.3 --epochs 12
    python experiments/text/char_lm.py --corpus ptb --features 256 --epochs 5

with `--data-dir DIR` for Java, and the last four with

    --features 64 --dropout 0 --streams 16 --window 50 --epochs 5 --arithmetic adder
"""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import figures, runs, training
from nnlab.arithmetics import NAMED
from nnlab.figures.page import heading, picture, table, verbatim, write_page
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.layers import GravesLSTMCell, GRUCell, LSTMCell, SimpleCell
from nnlab.models import LanguageModel, save_model
from nnlab.optim import adder_recipe
from nnlab.runs.fields import Count, Fraction, OneOf, Positive, PositiveInt, Seed
from nnlab.runs.script import run
from nnlab.sequences.corpora import SEPARATOR, load_text
from nnlab.sequences.generation import decode, prefill
from nnlab.sequences.text import Vocabulary, windows

CELLS = {"simple": SimpleCell, "gru": GRUCell, "lstm": LSTMCell, "graves_lstm": GravesLSTMCell}
TEMPERATURES = (0.5, 0.8, 1.0)
NAME = "network"  # of the training in its folder
PIECES = 16  # of the validation text, side by side, to choose the best epoch by
CURVES = (
    "Loss in nats; training with dropout, as means over the epoch. The validation text is read in"
    f" {PIECES} pieces here, and as one in the table, which is of the epoch with the least loss."
)


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/char_lm"
    corpus: str = "tinyshakespeare"
    """tinyshakespeare, ptb, java, or the path of a text file or of a folder of them."""
    data_dir: str | None = None
    """Folder with the corpora's files; by default they are found or, except java, downloaded."""
    arithmetic: Annotated[str, OneOf(NAMED)] = "float"
    """Arithmetic of the cells; a name in `nnlab.arithmetics.NAMED`."""
    cell: Annotated[str, OneOf(CELLS)] = "lstm"
    """simple, gru, lstm or graves_lstm."""
    features: PositiveInt = 128
    """Units in each layer."""
    layers: PositiveInt = 2
    norm: bool = False
    """LayerNorm in the cells; arithmetics other than float always have it."""
    dropout: Fraction = 0.1
    """Dropout rate on the inputs of all layers."""
    recurrent_dropout: Fraction = 0.0
    """Dropout rate on their states."""
    streams: PositiveInt = 32
    """Texts side by side in a batch."""
    window: PositiveInt = 100
    """Characters through which the gradient goes back."""
    epochs: PositiveInt = 10
    patience: Count = 5
    """Stop when more epochs than this in a row had no lower validation loss."""
    learning_rate: Positive = 4e-3
    """Peak learning rate of AdamW."""
    adder_learning_rate: Positive = 0.01
    """Peak learning rate of Adam on adder kernels."""
    binary_learning_rate: Positive = 0.02
    """Peak learning rate of Adam on binary kernels."""
    weight_decay: Fraction = 1e-4
    warmup: Fraction = 0.02
    """Share of the training in which the learning rate rises."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    length: PositiveInt = 1000
    """Characters of a sample in the report."""
    seed: Seed = 0


def main(config: Config) -> None:
    corpus = load_text(config.corpus, config.data_dir)
    vocabulary = Vocabulary.of(corpus.train + corpus.valid + corpus.test + "\n")
    train, valid, test = map(vocabulary.encode, corpus[1:4])
    inputs, labels = map(jnp.asarray, windows(train, config.streams, config.window))
    model = network(config, len(vocabulary))
    feed = training.in_memory((inputs, labels), config.streams, shuffle=False)
    optimizer = optimiser(config, config.epochs * feed.steps_per_epoch)
    key = jax.random.key(config.seed)
    evaluate = training.long_evaluation(model, length=config.window)
    with config.open() as record:
        trained = runs.fit(
            NAME,
            training.init(key, model, optimizer, inputs, streams=config.streams),
            training.train_step(model, optimizer),
            evaluate,
            feed,
            in_pieces(valid),
            epochs=config.epochs,
            folder=record.folder,
            patience=config.patience,
            score=runs.least_loss,
        )
        best, history = trained.best, trained.history
        variables = {"params": best.params}
        notes = {"vocabulary": vocabulary.characters, "start": "\n", "end": None}
        notes |= dict.fromkeys(("start", "end"), SEPARATOR) if corpus.files else {}
        start = vocabulary.encode(notes["start"])
        row = {
            "corpus": corpus.name,
            "arithmetic": config.arithmetic,
            "network": f"{config.cell} {config.layers}x{config.features}",
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(best.params)),
            "best epoch": trained.best_epoch,
            **losses("validation", evaluate(best, whole(valid, start))),
            **(losses("test", evaluate(best, whole(test, start))) if len(test) else {}),
            "seconds / epoch": float(np.median(history["seconds"])),
        }
        notes |= {"corpus": corpus.name, "validation loss": row["validation loss / nats"]}
        path = record.folder.network
        save_model(path, model, variables, inputs[:1], notes=notes, overwrite=True)
        samples = written(model, variables, vocabulary, start, config)
        record.result({"table": [row], "history": history, "samples": samples})
        report(row, history, samples, config, record)
    figures.print_table([{"": key, "value": value} for key, value in row.items()])
    print(f"Report: {record.folder.report}")


def network(config: Config, symbols: int) -> LanguageModel:
    return LanguageModel(
        symbols,
        config.features,
        config.layers,
        CELLS[config.cell],
        NAMED[config.arithmetic],
        norm=config.norm or NAMED[config.arithmetic].needs_norm,
        dropout=config.dropout,
        recurrent_dropout=config.recurrent_dropout,
    )


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    warmup = min(round(config.warmup * steps), steps - 1)

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)

    recipe = adder_recipe(
        steps,
        binary_learning_rate=schedule(config.binary_learning_rate),
        shift_learning_rate=schedule(0.01),
        parts={
            "float": optax.adamw(
                schedule(config.learning_rate), b2=0.99, weight_decay=config.weight_decay
            ),
            "adder": optax.adam(schedule(config.adder_learning_rate), b2=0.99),
        },
    )
    return optax.chain(optax.clip_by_global_norm(config.clip), recipe)


def in_pieces(symbols: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Cut a text into inputs and labels [PIECES, time]."""
    inputs, labels = windows(symbols, PIECES, max(1, len(symbols) // PIECES - 1))
    return jnp.asarray(inputs), jnp.asarray(labels)


def whole(symbols: np.ndarray, start: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Return inputs and labels [1, characters]; every character is a label, `start` is none."""
    inputs = np.concatenate([start, symbols[:-1]])
    return jnp.asarray(inputs[None]), jnp.asarray(symbols[None])


def losses(part: str, found: dict[str, Any]) -> dict[str, float]:
    loss = float(found["loss"])
    return {
        f"{part} loss / nats": loss,
        f"{part} bits a character": loss / math.log(2),
        f"{part} perplexity": math.exp(loss),
        f"{part} accuracy / %": 100 * float(found["accuracy"]),
    }


def written(
    model: LanguageModel, variables: Any, vocabulary: Vocabulary, start: np.ndarray, config: Config
) -> dict[str, str]:
    """Write a text from its beginning at each temperature."""

    @jax.jit
    def write(temperature: jax.Array) -> jax.Array:
        position = prefill(model, variables, jnp.asarray(start[None]))
        arguments = model, variables, jax.random.key(config.seed), position, config.length
        return decode(*arguments, temperature=temperature)[1][0]

    return {
        f"temperature {each}": vocabulary.decode(np.asarray(write(jnp.float32(each))))
        for each in TEMPERATURES
    }


def report(
    row: dict[str, Any],
    history: dict[str, list[float]],
    samples: dict[str, str],
    config: Config,
    record: runs.Record,
) -> None:
    """Draw the learning curves, and write the report."""
    epochs = range(1, 1 + len(history["seconds"]))
    panels = [
        Panel(
            "",
            "epoch",
            f"{name} of the next character",
            [
                Line("validation", epochs, history[f"test_{name}"], 0),
                Line("training", epochs, history[f"train_{name}"], 0, dashed=True),
            ],
        )
        for name in ("loss", "accuracy")
    ]
    curves = figure_panels(panels)
    record.figure(curves)
    write_page(
        record.folder.report,
        title=f"Characters of {row['corpus']}",
        provenance={"seed": config.seed} | runs.provenance(),
        sections=[
            heading("Result"),
            table([{"": key, "value": value} for key, value in row.items()]),
            heading("Learning curves"),
            picture(curves, "Loss and accuracy by epoch", CURVES),
            *(heading(f"A sample at {name}") + verbatim(text) for name, text in samples.items()),
            heading("Configuration"),
            table([{"setting": k, "value": str(v)} for k, v in vars(config).items()]),
        ],
    )


if __name__ == "__main__":
    run(main, Config)
