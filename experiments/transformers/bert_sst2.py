"""How much of a BERT's judgement of sentences is left when its products no longer multiply?

Answer: Not measured yet. Counted are energy, that of a sentence of 25 symbols, and bytes at rest:
float takes 1,240 µJ and 90.9 MB, ternary 33 and 51.0, binary 17 and 49.8, shift 285 and 55.0, adder
501 and 90.9. Of these bytes the embeddings, which stay float, are 47.7 MB.

MiniLM-L6 (22.7 million parameters, 10.6 of them in the products of six blocks) is tuned on SST-2:
whole sentences and parts of them, negative or positive. Then students that start from its weights
learn from it, one epoch each. They differ in the arithmetic of all products in the blocks;
embeddings, normalisations, pooler and classifier are float.

=======  ===========================================================================================
float    the class symbol is classified; AdamW, whose decay spares biases and normalisations
ternary  weights -1, 0, 1 with a scale for each layer, inputs of 8 bits (BitNet b1.58, without its
         own normalisations, as the float network has none there)
binary   BiT: bits of weights and inputs with learnt scales, of attention too, ReLU for GELU
shift    DeepShift-Q: weights are signed powers of two
adder    distances for products, in attention too; each is normalised, and its weights are drawn
=======  ===========================================================================================

A student's loss is the cross-entropy with the teacher's probabilities plus the squared distances of
what their blocks give, as in TernaryBERT, which compares attention scores too. Nothing is chosen by
the 872 sentences of the dev set: the network of the last epoch counts.

Known, on dev: 91.5 % for MiniLM-L6, from which this checkpoint descends by other training; 87.7 for
BiT without intermediate steps, after 10 epochs, from BERT-base with its 93.2. The majority is 50.9.

    python experiments/transformers/bert_sst2.py
    python experiments/transformers/bert_sst2.py --resume --seeds 1 2 \\
        --networks float ternary binary

A step of the float network on 32 texts of 16 symbols takes 0.67 s of one core of an AMD EPYC, so
that an epoch takes some 24 minutes of it.

Each network is a row, which is on disk once it is trained; with `--resume` it goes on within one.
The float network is in `networks/float_SEED`, in the form of Hugging Face, with its tokenizer.
"""

import dataclasses
import functools
import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import teaching
from flax.traverse_util import flatten_dict, unflatten_dict
from matplotlib.figure import Figure
from teaching import Taught

from nnlab import figures, runs, training
from nnlab.arithmetics import ADDER, BIT, FLOAT, SHIFT_Q, Arithmetic, bitnet
from nnlab.costs import inference_costs
from nnlab.errors import InputError
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.layers.bit import start_scales
from nnlab.layers.transformer import Activation
from nnlab.optim import adder_recipe, freeze
from nnlab.paths import user_path
from nnlab.runs.fields import Count, DataDir, Fraction, Positive, PositiveInt, Seed, Some, SomeOf
from nnlab.runs.script import run
from nnlab.sequences import hugging_face
from nnlab.sequences.bert import Bert, BertClassifier
from nnlab.sequences.buckets import in_buckets, padded
from nnlab.sequences.sst2 import load_sst2
from nnlab.sequences.text_files import Table
from nnlab.sequences.tokenizers import Tokenizer, read_tokenizer
from nnlab.sequences.tokens import Tokens

CLASSES = 2
TEXT = 25  # symbols of the sentence whose energy is counted, the mean of dev


class Kind(NamedTuple):
    """A network of the table.

    Attributes:
        arithmetic: of the products in its blocks.
        activation: of its feed-forward layers; by default the encoder's.
        begin: `begin(model, variables, tokens)`, what the first batch changes of its weights.
    """

    arithmetic: Arithmetic
    activation: Activation | None = None
    begin: Callable[..., Any] | None = None


def plain(arithmetic: Arithmetic) -> Arithmetic:
    """Return it without normalisations, as its products are near those of the float network."""
    return dataclasses.replace(arithmetic, needs_norm=False)


KINDS = {
    "float": Kind(FLOAT),
    "ternary": Kind(plain(bitnet(norm=False))),
    "binary": Kind(plain(BIT), nn.relu, start_scales),
    "shift": Kind(plain(SHIFT_Q)),
    "adder": Kind(ADDER),
}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/bert_sst2"
    data_dir: DataDir = None
    encoder: str | None = None
    """Folder of a BERT in Hugging Face's form with its tokenizer; by default MiniLM-L6."""
    networks: Annotated[tuple[str, ...], SomeOf(KINDS)] = tuple(KINDS)
    """float, which teaches the others of its seed, ternary, binary, shift and adder."""
    seeds: Some[Seed] = (0,)
    epochs: PositiveInt = 3
    """Epochs of the float network; students have one."""
    batch_size: PositiveInt = 32
    positions: PositiveInt = 64
    """Most symbols of a sentence."""
    truncate: bool = True
    """Cut longer sentences, or refuse them."""
    learning_rate: Positive = 5e-5
    """Peak learning rate of the float network."""
    student_learning_rate: Positive = 1e-4
    """Peak learning rate of students."""
    adder_learning_rate: Positive = 0.01
    """Peak learning rate of adder kernels, by Adam."""
    weight_decay: Fraction = 0.01
    warmup: Fraction = 0.1
    """Share of the training in which the learning rate rises; then it falls linearly to 0."""
    frozen: Count = 0
    """Parts that keep their weights: 1 is the embeddings, n + 1 the first n blocks too."""
    train_texts: PositiveInt | None = None
    """Use the first texts of the training set alone."""


