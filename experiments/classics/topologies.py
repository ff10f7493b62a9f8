"""What is connected to what: forward, back, fully, locally, sparsely, and does arithmetic matter?

Answer: A layer of eight inputs and six outputs has 48 connections if it is full, 18 if each output
sees three neighbours, and 24 if of every four weights two are zero, unless it is an adder layer: to
that a weight of zero is one like any other, and all 48 connections are there. A convolution has the
18 connections of the local layer with 3 weights for its 18.

Known: locally connected layers and shared weights (LeCun, Generalization and network design
strategies, 1989), and a network with feedback (Elman, Finding structure in time, 1990).

Nothing is drawn by hand: layers and what they take their inputs from are read from the traced
program, and within a layer one input after the other is changed, to see which outputs change
(`nnlab.classics.topologies`). Red: what units said a step before, to themselves and to each other.
Colours of the convolution: its three weights. `nnlab summary MODEL --picture FILE.svg` draws any
network layer by layer.

Ours, seed 0, a few seconds on two cores of an AMD EPYC (`results/topologies.json` and `.png`).

    python experiments/classics/topologies.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from nnlab import figures, runs
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.classics.topologies import Units, networks, units
from nnlab.costs import stored_bytes
from nnlab.figures.plots import COLOURS, INK, STYLE
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.runs.fields import Seed
from nnlab.runs.script import run

BACK = COLOURS[2]


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/topologies"
    seed: Seed = 0


def main(config: Config) -> None:
    key = jax.random.key(config.seed)
    with config.open() as record:
        drawn: dict[str, Units] = {}
        for arithmetic, product in ((FLOAT, conv), (ADDER, adder_conv)):
            for name, (model, inputs) in networks(arithmetic, product).items():
                variables = model.init(key, jnp.zeros(inputs.shape))
                found = units(key, model, variables, inputs)
                drawn.setdefault(name, found)
                record.row(
                    {"network": name, "arithmetic": arithmetic.name}
                    | counts(found)
                    | {"bytes at rest": stored_bytes(model.apply, variables, inputs)}
                )
        record.figure(figure(drawn))
        figures.print_table(record.rows())


def counts(found: Units) -> dict[str, object]:
    """Count what a network is made of."""
    back = sum(int(link.connected.sum()) for link in found.links if link.feedback)
    every = sum(int(link.connected.sum()) for link in found.links)
    return {
        "units": "-".join(map(str, found.groups)),
        "connections forward": every - back,
        "back": back,
        "of possible / %": 100 * every / sum(link.connected.size for link in found.links),
        "weights": sum(link.weights for link in found.links),
    }


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def figure(networks: dict[str, Units]) -> Figure:
    """Draw each network, its units in columns from left to right."""
    drawn = Figure(figsize=(9.6, 5.2))
    places = drawn.subplots(2, 3).flat
    for axes, (name, found) in zip(places, networks.items(), strict=True):
        draw(axes, found)
        number = sum(int(link.connected.sum()) for link in found.links)
        weights = sum(link.weights for link in found.links)
        axes.set_title(f"{name}: {number} connections, {weights} weights")
    return drawn


def draw(axes: Axes, found: Units) -> None:
    """Draw the units of a network as circles and their connections as lines."""
    at = [
        np.stack([np.full(size, float(group)), (size - 1) / 2 - np.arange(size)], 1)
        for group, size in enumerate(found.groups)
    ]
    for link in found.links:
        inputs, outputs = link.connected.nonzero()
        shared = link.weights < link.connected.sum()
        for i, j in zip(inputs.tolist(), outputs.tolist(), strict=True):
            start, end = at[link.source][i], at[link.target][j]
            colour = COLOURS[(i - j) % len(COLOURS)] if shared else INK
            if not link.feedback:
                axes.plot(*zip(start, end, strict=True), color=colour, linewidth=0.8, zorder=1)
                continue
            if i == j:
                loop = {"markersize": 11, "markeredgecolor": BACK, "markerfacecolor": "none"}
                axes.plot(start[0], start[1] + 0.24, "o", **loop, zorder=2)
                continue
            curve = {"connectionstyle": "arc3,rad=0.5"}
            arrow = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 5, "shrinkB": 5}
            look = {"color": BACK, "linewidth": 0.9, "linestyle": (0, (3, 2)), "zorder": 2}
            axes.add_patch(FancyArrowPatch(tuple(start), tuple(end), **curve, **arrow, **look))
    for group, centres in enumerate(at):
        colour = "white" if group == 0 else COLOURS[0]
        axes.plot(*centres.T, "o", markersize=10, color=colour, markeredgecolor=INK, zorder=3)
    tallest = max(found.groups)
    axes.set(xlim=(-0.35, len(found.groups) - 0.65), ylim=(-tallest / 2 - 0.1, tallest / 2 + 0.1))
    axes.axis("off")


if __name__ == "__main__":
    run(main, Config)
