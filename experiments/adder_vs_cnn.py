"""What changes when a network stops multiplying? One network, three arithmetics, real images.

Answer: Hardly any accuracy is lost: of 360 test images of handwritten digits the CNN has 100 %
right, the AdderNet 99.72 % and the BNN 98.33 %, with 13,444 instead of 605,828 multiplications.

The same small network is trained as CNN (float convolution), AdderNet (L1 distance) and BNN (signs)
by changing `arithmetic=`. The first convolution stays float in all three. Claims of the literature
that the report measures: an AdderNet comes within a point or two of its CNN (92.25 and 91.84 % for
ResNet-20 on CIFAR-10; Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200), its
weights are Laplace distributed and those of the CNN Gaussian, and classes separate by angle in the
one and gather around centres under L1 in the other.

Ours, on the 1,797 handwritten digits that come with the install, seed 0, 0.4 minutes on two cores
of an AMD EPYC (`experiments/results/adder_vs_cnn.json`): CNN 100 %, AdderNet 99.72 % and BNN
98.33 % of 360 test images. Printed by

    python experiments/adder_vs_cnn.py
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from nnlab import costs, figures, runs, training, vision
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.figures.plots import Network
from nnlab.figures.report import write_report
from nnlab.models import SmallCNN
from nnlab.optim import adder_rate, adder_recipe
from nnlab.runs.fields import Fraction, Positive, PositiveInt, Seed
from nnlab.runs.script import run

ARITHMETICS = {"CNN": FLOAT, "AdderNet": ADDER, "BNN": BINARY}


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = "runs/adder_vs_cnn"
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
        networks = []
        for name, arithmetic in ARITHMETICS.items():
            model = SmallCNN(images.classes, arithmetic, classifier=arithmetic)
            network, row = train_and_measure(name, model, images, steps, config, record.folder)
            networks.append(network)
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
            sections=vision.image_sections(record, images),
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
) -> tuple[Network, dict[str, Any]]:
    """Return what the report shows of a network, and its row of the table."""
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
    state, history = trained.chosen, trained.history
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def features(images):
        _, sown = model.apply(variables, images, mutable=["intermediates"])
        return sown["intermediates"]["features"][0]

    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    network = Network(
        name,
        history,
        weights=max((w for path, w in leaves if path[-1].key.endswith("kernel")), key=np.size),
        features=training.in_batches(features, test[0], 500),
        labels=test[1],
        train_features=training.in_batches(features, train[0], 500),
        train_labels=train[1],
    )
    row = {
        "network": name,
        "test accuracy / %": 100 * trained.tested.metrics["accuracy"],
        **costs.inference_costs(model.apply, variables, test[0][:1]),
        "seconds / epoch": float(np.median(history["seconds"])),
    }
    return network, row


if __name__ == "__main__":
    run(main, Config)
