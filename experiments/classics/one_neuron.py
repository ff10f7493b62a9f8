"""What can one neuron compute, and what changes when it does not multiply?

Answer: On bits nothing changes for an adder: it computes 14 of the 16 functions of two inputs, 104
of 256 of three and 1,882 of 65,536 of four, as a neuron does that multiplies, and so no XOR. Fewer
weights compute less: shifts 1,498 of the functions of four inputs, ternary weights 218, signs 66.

Known: 14, 104 and 1,882 are the numbers of threshold functions (OEIS A000609), for which integer
weights from -3 to 3 are enough. No publication of the others was found; all are counted here, from
every combination of weights and every threshold. Why an adder can do as much is equation 2 of
`nnlab.classics.threshold`: on bits a distance is linear.

On real inputs they differ, as the picture shows: where a product of two inputs is constant is a
line, and where an adder is constant is a diamond, so that one adder neuron tells what is near its
weights from all that surrounds it. Beside them XOR by two layers, by thresholds, ReLUs and adders,
all written by hand, in the coordinates of their hidden units, where a line (dashed) does separate
it.

Ours, a few seconds on two cores of an AMD EPYC, nothing random in it
(`results/one_neuron.json` and `.png`).

    python experiments/classics/one_neuron.py
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nnlab import figures, runs
from nnlab.arithmetics import ADDER, BINARY, FLOAT, SHIFT_Q, TERNARY, Arithmetic
from nnlab.classics import threshold
from nnlab.figures.plots import COLOURS, INK, STYLE
from nnlab.runs.script import run


class Neuron(NamedTuple):
    """A kind of neuron: its name, its arithmetic, its weights, and its false and true."""

    name: str
    arithmetic: Arithmetic
    weights: tuple[float, ...]
    values: tuple[float, float] = (0.0, 1.0)


NEURONS = (
    Neuron("float, -3 to 3", FLOAT, (*range(-3, 4),)),
    Neuron("adder, 0 to 1 in sixths", ADDER, (*(k / 6 for k in range(7)),)),
    Neuron("shift, ±1, ±1/2, ±1/4", SHIFT_Q, (-1, -0.5, -0.25, 0.25, 0.5, 1)),
    Neuron("ternary, -1 to 1", TERNARY, (-1, 0, 1)),
    Neuron("binary, ±1, inputs ±1", BINARY, (-1, 1), (-1, 1)),
)
XOR = {
    "threshold": threshold.xor_by_thresholds,
    "ReLU": threshold.xor_by_relu,
    "adder": threshold.xor_by_adders,
}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/one_neuron"


def main(config: Config) -> None:
    with config.open() as record:
        for neuron in NEURONS:
            row: dict[str, object] = {"neuron, its weights": neuron.name}
            for size in (2, 3, 4):
                found = threshold.computable(size, neuron.weights, neuron.arithmetic, neuron.values)
                row[f"{size} inputs, of {2**2**size:,}"] = len(found)
                if size == 2:
                    row["XOR"] = "yes" if 0b0110 in found else "no"
            record.row(row)
        bits = jnp.asarray(threshold.every_input(2))
        for name, network in XOR.items():
            hidden, outputs = network(bits)
            row = {"XOR by": name}
            for x, h, y in zip(bits, hidden, outputs, strict=True):
                row["".join(f"{bit:.0f}" for bit in x)] = f"({h[0]:g}, {h[1]:g}) → {y:g}"
            record.row(row, "xor")
        record.figure(figure())
        figures.print_table(record.rows())
        figures.print_table(record.rows("xor"))


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def figure() -> Figure:
    """Draw where two neurons are constant, and XOR in the coordinates of hidden units."""
    drawn = Figure(figsize=(12.5, 2.9))
    places = drawn.subplots(1, 5)
    line = np.linspace(-2, 2, 201, dtype=np.float32)
    plane = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    kernel = jnp.array([[1.0], [0.5]])
    for axes, arithmetic, title in (
        (places[0], FLOAT, "x w, constant on lines"),
        (places[1], ADDER, "-|x - w|, on diamonds"),
    ):
        heights = threshold.response(jnp.asarray(plane), kernel, arithmetic)
        heights = np.asarray(heights).reshape(201, 201)
        axes.contourf(line, line, heights, 12, cmap="PuOr")
        axes.contour(line, line, heights, 12, colors=INK, linewidths=0.4)
        axes.plot(*kernel[:, 0], "o", color="white", markeredgecolor=INK, markersize=5)
        axes.annotate("w", (1.1, 0.6), color="white" if arithmetic is ADDER else INK)
        axes.set(title=title, xlabel="x1", ylabel="x2", aspect="equal")
    bits = jnp.asarray(threshold.every_input(2))
    true = np.asarray(bits[:, 0] != bits[:, 1])
    for axes, (name, network) in zip(places[2:], XOR.items(), strict=True):
        hidden = np.asarray(network(bits)[0])
        for value, colour, marker in ((False, COLOURS[0], "o"), (True, COLOURS[1], "s")):
            label = "1" if value else "0"
            axes.plot(*hidden[true == value].T, marker, color=colour, label=label, clip_on=False)
        for point in {*map(tuple, hidden.tolist())}:
            same = [f"{a:.0f}{b:.0f}" for a, b in bits[(hidden == point).all(1)].tolist()]
            axes.annotate(", ".join(same), point, (4, 5), textcoords="offset points")
        cut = {"threshold": [(0.5, 1.25), (1.25, 0.5)], "ReLU": [(0, -0.25), (2.5, 1)]}
        ends = cut.get(name, [(0, 0.25), (0.25, 0)])
        axes.plot(*zip(*ends, strict=True), color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.set(title=f"XOR by {name}s", xlabel="h1", ylabel="h2")
        axes.margins(0.2)
    places[2].legend(title="XOR", loc="lower left")
    return drawn


if __name__ == "__main__":
    run(main, Config)
