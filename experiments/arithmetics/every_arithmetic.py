"""What does a network lose when it stops multiplying, and what does it save?

Answer: Hardly anything on MNIST, but for signs: after 5 epochs the CNN has 99.29 % and the AdderNet
99.26 %; whatever keeps real inputs has 98.3 to 99.4 %, and networks of signs alone 97.9 to 98.1 %.
On CIFAR-10 after one epoch the CNN has 56.26 % and the AdderNet 52.73 %; weights of few bits and
shifts learn as fast as the CNN, and networks of signs more slowly.

One network in every arithmetic of this kit, all with the same recipe and budget: SGD with momentum
0.9, weight decay 5e-4, cosine from 0.1 (Adam on binary weights, rectified Adam on shifts). First
convolution and classifier are float. Nothing is tuned for one arithmetic, so a figure says how far
it comes by the recipe of the others, not how far it could.

LeNet-5 on MNIST, 5 epochs, images 32×32. Published, each by its own recipe on its own network:
AdderNet and its CNN 99.40 % (AdderNet, CVPR 2020, section 4.1, LeNet-5), DeepShift-Q 98.81 and -PS
99.12 beside 98.75 (DeepShift, CVPRW 2021, convolutional network), binary networks 99.04
(BinaryNet, 2016, three dense layers). Ours, seed 0, on two cores of an AMD EPYC beside other
programs (`results/arithmetics_mnist.json`): CNN 99.29 and AdderNet 99.26 %; all that keep real
inputs, and DoReFa's few bits, lie between 98.3 and 99.4, and networks of signs alone between 97.9
and 98.1. One image in a hundred is what the signs lose; between the others a seed could change the
order.

A ResNet of 8 layers on CIFAR-10, 1 epoch, with crops of images padded by 4 and flips; Bi-Real and
AdderSR have a shortcut around each convolution, as they were published. Published, after hundreds
of epochs with a ResNet-20, each by its own recipe: CNN 92.25, AdderNet 91.84, BNN 84.87 (AdderNet,
CVPR 2020, table 2); ShiftAddNet 89.32 (its code, 160 epochs); DeepShift-Q 89.85 and -PS 88.84
beside a CNN of 91.79 (DeepShift, CVPRW 2021). One epoch is enough to compare how fast the
arithmetics learn and no more. Ours, seed 0, on the same machine
(`results/arithmetics_cifar10.json`): CNN 56.26 and AdderNet 52.73 %. Weights of few bits and shifts
learn as fast as the CNN (54.0 to 56.9), the adder's relatives nearly so (49.6 to 55.8), DoReFa's
activations of few bits and networks of signs more slowly (40 to 46), and weights that are drawn at
random or learnt as exponents most slowly. The run was ended while the Lp adder trained, which costs
35 adders until p is 1: it has no row.

    python experiments/arithmetics/every_arithmetic.py --data-dir DIR
    python experiments/arithmetics/every_arithmetic.py --dataset cifar10 --network resnet \
        --epochs 1 --data-dir DIR --out runs/arithmetics_cifar10
"""

import dataclasses
from typing import Annotated, Literal

import flax.linen as nn
import jax
import numpy as np
import optax

from nnlab import costs, figures, runs, training, vision
from nnlab.arithmetics import NAMED, lp_adder
from nnlab.errors import InputError
from nnlab.models import CifarResNet, LeNet5
from nnlab.optim import adder_recipe
from nnlab.runs.fields import Positive, PositiveInt, Seed, SomeOf
from nnlab.runs.script import run

NAMES = (*NAMED, "lp_adder")


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = "runs/every_arithmetic"
    running_statistics: bool = True  # as the committed result
    arithmetics: Annotated[tuple[str, ...], SomeOf(NAMES)] = NAMES
    """Names as in `nnlab.arithmetics.NAMED`, and lp_adder."""
    network: Literal["lenet5", "resnet"] = "lenet5"
    depth: int = 8
    """Layers of the ResNet, 6 n + 2."""
    epochs: PositiveInt = 5
    batch_size: PositiveInt = 128
    learning_rate: Positive = 0.1
    """Peak learning rate of SGD (cosine decay)."""
    binary_learning_rate: Positive = 0.01
    """Peak learning rate of Adam on binary weights (cosine decay)."""
    seed: Seed = 0

    def __post_init__(self):
        super().__post_init__()
        if self.depth % 6 != 2 or self.depth < 8:
            raise InputError(f"--depth must be 6 n + 2 with n at least 1, not {self.depth}.")


def main(config: Config) -> None:
    images = config.images(border=(32, 32) if config.network == "lenet5" else None)
    train, test = images.train, images.test
    augment = vision.random_crop_and_flip if config.network == "resnet" else None
    steps = config.epochs * training.steps_per_epoch(train, config.batch_size)
    histories = {}
    with config.open(notes=images.notes, reasons=runs.COSINE) as record:
        for name in config.arithmetics:
            model = network(name, images.classes, steps, config)
            rate = optax.cosine_decay_schedule(config.learning_rate, steps)
            optimizer = adder_recipe(steps, rate, binary_learning_rate=config.binary_learning_rate)
            trained = runs.fit(
                name,
                training.init(jax.random.key(config.seed), model, optimizer, train[0]),
                training.train_step(
                    model, optimizer, augment=augment, gradient_norm=config.gradient_norm
                ),
                training.evaluation(model),
                training.in_memory(train, config.batch_size),
                test,
                epochs=config.epochs,
                folder=record.folder,
                learning_rate=rate,
                **config.protocol(images),
            )
            state, history = trained.chosen, trained.history
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            accuracy = round(100 * trained.tested.metrics["accuracy"], 2)
            row = {"arithmetic": name, "test accuracy / %": accuracy}
            row |= costs.inference_costs(model.apply, variables, test[0][:1])
            record.row(row | {"seconds / epoch": float(np.median(history["seconds"]))})
            histories[name] = history
            record.result({"histories": histories})
            print(f"{name:24s} {accuracy:6.2f} %", flush=True)
        figures.print_table(record.rows())
        vision.write_image_report(record, images, table=record.rows())


def network(name: str, classes: int, steps: int, config: Config) -> nn.Module:
    """Return the network in an arithmetic; the Lp adder becomes an adder in half of the steps."""
    if name == "lp_adder":
        arithmetic = lp_adder(optax.linear_schedule(2.0, 1.0, steps // 2))
    else:
        arithmetic = NAMED[name]
    if config.network == "lenet5":
        return LeNet5(classes, arithmetic)
    return CifarResNet(config.depth, classes, arithmetic, shortcuts=arithmetic.shortcuts)


if __name__ == "__main__":
    run(main, Config)
