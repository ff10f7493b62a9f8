"""Is a vision transformer worth its seconds on a CPU? Beside ResNet-20, in four arithmetics.

Answer: Not measured yet; the script is ready and its run has been tried in small.

A small ViT (6 blocks of 192 features, patches of 4×4 pixels, 2.7 million parameters) and ResNet-20
(0.27 million) learn CIFAR-10 for as many minutes of processor time each: steps are what a budget
buys at the pace that is measured before, each network taking turns with the float ResNet. Crops of
images padded by 4 and flips, batches of 128, the first layer and the classifier float. The ResNet
has AdderNet's recipe, the ViT AdamW with a warm-up, and both a cosine over the budget. Rates are as
published and not tuned for an arithmetic; a budget of minutes says how fast a network learns, and
not how far.

Known: a ViT of 512×6 with patches of 4 has 80 % after 200 epochs (kentaroy47's readme), one of
384×7 90.92 % after 200 with AutoAugment (omihub777's, 2 h 14 min on a V100); ResNet-20 has 91.25 %
after 164 (He et al., CVPR 2016, table 6). No ternary or adder ViT on CIFAR-10 has a figure that
could be verified.

    python experiments/transformers/vit_cifar10.py --data-dir DIR

An interrupted run goes on with `--resume`. 200 epochs of the ViT need an accelerator:
`--minutes` is then what they take there.
"""

import dataclasses
import itertools
import math
import time
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import matplotlib
import optax
from matplotlib.figure import Figure

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import NAMED
from nnlab.errors import DivergedError
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.models import VisionTransformer, resnet20
from nnlab.optim import adder_recipe
from nnlab.runs.fields import Positive, PositiveInt, Seed, SomeOf
from nnlab.runs.script import run

NETWORKS = ("ViT", "ResNet-20")
INTERVAL = 10  # steps, of which a budget is a multiple
FACTORS = {"adder": 2.5, "binary": 5.0, "shift": 2.5}  # as in language_models.py


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = "runs/vit_cifar10"
    dataset: vision.ImageSet = "cifar10"
    networks: Annotated[tuple[str, ...], SomeOf(NETWORKS)] = NETWORKS
    arithmetics: Annotated[tuple[str, ...], SomeOf(NAMED)] = ("float", "bitnet", "adder", "shift_q")
    """Names as in `nnlab.arithmetics.NAMED`."""
    minutes: Positive = 8.0
    """Processor time for the training of each network."""
    features: PositiveInt = 192
    """Features of the ViT, in heads of 64."""
    layers: PositiveInt = 6
    batch_size: PositiveInt = 128
    learning_rate: Positive = 1e-3
    """Peak rate of AdamW on the ViT."""
    seed: Seed = 0


def main(config: Config) -> None:
    images = config.images()
    with config.open("networks", "arithmetics", notes=images.notes) as record:
        record.go_on()
        for arithmetic, network in itertools.product(config.arithmetics, config.networks):
            case = Case(network, arithmetic)
            if not any(case._asdict().items() <= row.items() for row in record.rows()):
                record.row(case._asdict() | trained(images, record, case, config))
                print(", ".join(f"{k} {v}" for k, v in record.rows()[-1].items()), flush=True)
        record.figure(figure(record.rows()))
        figures.print_table(record.rows())


class Case(NamedTuple):
    """One training; its fields begin a row of the result."""

    network: str
    arithmetic: str


REFERENCE = Case("ResNet-20", "float")  # by which time is measured


