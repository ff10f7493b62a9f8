"""What does a network compute in one step of learning, number by number?

Answer: The worked example of two layers has the error 0.298371109 before its first step and
0.291027774 after it. The widely copied 0.291027924 comes from another order: code that moves the
second layer before it takes the deltas of the first. As an adder network the same weights go
from 0.244367997 to 0.242194490, and can never come below 0.0593.

The example is Mazur's (A step by step backpropagation example, 2015): inputs 0.05 and 0.10, targets
0.01 and 0.99, two logistic units and two logistic outputs, learning rate 0.5, biases held fixed.
Its text takes all gradients with the weights of the forward pass, and its figures do not: the
outputs 0.015912196 and 0.984065734 that it prints after 10,000 steps are those of the other order,
which descends no function's gradient. The two orders are close because one step moves the second
layer little; nothing but a comparison with the true gradient tells them apart, and here all
gradients are compared with `jax.grad` in float64.

The adder network comes to rest at another error: its products are never above 0, and with a bias
held at 0.60 no output can be above 0.6457, the logistic function of 0.60, where 0.99 is wanted. So
its error stays at half of (0.99 - 0.6457)² = 0.0593 at least.

After the two layers a recurrent cell of two tanh units sees a sequence of three numbers, and its
deltas come back through time. Equations: `nnlab.classics.by_hand`.

Ours, seconds on two cores of an AMD EPYC, nothing random in it (`results/by_hand.json`).

    python experiments/classics/by_hand.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nnlab import figures, runs
from nnlab.classics import by_hand
from nnlab.classics.by_hand import WORKED, WORKED_CELL
from nnlab.ops.adder import adder_dense
from nnlab.runs.fields import Positive, PositiveInt
from nnlab.runs.script import run

PRODUCTS = {
    "float": (by_hand.FLOAT_RULES, jnp.matmul),
    "adder": (by_hand.ADDER_RULES, adder_dense),
}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/by_hand"
    learning_rate: Positive = 0.5
    steps: PositiveInt = 10_000
    """Steps of the example's last figures."""


def main(config: Config) -> None:
    with config.open() as record, jax.enable_x64():
        for name, (rules, product) in PRODUCTS.items():
            numbers = by_hand.two_layer_step(WORKED, config.learning_rate, rules)
            found = jax.value_and_grad(two_layers)((WORKED.first, WORKED.second), product)
            check = (numbers.error, (numbers.first_gradient, numbers.second_gradient)), found
            record.row({"product": name} | difference(*check), "against jax.grad")
            add(record, numbers, name, "two layers")
            cell = by_hand.cell_step(WORKED_CELL, config.learning_rate, rules)
            weights = WORKED_CELL.inputs, WORKED_CELL.recurrent, WORKED_CELL.outputs
            found = jax.value_and_grad(through_time)(weights, product)
            check = (cell.error, cell.gradients), found
            record.row({"product": f"{name}, cell"} | difference(*check), "against jax.grad")
            add(record, cell, name, "cell")
        for name, rules, first in (
            ("float", by_hand.FLOAT_RULES, False),
            ("float, second layer moved first", by_hand.FLOAT_RULES, True),
            ("adder", by_hand.ADDER_RULES, False),
        ):
            row: dict[str, object] = {"steps": name}
            network, done = WORKED, 0
            for steps in (1, 2, config.steps):
                if steps > done:
                    options = {"weights_first": first}
                    network = by_hand.descend(
                        network, steps - done, config.learning_rate, rules, **options
                    )
                    done = steps
                error = by_hand.two_layer_step(network, rules=rules).error
                row[f"error after {steps:,}"] = f"{error:.9f}"
            output = by_hand.two_layer_step(network, rules=rules).output
            record.row(row | {"outputs": ", ".join(f"{o:.9f}" for o in output)}, "errors")
        for table in ("two layers", "cell", "errors", "against jax.grad"):
            figures.print_table(record.rows(table))


def add(record: runs.Record, numbers, product: str, table: str) -> None:
    """Write each number of a step into the table, one column a product."""
    rows = {row["number"]: row for row in record.rows(table)}
    for name, value in zip(numbers._fields, numbers, strict=True):
        arrays = value if isinstance(value, tuple) else [value]
        names = [name] if len(arrays) == 1 else [f"{name} of {w}" for w in "WUV"]
        for label, array in zip(names, arrays, strict=True):
            for place, number in np.ndenumerate(array):
                indexed = f"{label.replace('_', ' ')} {[*place] or ''}".strip()
                rows.setdefault(indexed, {"number": indexed})[product] = f"{number:.10f}"
    record.result({table: [*rows.values()]})


def two_layers(weights, product) -> jax.Array:
    """Return the error of the example by nnlab's own product."""
    hidden = jax.nn.sigmoid(product(WORKED.x[None], weights[0]) + WORKED.biases[0])
    output = jax.nn.sigmoid(product(hidden, weights[1]) + WORKED.biases[1])[0]
    return jnp.sum((WORKED.target - output) ** 2) / 2


def through_time(weights, product) -> jax.Array:
    """Return the error of the sequence by nnlab's own product."""
    cell, (inputs, recurrent, outputs) = WORKED_CELL, weights
    h, error = jnp.asarray(cell.start)[None], jnp.zeros(())
    for x, target in zip(cell.x, cell.targets, strict=True):
        h = jnp.tanh(product(x[None], inputs) + product(h, recurrent) + cell.biases[0])
        error += jnp.sum((target - product(h, outputs)[0] - cell.biases[1]) ** 2) / 2
    return error


def difference(mine, theirs) -> dict[str, float]:
    """Return the largest differences of the errors and of the gradients."""
    pairs = zip(mine[1], theirs[1], strict=True)
    return {
        "difference of the error": abs(mine[0] - float(theirs[0])),
        "largest difference of a gradient": max(float(np.max(np.abs(a - b))) for a, b in pairs),
    }


if __name__ == "__main__":
    run(main, Config)