class Data(NamedTuple):
    tokenizer: Tokenizer
    texts: list[np.ndarray]
    labels: np.ndarray
    dev: tuple[Tokens, np.ndarray]


def main(config: Config) -> None:
    folder = user_path(config.encoder) if config.encoder else hugging_face.minilm_folder()
    found = hugging_face.read(folder, Bert)
    bert: Any = found.model
    check(config, bert)
    data = prepared(config, read_tokenizer(folder), bert)
    with config.open("networks", "seeds") as record:
        record.go_on()
        for seed, network in itertools.product(config.seeds, KINDS):
            made = {(row["network"], row["seed"]) for row in record.rows("rows")}
            if network in config.networks and (network, seed) not in made:
                record.row(
                    train(network, seed, bert, found.variables, data, config, record), "rows"
                )
                record.result({"table": table(record.rows("rows"))})
                record.figure(figure(record.rows("rows")))
        figures.print_table(record.rows())


def check(config: Config, encoder: Bert) -> None:
    """Raise `InputError` for a configuration that could not be trained to its end."""
    if config.frozen > encoder.layers + 1:
        raise InputError(f"--frozen must be at most {encoder.layers + 1}, not {config.frozen}.")
    if config.positions > encoder.positions:
        raise InputError(
            f"--positions must be at most the encoder's {encoder.positions}, not"
            f" {config.positions}."
        )
    missing = [seed for seed in config.seeds if not teacher_folder(config.out, seed).is_dir()]
    if missing and "float" not in config.networks:
        raise InputError(
            f"{config.out} holds no float network of seed {missing[0]} to learn from; name float"
            " among --networks."
        )


def teacher_folder(out: str | os.PathLike[str], seed: int) -> Path:
    return user_path(out) / "networks" / f"float_{seed}"


def prepared(config: Config, tokenizer: Tokenizer, encoder: Bert) -> Data:
    """Read the sentences as symbols."""
    tokenizer.check_fits(encoder.symbols)
    train, dev = load_sst2(config.data_dir)

    def symbols(table: Table, count: int | None = None) -> list[np.ndarray]:
        texts = table.texts("sentence")[:count]
        return tokenizer.encode(
            texts, config.positions, truncate=config.truncate, place=table.place
        )

    texts = symbols(train, config.train_texts)
    labels = train.labels("label", CLASSES)[: config.train_texts]
    tokens = padded(symbols(dev), pad=tokenizer.pad)
    return Data(tokenizer, texts, labels, (tokens, dev.labels("label", CLASSES)))


