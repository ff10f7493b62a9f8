"""How are the weights of a network distributed, in each arithmetic? LeNet-5 on MNIST.

Claimed: weights of a CNN are Gaussian and those of an AdderNet Laplace distributed (AdderNet, CVPR
2020, section 4; Handling Long-tailed Feature Distribution in AdderNets, NeurIPS 2021). The same
network is trained in every arithmetic of this kit by the same recipe; the largest layer of that
arithmetic's weights, the real ones behind their quantisation, gets a histogram and both fits.

RESULTS

    python experiments/weight_distributions.py --data-dir DIR
"""

import dataclasses
import time

import jax
import numpy as np
import optax

from nnlab import analysis, data, training
from nnlab.analysis.plots import Weights, figure_weights
from nnlab.arithmetics import NAMED, Arithmetic, lp_adder
from nnlab.models import LeNet5
from nnlab.optim import adder_recipe
from nnlab.training.script import (
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
    epochs: int = 2
    batch_size: int = 128
    learning_rate: float = 0.1
    """Of SGD at the start of its cosine."""
    binary_learning_rate: float = 0.01
    """Of Adam on binary weights, at the start of its cosine."""
    seed: int = 0
    out: str = "runs/weight_distributions"
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
    start = time.perf_counter()
    dataset = data.load(config.dataset, config.data_dir)
    train, test = ((data.pad_to(x, 32, 32), y) for x, y in data.standardized(dataset))
    steps = config.epochs * training.steps_per_epoch(train, config.batch_size)
    folder = training.RunFolder.create(config.out, config, config.overwrite, config.resume)
    networks, table = [], []
    for name in config.arithmetics:
        model = LeNet5(dataset.classes, arithmetic(name, steps))
        optimizer = adder_recipe(
            steps, config.learning_rate, binary_learning_rate=config.binary_learning_rate
        )
        state, _ = training.fit(
            name,
            training.init(jax.random.key(config.seed), model, optimizer, train[0]),
            training.train_step(model, optimizer),
            training.evaluation(model),
            training.in_memory(train, config.batch_size),
            test,
            epochs=config.epochs,
            folder=folder,
        )
        # Its largest kernel: 400 by 120, far larger than the float classifier's.
        weights = np.asarray(max(jax.tree.leaves(state.params), key=np.size)).ravel()
        fits = analysis.fit_weights(weights)
        networks.append(Weights(name, weights))
        table.append(
            {
                "arithmetic": name,
                "weights": weights.size,
                "deviation": fits.gaussian.scale,
                "kurtosis": float(np.mean(((weights - weights.mean()) / weights.std()) ** 4)),
                "Gaussian": fits.gaussian.log_likelihood,
                "Laplace": fits.laplace.log_likelihood,
                "better": fits.better.family,
            }
        )
        print(f"{name:24s} {fits.better.family}", flush=True)
    minutes = round((time.perf_counter() - start) / 60, 1)
    result = {"config": dataclasses.asdict(config), "table": table, "minutes": minutes}
    folder.write_result(training.provenance() | result)
    figure_weights(networks).savefig(folder.path / "weights.png", dpi=100)
    analysis.print_table(table)
    print("Log-likelihoods in nats a weight; a Gaussian has kurtosis 3, a Laplace distribution 6.")


if __name__ == "__main__":
    run(main, Config)