def model_of(case: Case, classes: int, config: Config) -> nn.Module:
    arithmetic = NAMED[case.arithmetic]
    if case.network == "ResNet-20":
        return resnet20(classes, arithmetic, shortcuts=arithmetic.shortcuts)
    size = config.features, config.layers, max(1, config.features // 64)
    return VisionTransformer(classes, 4, *size, arithmetic=arithmetic)


def optimiser(network: str, steps: int, config: Config) -> optax.GradientTransformation:
    if network == "ResNet-20":
        return adder_recipe(steps)

    def schedule(factor: float = 1.0) -> optax.Schedule:
        peak = factor * config.learning_rate
        return optax.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps)

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    parts = {kind: optax.adam(schedule(factor)) for kind, factor in FACTORS.items()}
    parts["float"] = optax.adamw(schedule(), weight_decay=0.05, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(1.0), adder_recipe(steps, schedule(), parts=parts))


def started(images: vision.Images, case: Case, steps: int, config: Config):
    model = model_of(case, images.classes, config)
    optimizer = optimiser(case.network, steps, config)
    state = training.init(jax.random.key(config.seed), model, optimizer, images.test[0])
    augment = vision.random_crop_and_flip
    return model, training.train_step(model, optimizer, augment=augment), state


def pace(images: vision.Images, record: runs.Record, case: Case, config: Config) -> float:
    """Return seconds of processor time a step, on the scale of the first measured reference."""
    known, name = record.contents.get("paces", {}), " ".join(case)
    if name in known:
        return known[name]
    batch = jax.tree.map(lambda array: array[: config.batch_size], images.train)
    programs = {}
    for each in dict.fromkeys((REFERENCE, case)):
        _, step, state = started(images, each, 100, config)
        programs[each] = jax.jit(step).lower(state, batch).compile(), state
    found = dict.fromkeys(programs, math.inf)
    for each in 4 * list(programs):
        program, state = programs[each]
        start = time.process_time()
        jax.block_until_ready(program(state, batch))
        found[each] = min(found[each], time.process_time() - start)
    reference = known.get(" ".join(REFERENCE), round(found[REFERENCE], 4))
    seconds = round(reference * found[case] / found[REFERENCE], 4)
    record.result({"paces": known | {" ".join(REFERENCE): reference, name: seconds}})
    return seconds


def trained(
    images: vision.Images, record: runs.Record, case: Case, config: Config
) -> dict[str, Any]:
    """Train for the budget, and return the accuracy on the test images."""
    seconds = pace(images, record, case, config)
    steps = INTERVAL * max(1, round(60 * config.minutes / seconds / INTERVAL))
    model, step, state = started(images, case, steps, config)
    feed = images.feed(config.batch_size, config.seed)
    row: dict[str, Any] = {"parameters": sum(a.size for a in jax.tree.leaves(state.params))}
    row |= {"steps": steps, "s / step": seconds}
    try:
        done = runs.fit(
            "_".join(case),
            state,
            step,
            training.evaluation(model),
            feed,
            images.test,
            epochs=-(-steps // feed.steps_per_epoch),
            folder=record.folder,
            keep=1,
            on_step=lambda moment: moment.step >= steps,
            step_interval=INTERVAL,
            **config.protocol(images),
        )
    except DivergedError:
        return row | {"test accuracy / %": "diverged"}
    tested = training.evaluation(model)(done.renew(done.last), images.test)
    return row | {"test accuracy / %": round(100 * float(tested["accuracy"]), 2)}


@matplotlib.rc_context(STYLE)
def figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw the accuracies, a group for each arithmetic."""
    drawn = Figure(figsize=(6, 3.6), layout="constrained")
    axes = drawn.subplots()
    names = list(dict.fromkeys(row["arithmetic"] for row in rows))
    for number, network in enumerate(NETWORKS):
        of_network = [row for row in rows if row["network"] == network]
        places = [names.index(row["arithmetic"]) + 0.4 * number - 0.2 for row in of_network]
        found = [row["test accuracy / %"] for row in of_network]
        heights = [0 if height == "diverged" else height for height in found]
        bars = axes.bar(places, heights, 0.38, color=COLOURS[number], label=network)
        axes.bar_label(bars, [f"{height}" for height in found], fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="test accuracy / %")
    axes.legend()
    return drawn


if __name__ == "__main__":
    run(main, Config)
