"""What does a network lose when it stops multiplying, and what does it save? A ResNet on CIFAR-10.

A small ResNet in every arithmetic of this kit, all with the same recipe and budget: SGD with
momentum 0.9, weight decay 5e-4, cosine from 0.1 (Adam on binary weights, rectified Adam on shifts),
crops of images padded by 4 and flips. First convolution and classifier are float. Bi-Real and
AdderSR have a shortcut a convolution, as they were published.

Published, after hundreds of epochs with a ResNet-20, each by its own recipe: CNN 92.25, AdderNet
91.84, BNN 84.87 (AdderNet, CVPR 2020, table 2); ShiftAddNet 89.32 (its code, 160 epochs);
DeepShift-Q 89.85 and -PS 88.84 beside a CNN of 91.79 (DeepShift, CVPRW 2021). The budget here is
one epoch, enough to compare how fast the arithmetics learn and no more.

Ours, ResNet of 8 layers, 1 epoch, seed 0, on two cores of an AMD EPYC beside other programs
(`results/arithmetics_cifar10.json`, and the README's table): CNN 56.26 and AdderNet
52.73 %. Weights of few bits and shifts learn as fast as the CNN (54.0 to 56.9), the adder's
relatives nearly so (49.6 to 55.8), DoReFa's activations of few bits and networks of signs more
slowly (40 to 46), and weights that are drawn at random or learnt as exponents most slowly. The run
was ended while the Lp adder trained, which costs 35 adders until p is 1: it has no row.

    python experiments/arithmetics/arithmetics_cifar10.py --data-dir DIR
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
from nnlab.errors import InputError
from nnlab.models import CifarResNet
from nnlab.optim import adder_recipe
from nnlab.runs.script import (
    check_choices,
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)

A_SHORTCUT_A_CONVOLUTION = {"bireal", "adder_sr"}


NAMES = (*NAMED, "lp_adder")


@dataclasses.dataclass(frozen=True)
class Config:
    arithmetics: tuple[str, ...] = NAMES
    """Names as in `nnlab.arithmetics.NAMED`, and lp_adder."""
    dataset: str = "cifar10"
    """cifar10, or any other set for a quick look: digits, mnist, fashion_mnist, tfds:NAME."""
    data_dir: str | None = None
    """Folder with the data set's files; otherwise looked for and downloaded."""
    depth: int = 8
    """6 n + 2."""
    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 0.1
    """Of SGD at the start of its cosine."""
    binary_learning_rate: float = 0.01
    """Of Adam on binary weights, at the start of its cosine."""
    seed: int = 0
    out: str = "runs/arithmetics_cifar10"
    """Folder of the run."""
    overwrite: bool = False
    """Replace an earlier run in that folder."""
    resume: bool = False
    """Go on with the run in that folder, or start it."""

    def __post_init__(self):
        check_choices("arithmetics", self.arithmetics, NAMES)
        check_positive("binary_learning_rate", self.binary_learning_rate)
        check_positive_integer("depth", self.depth)
        if self.depth % 6 != 2 or self.depth < 8:
            raise InputError(f"--depth must be 6 n + 2 with n at least 1, not {self.depth}.")
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
    train, test = vision.standardized(dataset)
    steps = config.epochs * training.steps_per_epoch(train, config.batch_size)
    folder = runs.RunFolder.create(config.out, config, config.overwrite, config.resume)
    table, histories = [], {}
    for name in config.arithmetics:
        shortcuts = "convolution" if name in A_SHORTCUT_A_CONVOLUTION else "block"
        model = CifarResNet(
            config.depth, dataset.classes, arithmetic(name, steps), shortcuts=shortcuts
        )
        optimizer = adder_recipe(
            steps, config.learning_rate, binary_learning_rate=config.binary_learning_rate
        )
        state, history = runs.fit(
            name,
            training.init(jax.random.key(config.seed), model, optimizer, train[0]),
            training.train_step(model, optimizer, augment=vision.random_crop_and_flip),
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
