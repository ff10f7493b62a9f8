"""How are the weights of a network distributed, in each arithmetic? LeNet-5 on MNIST.

Answer: As published, the CNN's weights are Gaussian and the AdderNet's Laplace distributed. Those
of the conjugate and Lp adders leave 0 for two peaks near -3 and +3.

Claimed: weights of a CNN are Gaussian and those of an AdderNet Laplace distributed (AdderNet, CVPR
2020, section 4; Handling Long-tailed Feature Distribution in AdderNets, NeurIPS 2021). The networks
are those that `experiments/arithmetics/every_arithmetic.py` has trained, all by the same recipe.
The largest kernel of each (400 inputs, 120 features; the real weights before any quantisation) gets
a histogram and both fits.

Ours, seed 0, after 5 epochs (`results/weight_distributions.json` and `.png`; seconds on
two cores of an AMD EPYC, besides the trainings). The claim holds: the CNN's weights have kurtosis
2.9, where a Gaussian has 3, and the AdderNet's 6.4, where a Laplace distribution has 6, and so have
Winograd's and AdderSR's. Multiplications in other formats, shifts and ternary weights keep the
CNN's Gaussian. Neither family fits the conjugate and the Lp adder, whose weights leave 0 for two
peaks near -3 and +3, nor binary weights that are drawn at random, which gather at -1 and +1; the
shifts that DeepShift-PS learns stay spread over their range, as they began.

    python experiments/arithmetics/every_arithmetic.py --data-dir DIR
    python experiments/adder/weight_distributions.py
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import figures, runs, training
from nnlab.arithmetics import NAMED, lp_adder
from nnlab.errors import InputError
from nnlab.figures.plots import Weights, figure_weights
from nnlab.models import LeNet5
from nnlab.optim import adder_recipe
from nnlab.paths import reading, user_path
from nnlab.runs.checkpoints import Checkpoints
from nnlab.runs.script import run

ARITHMETICS = NAMED | {"lp_adder": lp_adder(optax.constant_schedule(1.0))}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/weight_distributions"
    trained: str = "runs/every_arithmetic"
    """Run folder of every_arithmetic.py on MNIST."""


def main(config: Config) -> None:
    trained = user_path(config.trained)
    with reading(trained):
        if not (trained / "result.json").is_file():
            raise InputError(f"--trained must be a run of every_arithmetic.py, not {trained}.")
        result = json.loads((trained / "result.json").read_text())
    names = [row["arithmetic"] for row in result["table"]]
    networks = [Weights(name, largest_kernel(trained, name)) for name in names]
    with config.open() as record:
        record.result({"trained": result["config"]})
        for name, weights in networks:
            weights = np.asarray(weights, np.float64)
            fits = figures.fit_weights(weights)
            record.row(
                {
                    "arithmetic": name,
                    "deviation": fits.gaussian.scale,
                    "kurtosis": float(np.mean(((weights - weights.mean()) / weights.std()) ** 4)),
                    "Gaussian": fits.gaussian.log_likelihood,
                    "Laplace": fits.laplace.log_likelihood,
                    "better": fits.better.family,
                }
            )
        record.figure(figure_weights(networks), "weights.png", dpi=100)
        figures.print_table(record.rows())
    print("Log-likelihoods in nats a weight; a Gaussian has kurtosis 3, a Laplace distribution 6.")


def largest_kernel(folder: Path, name: str) -> np.ndarray:
    """Return the kernel [400, 120] of a network of that run, as a vector."""
    model, images = LeNet5(arithmetic=ARITHMETICS[name]), jnp.zeros((1, 32, 32, 1))
    like = training.init(jax.random.key(0), model, adder_recipe(1), images)
    found = Checkpoints(folder / "checkpoints" / name).newest(like=like)
    if found is None:
        raise InputError(f"--trained must be a run with a checkpoint of {name}, not {folder}.")
    return np.asarray(max(jax.tree.leaves(found[0].params), key=np.size)).ravel()


if __name__ == "__main__":
    run(main, Config)
