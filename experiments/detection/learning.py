"""What the experiments on boxes share: pictures, the training of a detector, tables, drawings."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
from drawing import curves_and_boxes
from matplotlib.figure import Figure

from nnlab import figures, runs, training, vision
from nnlab.data.locate import find_given
from nnlab.errors import DivergedError, InputError
from nnlab.optim import adder_recipe
from nnlab.runs.descriptions import described
from nnlab.runs.fields import DataDir, OneOf, Positive, PositiveInt, Seed, Some
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.datasets.voc import voc_records
from nnlab.vision.datasets.yolo_text import yolo_records
from nnlab.vision.detection import average_precision, coco_ap, voc_ap
from nnlab.vision.detection.detectors import Detector, loss_parts, total_loss

FORMS: dict[str, Any] = {"voc": voc_records, "yolo": yolo_records}


@dataclasses.dataclass(frozen=True)
class DetectionRun(runs.Run):
    """What each experiment can be asked for."""

    data_dir: DataDir = None
    folder: str | None = None
    """Pictures with boxes of your own instead, in the form of `--form`."""
    form: Annotated[str, OneOf(FORMS)] = "voc"
    """Form of the boxes in that folder."""
    seeds: Some[Seed] = (0,)
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 8
    height: PositiveInt = 240
    """Height that pictures are brought to."""
    width: PositiveInt = 320
    learning_rate: Positive = 2e-3
    """Peak learning rate."""
    adder_rate: Positive = 1e-2
    """Peak learning rate of the weights of adders."""
    weight_decay: Positive = 1e-2
    every: PositiveInt = 3
    """Epochs from one point of the curve to the next."""
    pictures: PositiveInt | None = None
    """Train on the first so many pictures; by default on all."""


class Data(NamedTuple):
    """Images from 0 to 1 with their boxes."""

    train: tuple[np.ndarray, Boxes]
    test: tuple[np.ndarray, Boxes]
    class_names: tuple[str, ...]


def read(config: DetectionRun) -> Data:
    """Read pictures and boxes."""
    resize = vision.Resize(config.height, config.width, "stretch")
    if config.folder is None:
        expected = "BCCD's folders Annotations, ImageSets and JPEGImages"
        folder = find_given("BCCD", ("bccd/BCCD", "BCCD", "."), config.data_dir, expected)
        splits = voc_records(folder, splits=("trainval", "test"), resize=resize)
    else:
        splits = FORMS[config.form](config.folder, resize=resize)
    pictures = min(config.pictures or len(splits[0]), len(splits[0]))
    if config.batch_size > pictures:
        raise InputError(
            f"--batch-size must be at most {pictures}, the pictures, not {config.batch_size}."
        )
    counts = pictures, len(splits[1])
    arrays = [each.gather(range(count)) for each, count in zip(splits, counts, strict=True)]
    train, test = ((images.astype(np.float32) / 255, boxes) for images, boxes in arrays)
    return Data(train, test, splits[0].class_names)


def each_row(
    config: Any,
    data: Data,
    goes_on: Mapping[str, str | None],
    train: Callable[[str, int, runs.Record], dict[str, Any]],
    means: Sequence[str] = (),
) -> None:
    """Train each network of `config` with each seed that has no row yet.

    Args:
        config: with networks and seeds.
        data: pictures.
        goes_on: every network in order, and the trained one that it goes on from.
        train: `train(network, seed, record)`, a row.
        means: columns whose means are in the table, besides those of precisions.
    """
    for name, seed in itertools.product(config.networks, config.seeds):
        before = goes_on[name]
        if not before or before in config.networks:
            continue
        if not network_file(Path(config.out), before, seed).is_file():
            raise InputError(
                f"{config.out} holds no trained {before} of seed {seed} to go on from; name "
                f"{before} among --networks."
            )
    channels = data.train[0].shape[-1]
    range_ = (0.0,) * channels, (1.0,) * channels
    images = vision.Preparation(config.height, config.width, channels, *range_, fit="stretch")
    notes = {"classes": data.class_names, "images": images.as_notes()}
    with config.open("networks", "seeds", notes=notes) as record:
        record.go_on()
        for seed, name in itertools.product(config.seeds, goes_on):
            done = {(row["network"], row["seed"]) for row in record.rows("rows")}
            if name in config.networks and (name, seed) not in done:
                record.row(train(name, seed, record), "rows")
                record.result({"table": table(record.rows("rows"), means)})
                record.figure(figure(record, data), dpi=100)
        figures.print_table(record.rows())


def network_file(folder: Path, name: str, seed: int) -> Path:
    return folder / "networks" / f"{name}_{seed}.safetensors"


def recipe(config: DetectionRun, steps: int) -> optax.GradientTransformation:
    """Return Adam with decay for float weights, and for others what suits them, in one cycle."""

    def cycle(peak: float) -> optax.Schedule:
        return optax.cosine_onecycle_schedule(max(steps, 4), peak)

    rate = cycle(config.learning_rate)
    return adder_recipe(
        steps,
        rate,
        binary_learning_rate=rate,
        shift_learning_rate=rate,
        parts={
            "float": optax.adamw(rate, weight_decay=config.weight_decay),
            "adder": optax.adam(cycle(config.adder_rate)),
        },
    )


def learnt(
    row: dict[str, Any],
    config: DetectionRun,
    data: Data,
    record: runs.Record,
    model: nn.Module,
    state: training.State,
    optimizer: optax.GradientTransformation,
    detector: Detector,
    mix: Callable[[jax.Array, Any, Any], Any],
    *,
    fresh: bool,
    adders: bool,
) -> tuple[dict[str, Any], Any]:
    """Train a network, and keep what it finds in the first test pictures.

    Args:
        row: its first columns: "network", "seed" and "epochs".
        config, data, record: of the run.
        model, state, optimizer: the network before its first step.
        detector: what its outputs mean.
        mix: augmentation.
        fresh: whether statistics of BatchNorm are taken anew before it is measured.
        adders: and before each test.

    Returns:
        The row with what it measures, and the trained variables; None if it diverged.
    """
    name, seed, epochs = row["network"], row["seed"], row["epochs"]
    measures: Any = {"loss": total_loss(detector), "metrics": loss_parts(detector)}
    step = training.train_step(model, optimizer, **measures, mix=mix)
    evaluate = training.evaluation(model, **measures, batch_size=config.batch_size)
    some = data.train[0][: 20 * config.batch_size]
    renew: Any = training.fresh_statistics(model, some, config.batch_size) if fresh else None

    @jax.jit
    def program(variables: Any, images: jax.Array) -> Any:
        return detector.detect(model.apply(variables, images))

    def variables_of(state: Any) -> dict[str, Any]:
        state = renew(state) if renew else state
        return {"params": state.params, "batch_stats": state.batch_stats}

    def measured(variables: Any, measure: Any) -> Any:
        predict = functools.partial(program, variables)
        return average_precision(predict, data.test, len(data.class_names), measure=measure)

    def watch(moment: runs.Moment) -> None:
        if moment.epoch % config.every:
            return
        found = measured(variables_of(moment.state), voc_ap)
        point = {"network": name, "seed": seed, "epoch": moment.epoch, "AP50": found.mean}
        points = [p for p in record.rows("curve") if (*p.values(),)[:3] != (*point.values(),)[:3]]
        record.result({"curve": [*points, point]})

    notes = {**record.folder.notes, "detector": described("detector", detector)}
    try:
        trained = runs.fit(
            f"{name}_{seed}",
            state,
            step,
            evaluate,
            training.in_memory(data.train, config.batch_size),
            data.test,
            epochs=epochs,
            folder=dataclasses.replace(record.folder, notes=notes),
            score=runs.least_loss,
            statistics=renew if adders else None,
            on_epoch=watch,
            diagnose=False,  # it would compare the loss with that of a classification
            keep=1,
        )
    except DivergedError as error:
        return row | {"ended": str(error).partition(";")[0]}, None
    variables = variables_of(trained.last)
    found, coco = (measured(variables, measure) for measure in (voc_ap, coco_ap))
    shown = jax.device_get(program(variables, data.test[0][: config.batch_size]))
    np.savez(sheet(record, name, seed), **shown._asdict())
    row |= {"AP50": found.mean, "AP": coco.scores.ap}
    row |= dict(zip((f"AP50 {each}" for each in data.class_names), found.by_class, strict=True))
    return row | {"seconds": round(sum(trained.history["seconds"]), 1)}, variables


def sheet(record: runs.Record, name: str, seed: int) -> Path:
    """Return the file of what a network finds in the first test pictures."""
    return record.folder.path / f"{name}_{seed}.npz"


def table(rows: list[dict[str, Any]], more: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return a row for each network: means over its seeds, and the range of AP50."""
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        of = [row for row in rows if row["network"] == name]
        whole = [row for row in of if "AP50" in row]
        ended = len(of) - len(whole)
        row: dict[str, Any] = {"network": name, "seeds": len(of), "ended early": ended}
        if whole:
            scores = [each["AP50"] for each in whole]
            row |= {"AP50": float(np.mean(scores)), "lowest": min(scores), "highest": max(scores)}
            means = [key for key in whole[0] if key == "AP" or key.startswith("AP50 ")]
            means += [*more, "seconds"]
            row |= {key: float(np.mean([each[key] for each in whole])) for key in means}
        found.append(row)
    return found


def figure(record: runs.Record, data: Data) -> Figure:
    """Draw AP50 by epochs and the boxes in the first test pictures, of the first seed."""
    rows, curve = record.rows("rows"), record.rows("curve")
    first = rows[0]["seed"]
    files = {row["network"]: sheet(record, row["network"], first) for row in rows}
    lines = {
        name: sorted(
            (p["epoch"], p["AP50"]) for p in curve if (p["network"], p["seed"]) == (name, first)
        )
        for name in dict.fromkeys(p["network"] for p in curve if p["seed"] == first)
    }
    found = {name: np.load(file) for name, file in files.items() if file.is_file()}
    return curves_and_boxes(lines, *data.test, found)
