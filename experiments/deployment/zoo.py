"""What do the classic networks cost, and what is left of it when they stop multiplying?

Answer: An adder ResNet-50 needs 131 million instead of 4.1 billion multiplications, and 41 % of the
energy of the arithmetic.

For every network of images that `nnlab summary` knows, with 1,000 classes (10 for small images):
parameters, and operations and energy of one inference as CNN and as AdderNet. The first convolution
and the dense layers at the end are float in both; the AdderNet has BatchNorm after each convolution
where the network was published without. Operations are counted in the traced programs
(`nnlab.costs.count`); energy is that of the arithmetic in 45 nm CMOS.

The result is `results/zoo.json`. Nothing is run, and tracing takes a minute or two:

    python experiments/deployment/zoo.py
"""

import dataclasses
from typing import Annotated

import jax

from nnlab import costs, figures, runs
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.models import ZOO
from nnlab.runs.fields import SomeOf
from nnlab.runs.script import run

IMAGE_NETWORKS = tuple(name for name, entry in ZOO.items() if len(entry.shape) == 3)


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/zoo"
    models: Annotated[tuple[str, ...], SomeOf(IMAGE_NETWORKS)] = IMAGE_NETWORKS
    """Names as for `nnlab summary`."""


def main(config: Config) -> None:
    with config.open() as record:
        for name in config.models:
            image, parameters, cnn = cost(name, FLOAT)
            *_, adder = cost(name, ADDER)
            row = {"model": name, "image": image, "parameters": parameters}
            totals = adder.totals()
            row |= {"CNN multiplications": cnn.totals()["multiplications"]}
            row |= {f"AdderNet {kind}": totals[kind] for kind in ("multiplications", "additions")}
            row |= {"CNN mJ": costs.energy(cnn) / 1e9, "AdderNet mJ": costs.energy(adder) / 1e9}
            record.row(row)
        figures.print_table(record.rows())


def cost(name: str, arithmetic: Arithmetic) -> tuple[str, int, costs.Counts]:
    """Return the size of the image, parameters, and what one inference computes."""
    entry = ZOO[name]
    options = {"norm": True} if arithmetic.needs_norm and "norm" in entry.options else {}
    model, image = entry.make(arithmetic=arithmetic, **options), entry.inputs()
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    counts = costs.count(model.apply, variables, image)
    return "x".join(map(str, entry.shape)), parameters, counts


if __name__ == "__main__":
    run(main, Config)
