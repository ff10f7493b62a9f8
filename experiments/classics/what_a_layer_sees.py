"""What does a layer see, and does an adder layer see anything else than one that multiplies?

Answer: In the first layer it does. What moves an adder most is its filter itself, in every pixel
that can be as dark or bright as the weight, and it looks like the patches that move it most (a
correlation of 0.93); what moves a product most is black and white by the signs of its weights
(0.66). One layer further they are alike: 0.29 and 0.26 on MNIST, on small digits 0.57, 0.60 for
adders and 0.58 for signs.

Known: nine patches that move a unit most, and what they have in common (Zeiler & Fergus, 2014);
maximisation of a unit by ascent in its input (Erhan et al., 2009). That -|x - w| is greatest where
x = w needs no source.

Networks are those that come with the package (`nnlab.models.PRETRAINED`): LeNet-5 on MNIST, all of
whose layers multiply or add, and a small network on 8x8 digits, whose first layer always multiplies
and whose other layers multiply, add or compare signs. Responses are those of a layer before its
normalisation. Patches are of test images, maximisers between the smallest and the largest value of
these, and a receptive field is where derivatives are not zero (`nnlab.figures.seeing`).

A layer that adds says how far its input is from its filter, so that no response is above 0. LeNet-5
comes nowhere near: of its first filters' weights only 40 % lie between the darkest and the
brightest pixel, and no image can bring more than -114 (median over units) where real patches bring
-125. Its filters point beyond what there is to see.

Ours, seed 0, half a minute of processor time on two cores of an AMD EPYC
(`results/what_a_layer_sees.json` and `.png`).

    python experiments/classics/what_a_layer_sees.py
"""

import dataclasses
from typing import Annotated, Any

import jax
import numpy as np
from typing_extensions import Doc

from nnlab import figures, models, runs, vision
from nnlab.errors import InputError
from nnlab.figures.seeing import map_layers
from nnlab.figures.seen import Seen, figure_seen, see
from nnlab.runs.fields import DataDir, PositiveInt, Seed, SomeOf
from nnlab.runs.script import run

NAMED = [name for name, row in models.PRETRAINED.items() if row.ships and "int" not in name]


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/what_a_layer_sees"
    networks: Annotated[tuple[str, ...], SomeOf(NAMED), Doc(f"Any of {', '.join(NAMED)}.")] = (
        *("lenet5_cnn", "lenet5_adder", "digits_cnn", "digits_adder", "digits_bnn"),
    )
    data_dir: DataDir = None
    images: PositiveInt = 2000
    """Look through so many test images, or all if there are fewer."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images < 9:  # a row of the picture has as many patches
            raise InputError(f"--images must be an integer of at least 9, not {self.images}.")


def main(config: Config) -> None:
    key = jax.random.key(config.seed)
    tests = {
        name: vision.load(name, config.data_dir).test
        for name in dict.fromkeys(models.PRETRAINED[n].training.dataset for n in config.networks)
    }
    with config.open() as record:
        drawn: dict[tuple[str, int], list[Seen]] = {}
        for name in config.networks:
            network = models.pretrained(name)
            assert network.saved is not None
            model, variables = network.saved.model, network.saved.variables
            dataset = models.PRETRAINED[name].training.dataset
            images = network.preparation(tests[dataset].images[: config.images])
            labels = tests[dataset].labels
            for number, layer in enumerate(map_layers(model, variables, images[:1])[:2]):
                if dataset == "digits" and number == 0:
                    continue  # multiplies in all three
                seen = see(key, f"{name}, {layer}", model, variables, layer, images, labels)
                drawn.setdefault((dataset, -number), []).append(seen)
                record.row({"network": name, "layer": layer} | seen.figures)
                if number == 0:
                    row = first_layer(variables["params"][layer], seen, images)
                    record.row({"network": name, "layer": layer} | row, "first layers")
        record.result({"minutes": record.minutes})
        groups = [drawn[key] for key in sorted(drawn, reverse=True)]
        record.figure(figure_seen([seen for group in groups for seen in group]))
        figures.print_table(record.rows())
        if firsts := record.rows("first layers"):
            figures.print_table(firsts)


def first_layer(parameters: Any, seen: Seen, images: jax.Array) -> dict[str, float]:
    """Compare the maximisers of a first layer with its filters."""
    (kernel,) = (leaf for name, leaf in parameters.items() if name.endswith("kernel"))
    filters = np.asarray(kernel).transpose(3, 0, 1, 2)
    low, high = float(images.min()), float(images.max())
    sides = np.where(filters > 0, high, low)
    near = 0.01 * (high - low)
    return {
        "pixels equal to the filter's / %": _percent(
            np.abs(seen.maximisers - filters.clip(low, high)) < near
        ),
        "at the bound of the weight's sign / %": _percent(np.abs(seen.maximisers - sides) < near),
        "weights between the bounds / %": _percent((filters >= low) & (filters <= high)),
    }


def _percent(which: np.ndarray) -> float:
    return 100 * float(np.mean(which))


if __name__ == "__main__":
    run(main, Config)