def train(
    network: str,
    seed: int,
    encoder: Bert,
    variables: Any,
    data: Data,
    config: Config,
    record: runs.Record,
) -> dict[str, Any]:
    """Train a network, and return its row."""
    name, kind, teach = f"{network}_{seed}", KINDS[network], network != "float"
    model = classifier(encoder, kind)
    feed = in_buckets(data.texts, data.labels, config.batch_size, pad=data.tokenizer.pad)
    epochs, peak = (
        (1, config.student_learning_rate) if teach else (config.epochs, config.learning_rate)
    )
    rate, optimizer = optimiser(config, peak, epochs * feed.steps_per_epoch, teach)
    weights, whole = (lambda state: state.params), model
    options: dict[str, Any] = {}
    if teach:
        teacher = hugging_face.read(teacher_folder(record.folder.path, seed))
        whole, weights = Taught(model, teacher.model), (lambda state: state.params["student"])
        options = dict(loss=teaching.loss, metrics=teaching.student_accuracy)
    middle = sorted(data.texts, key=len)[len(data.texts) // 2 :]  # with little padding
    first = padded(middle[: config.batch_size], pad=data.tokenizer.pad)
    state = training.init(jax.random.key(seed), whole, optimizer, first)
    if teach:
        known = teacher.variables["params"]
        student = taken(state.params["student"], known)
        if begin := kind.begin:
            student = jax.jit(functools.partial(begin, model))({"params": student}, first)["params"]
        params = {"student": student, "teacher": known}
    else:
        params = taken(state.params, {"bert": variables["params"]})
    trained = runs.fit(
        name,
        state._replace(params=jax.tree.map(jnp.array, params)),
        training.train_step(whole, optimizer, **options),
        training.evaluation(model, batch_size=128, weights=weights),
        feed,
        data.dev,
        epochs=epochs,
        folder=record.folder,
        keep=1,
        diagnose=not teach,
        learning_rate=rate,
    )
    variables, history = {"params": weights(trained.last)}, trained.history
    if not teach:
        folder = teacher_folder(record.folder.path, seed)
        hugging_face.write(folder, model, variables, overwrite=True)
        data.tokenizer.write(folder / "tokenizer.json", overwrite=True)
    sentence: Any = Tokens(jnp.zeros((1, TEXT), jnp.int32), jnp.full(1, TEXT, jnp.int32))
    costs = inference_costs(functools.partial(model.apply, train=False), variables, sentence)
    shutil.rmtree(record.folder.checkpoints / name, ignore_errors=True)
    return {
        "network": network,
        "seed": seed,
        "dev accuracy / %": 100 * history["test_accuracy"][-1],
        "training accuracy / %": 100 * history["train_accuracy"][-1],
        "epochs": epochs,
        "minutes": sum(history["seconds"]) / 60,
        "energy / µJ": costs["energy / nJ"] / 1000,
        "MB": costs["parameter bytes"] / 1e6,
        "multiplications": costs["multiplications"],
        "additions": costs["additions"],
        "bit operations": costs["bit ops"],
    }


def classifier(encoder: Bert, kind: Kind) -> BertClassifier:
    fields = {field.name: getattr(encoder, field.name) for field in dataclasses.fields(Bert)}
    fields = {name: value for name, value in fields.items() if name not in ("parent", "name")}
    activation = kind.activation or encoder.activation
    fields |= dict(pooler=True, arithmetic=kind.arithmetic, activation=activation)
    return BertClassifier(**fields, classes=CLASSES)


def taken(fresh: Any, known: Any) -> Any:
    """Return `fresh` parameters with those that `known` ones of the same path have."""
    params, given = flatten_dict(fresh), flatten_dict(known)
    return unflatten_dict(params | {path: given[path] for path in params.keys() & given.keys()})


def optimiser(
    config: Config, peak: float, steps: int, teach: bool
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Return the learning rate and the optimiser; teachers and `--frozen` parts keep weights."""
    warmup = max(1, round(config.warmup * steps))

    def schedule(peak: float) -> optax.Schedule:
        up, down = (
            optax.linear_schedule(0, peak, warmup),
            optax.linear_schedule(peak, 0, max(1, steps - warmup)),
        )
        return optax.join_schedules([up, down], [warmup])

    def decays(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # no biases, norms and scales

    rate = schedule(peak)
    parts = {
        "float": optax.adamw(rate, weight_decay=config.weight_decay, mask=decays),
        "adder": optax.adam(schedule(config.adder_learning_rate)),
    }
    made = optax.chain(optax.clip_by_global_norm(1.0), adder_recipe(steps, rate, parts=parts))
    frozen = ["^teacher/"] if teach else []
    frozen += ["/(word|position|type)_embedding/|/embedding_norm/"] if config.frozen else []
    frozen += [f"/layer_{number}/" for number in range(config.frozen - 1)]
    return rate, freeze(made, re.compile("|".join(frozen)).search) if frozen else made


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each network: the mean over its seeds, and how far they lie apart."""
    lines = []
    for network in KINDS:
        of = [row for row in rows if row["network"] == network]
        if of:
            accuracies = [row["dev accuracy / %"] for row in of]
            lines.append(
                {
                    "network": network,
                    "dev accuracy / %": np.mean(accuracies),
                    "from": min(accuracies),
                    "to": max(accuracies),
                    "seeds": len(of),
                    "energy / µJ": of[0]["energy / µJ"],
                    "MB": of[0]["MB"],
                    "minutes": np.mean([row["minutes"] for row in of]),
                }
            )
    return lines


@matplotlib.rc_context(STYLE)
def figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw the accuracy of each network and seed over the energy of a sentence."""
    drawn = Figure(figsize=(6, 3.8))
    axes = drawn.subplots()
    for colour, network in zip(COLOURS, KINDS, strict=False):
        of = [row for row in rows if row["network"] == network]
        if of:
            accuracies = [row["dev accuracy / %"] for row in of]
            axes.plot([row["energy / µJ"] for row in of], accuracies, "o", color=colour)
            place = of[0]["energy / µJ"], max(accuracies)
            axes.annotate(network, place, (0, 6), textcoords="offset points", ha="center")
    axes.axhline(50.92, color="#717581", linestyle=(0, (4, 2)), linewidth=1)
    axes.set(xscale="log", xlabel=f"energy of a sentence of {TEXT} symbols / µJ")
    axes.set(ylabel="accuracy on dev / %", ylim=(50, 95))
    return drawn


if __name__ == "__main__":
    run(main, Config)
