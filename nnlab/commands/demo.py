"""Train one network as CNN, AdderNet and BNN on handwritten digits, and write a report.

    nnlab demo
    nnlab demo --epochs 10 --out runs/quick --dataset mnist

The same small network is trained with float convolutions, with L1 distances and with signs, by
changing `arithmetic=`. The first convolution stays float in all three. The report compares their
accuracy, operations, bytes and energy, their weights, the features by which they tell classes
apart, and what their layers see. Needs `pip install '.[demo]'`; nothing is downloaded for the
digits.
"""

import dataclasses
import importlib
from typing import Any

import jax
import numpy as np
import optax

from nnlab import costs, figures, runs, training, vision
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import needs
from nnlab.models import SmallCNN
from nnlab.optim import adder_rate, adder_recipe
from nnlab.runs.fields import Fraction, Positive, PositiveInt, Seed
from nnlab.runs.script import run

with needs("demo"):  # also of what is imported later, so that one sentence says how to get all
    for package in ("matplotlib", "safetensors", "sklearn", "tensorboardX", "tyro"):
        importlib.import_module(package)
    from nnlab.figures.plots import Network
    from nnlab.figures.report import write_report
    from nnlab.figures.trained import network_of

ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER, "BNN": BINARY}


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = "runs/demo"
    running_statistics: bool = True  # as the committed result
    dataset: vision.ImageSet = "digits"
    epochs: PositiveInt = 40
    batch_size: PositiveInt = 64
    learning_rate: Positive = 0.1
    """Peak learning rate of SGD (cosine decay)."""
    weight_decay: Fraction = 5e-4
    eta: Positive = 0.2
    """Root mean square of an adder layer's rescaled gradient."""
    binary_learning_rate: Positive = 0.01
    """Peak learning rate of Adam on the binary kernels (cosine decay)."""
    seed: Seed = 0


def main(config: Config) -> None:
    images = config.images()
    steps = config.epochs * training.steps_per_epoch(images.train, config.batch_size)
    with config.open(notes=images.notes, reasons=runs.COSINE) as record:
        networks, trained = [], {}
        for name, arithmetic in ARITHMETICS.items():
            model = SmallCNN(images.classes, arithmetic, classifier=arithmetic)
            network, row, variables = train_and_measure(
                name, model, images, steps, config, record.folder
            )
            networks.append(network)
            trained[name] = model, variables
            record.row(row)
        about = {"seed": config.seed, "minutes": record.minutes}
        record.result(about)
        write_report(
            record.folder.report,
            title=f"One network, three arithmetics: {images.name}",
            networks=networks,
            table=record.rows(),
            config=dataclasses.asdict(config),
            provenance=about | runs.provenance(),
            sections=[
                *vision.image_sections(record, images),
                *vision.seen_sections(trained, images),
            ],
        )
        figures.print_table(record.rows())
        print(f"Report: {record.folder.report}")


def train_and_measure(
    name: str,
    model: SmallCNN,
    images: vision.Images,
    steps: int,
    config: Config,
    folder: runs.RunFolder,
) -> tuple[Network, dict[str, Any], Any]:
    """Return what the report shows of a network, its row of the table, and its variables."""
    train, test = images.train, images.test
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    optimizer = adder_recipe(
        steps,
        rate,
        weight_decay=config.weight_decay,
        rate=adder_rate(config.eta),
        binary_learning_rate=config.binary_learning_rate,
    )
    trained = runs.fit(
        name,
        training.init(jax.random.key(config.seed), model, optimizer, train[0]),
        training.train_step(model, optimizer, gradient_norm=config.gradient_norm),
        training.evaluation(model),
        training.in_memory(train, config.batch_size),
        test,
        epochs=config.epochs,
        folder=folder,
        learning_rate=rate,
        **config.protocol(images),
    )
    state = trained.chosen
    network = network_of(name, model, state, trained.history, train, test)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    row = {
        "network": name,
        "test accuracy / %": 100 * trained.tested.metrics["accuracy"],
        **costs.inference_costs(model.apply, variables, test[0][:1]),
        "seconds / epoch": float(np.median(trained.history["seconds"])),
    }
    return network, row, variables


if __name__ == "__main__":
    run(main, Config)
