"""What does a network lose when it stops multiplying, and what does it save? LeNet-5 on MNIST.

One network in every arithmetic of this kit, all with the same recipe and budget: SGD with momentum
0.9, weight decay 5e-4, cosine from 0.1 (Adam on binary weights, rectified Adam on shifts), images
32×32. First convolution and classifier are float. Nothing is tuned for one arithmetic, so a figure
says how far it comes by the recipe of the others, not how far it could.

Published, each by its own recipe on its own network: AdderNet and its CNN 99.40 % (AdderNet, CVPR
2020, section 4.1, LeNet-5), DeepShift-Q 98.81 and -PS 99.12 beside 98.75 (DeepShift, CVPRW 2021,
convolutional network), binary networks 99.04 (BinaryNet, 2016, three dense layers).

Ours, 5 epochs, seed 0, on two cores of an AMD EPYC beside other programs
(`results/arithmetics_mnist.json`, and the README's table): CNN 99.29 and AdderNet
99.26 %; all that keep real inputs, and DoReFa's few bits, lie between 98.3 and 99.4, and networks
of signs alone between 97.9 and 98.1. One image in a hundred is what the signs lose; between the
others a seed could change the order.

    python experiments/arithmetics/arithmetics_mnist.py --data-dir DIR
"""

import dataclasses

import jax
import numpy as np
import optax

from nnlab import (
    costs,
    figures,
    runs,
    training,
    vision,
)
from nnlab.arithmetics import NAMED, Arithmetic, lp_adder
from nnlab.models import LeNet5
from nnlab.optim import adder_recipe
from nnlab.runs.script import (
    check_choices,
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)

NAMES = (*NAMED, "lp_adder")


@dataclasses.dataclass(frozen=True)
class Config:
    arithmetics: tuple[str, ...] = NAMES
    """Names as in `nnlab.arithmetics.NAMED`, and lp_adder."""
    dataset: str = "mnist"
    """mnist, fashion_mnist, digits or tfds:NAME."""
    data_dir: str | None = None
    """Folder with the data set's files; otherwise looked for and downloaded."""
    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 0.1
    """Of SGD at the start of its cosine."""
    binary_learning_rate: float = 0.01
    """Of Adam on binary weights, at the start of its cosine."""
    seed: int = 0
    out: str = "runs/arithmetics_mnist"
    """Folder of the run."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    resume: bool = False
    """Go on with the run in that folder, or start it."""

    def __post_init__(self):
        check_choices("arithmetics", self.arithmetics, NAMES)
        check_positive("binary_learning_rate", self.binary_learning_rate)
        check_positive_integer("epochs", self.epochs)
        check_positive_integer("batch_size", self.batch_size)
        check_positive("learning_rate", self.learning_rate)
        check_seed("seed", self.seed)


def arithmetic(name: str, steps: int) -> Arithmetic:
    """That of the name; the Lp adder is an adder after half of the steps."""
    if name == "lp_adder":
        return lp_adder(optax.linear_schedule(2.0, 1.0, steps // 2))
    return NAMED[name]


def main(config: Config) -> None:
    dataset = vision.load(config.dataset, config.data_dir)
    train, test = ((vision.pad_to(x, 32, 32), y) for x, y in vision.standardized(dataset))
    steps = config.epochs * training.steps_per_epoch(train, config.batch_size)
    folder = runs.RunFolder.create(config.out, config, config.overwrite, config.resume)
    table, histories = [], {}
    for name in config.arithmetics:
        model = LeNet5(dataset.classes, arithmetic(name, steps))
        optimizer = adder_recipe(
            steps, config.learning_rate, binary_learning_rate=config.binary_learning_rate
        )
        state, history = runs.fit(
            name,
            training.init(jax.random.key(config.seed), model, optimizer, train[0]),
            training.train_step(model, optimizer),
            training.evaluation(model),
            training.in_memory(train, config.batch_size),
            test,
            epochs=config.epochs,
            folder=folder,
        )
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        table.append(
            {
                "arithmetic": name,
                "test accuracy / %": round(100 * history["test_accuracy"][-1], 2),
                **costs.inference_costs(model.apply, variables, test[0][:1]),
                "seconds / epoch": float(np.median(history["seconds"])),
            }
        )
        histories[name] = history
        result = {"config": dataclasses.asdict(config), "table": table, "histories": histories}
        folder.write_result(runs.provenance() | result)
        print(f"{name:24s} {table[-1]['test accuracy / %']:6.2f} %", flush=True)
    figures.print_table(table)


if __name__ == "__main__":
    run(main, Config)
