"""What do the classic networks cost, and what is left of it when they stop multiplying?

Answer: An adder ResNet-50 needs 131 million instead of 4.1 billion multiplications, and 41 % of the
energy of the arithmetic.

Every model that `python -m nnlab summary` knows, with 1,000 classes (those for small images 10):
parameters, and operations and energy of one inference as CNN and as AdderNet. First convolution and
dense layers at the end are float in both, and the AdderNet has BatchNorm after each convolution
where the network was published without. Operations are counted in the traced programs
(`nnlab.costs.count`), energy is that of the arithmetic in 45 nm CMOS.

The result, `results/zoo.json`, is the README's table of models. It runs nothing, and
takes a minute or two to trace:

    python experiments/deployment/zoo.py
"""

import dataclasses
from typing import Annotated

import jax

from nnlab import costs, figures, runs
from nnlab.commands import summary
from nnlab.runs.fields import SomeOf
from nnlab.runs.script import run


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/zoo"
    models: Annotated[tuple[str, ...], SomeOf(summary.MODELS)] = tuple(summary.MODELS)
    """Names as for `python -m nnlab summary`."""


def main(config: Config) -> None:
    with config.open() as record:
        for name in config.models:
            (image, parameters, cnn), (*_, adder) = cost(name, "float"), cost(name, "adder")
            row = {"model": name, "image": image, "parameters": parameters}
            totals = adder.totals()
            row |= {"CNN multiplications": cnn.totals()["multiplications"]}
            row |= {f"AdderNet {kind}": totals[kind] for kind in ("multiplications", "additions")}
            row |= {"CNN mJ": costs.energy(cnn) / 1e9, "AdderNet mJ": costs.energy(adder) / 1e9}
            record.row(row)
        figures.print_table(record.rows())


def cost(name: str, arithmetic: str) -> tuple[str, int, costs.Counts]:
    """Return the image's size, the number of parameters, and what one inference computes."""
    norm = arithmetic == "adder" and hasattr(summary.MODELS[name].make(), "norm")
    config = summary.Config(name, arithmetic=arithmetic, norm=norm)
    model = summary.build(config)
    variables, images = summary.shapes(config, model)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    counts = costs.count(model.apply, variables, images)
    return "x".join(map(str, images.shape[1:])), parameters, counts


if __name__ == "__main__":
    run(main, Config)
