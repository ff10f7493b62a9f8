"""What does a layer of one's own term cost, beside the adder's own kernels?

Answer: AdderNet's term takes 0.9 to 1.2 of the time of the adder's own kernels as a native loop and
up to 2.6 by XLA; a distance that ends at 1 up to 1.7 and 2.6. A maximum takes 1.2 to 1.4 forward,
and 1.5 to 2.7 for its gradients, by XLA up to 12.

A ResNet-20 layer (3×3, 16 to 16 channels, 32² pixels) and a dense one (784 to 256), float32, in
three terms made by `nnlab.ops.terms.Term`: AdderNet's own, written as a user writes it; a distance
that ends at 1, with AdderNet's rules; and the larger of input and weight, with the derivatives that
JAX takes of it. Each pass runs as a native loop, where that exists, and on XLA's body, and is
divided by the adder's native kernel for the same pass: once by the time that passes, once by the
time that the processors work, which says more on a machine that others use as well. All are
measured in one process and in turn; times are medians. The obvious way to write such a layer takes
all pairs of inputs and weights, sums, and leaves the gradients to JAX. Memory is what the compiled
program of forward and backward pass needs beside operands and results.

What is left is work: beside the adder's distance, clip and matrix product (three, three and one
vector instruction a term) the maximum has four forward, where a NaN must stay one, and six a
gradient: two comparisons, two choices, a product and a sum. The filter gradient of AdderNet's
x - w is a matrix product in every body. The committed run had the
machine to itself.

    python experiments/benchmarks/own_term.py
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab import kernels
from nnlab.costs.measuring import planned_bytes
from nnlab.ops.adder import adder_conv, adder_dense
from nnlab.ops.terms import Term, term_conv, term_dense
from nnlab.runs import Run
from nnlab.runs.fields import Positive, PositiveInt, SomeOf
from nnlab.runs.script import run
from nnlab.testing import term_sum

LAYERS = {  # shapes of the kernel, of an input and of an output
    "resnet20-16": ((3, 3, 16, 16), (32, 32, 16), (32, 32, 16)),
    "dense": ((784, 256), (784,), (256,)),
}


def full(x, w):
    return x - w


def clip(x, w):
    return jnp.clip(w - x, -1, 1)


TERMS = {
    "adder": Term(lambda x, w: -jnp.abs(x - w), full, clip),
    "near": Term(lambda x, w: -jnp.minimum(jnp.abs(x - w), 1), full, clip),
    "larger": Term(jnp.maximum),
}
BOTH = "forward + backward"
PASSES = ("forward", "input gradient", "filter gradient", BOTH)


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/own_term"
    layers: Annotated[tuple[str, ...], SomeOf(LAYERS)] = tuple(LAYERS)
    terms: Annotated[tuple[str, ...], SomeOf(TERMS)] = tuple(TERMS)
    images: PositiveInt = 128
    """Images a call of the convolution."""
    vectors: PositiveInt = 1024
    """Vectors a call of the dense layer."""
    repeats: PositiveInt = 25
    """Rounds of timing."""
    patience: Positive = 20.0
    """Seconds of measurements after which one is not repeated further."""


def main(config: Config) -> None:
    with config.open() as record:
        record.result({"kernels": kernels.status()})
        for layer in config.layers:
            for which in PASSES:
                for row in rows_of(config, layer, which):
                    record.row(row, "rows")
                    print(
                        f"{layer:12}{which:20}{row['term']:8}{row['body']:14}"
                        f"{row['milliseconds']:9.1f} ms{row['of the adder']:7.2f} times,"
                        f" processors{row['of its processor time']:7.2f} times"
                        f"{row['megabytes']:9.1f} MB",
                        flush=True,
                    )
        record.result({"bodies": {name: kernels.term_status(TERMS[name]) for name in config.terms}})


def op_of(layer: str, term: str, body: str) -> Callable[..., jax.Array]:
    dense = layer == "dense"
    if body == "adder's own":
        return adder_dense if dense else adder_conv
    if body == "obvious":
        return term_sum(TERMS[term].value)
    op = term_dense if dense else term_conv
    return lambda x, kernel: op(x, kernel, TERMS[term])


def pass_of(op: Callable[..., jax.Array], which: str) -> Callable[..., Any]:
    def both(x, kernel, g):
        y, pull = jax.vjp(op, x, kernel)
        return y, *pull(g)

    part = [*PASSES, None].index(which)
    return both if which == BOTH else lambda *operands: both(*operands)[part]


def rows_of(config: Config, layer: str, which: str) -> list[dict[str, Any]]:
    kernel, image, output = LAYERS[layer]
    batch = config.vectors if layer == "dense" else config.images
    rng = np.random.default_rng(0)
    shapes = ((batch, *image), kernel, (batch, *output))
    operands = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    bodies = ("native", "xla", *(["obvious"] if which == BOTH else []))
    names = [("adder", "adder's own"), *((t, body) for t in config.terms for body in bodies)]

    programs = {}
    for term, body in names:
        with kernels.use("xla" if body == "xla" else "cpu"):
            jitted = jax.jit(pass_of(op_of(layer, term, body), which))
            programs[term, body] = jitted.lower(*operands).compile()

    def call(program: Any) -> Callable[[], object]:
        return lambda: jax.block_until_ready(program(*operands))

    times = measured({name: call(program) for name, program in programs.items()}, config)
    seconds = {name: np.median(taken, axis=0) for name, taken in times.items()}
    first = seconds["adder", "adder's own"]
    return [
        {
            "layer": layer,
            "pass": which,
            "term": term,
            "body": body,
            "milliseconds": 1e3 * seconds[term, body][0],
            "processor milliseconds": 1e3 * seconds[term, body][1],
            "of the adder": seconds[term, body][0] / first[0],
            "of its processor time": seconds[term, body][1] / first[1],
            "megabytes": planned_bytes(programs[term, body])["temporary"] / 1e6,
        }
        for term, body in names
    ]


def measured(
    calls: Mapping[Any, Callable[[], object]], config: Config
) -> dict[Any, list[tuple[float, float]]]:
    """Return what each call takes, in turns: seconds that pass, and seconds of all processors."""
    times: dict[Any, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(config.repeats + 1):
        for name, call in calls.items():
            taken = times[name]
            if len(taken) > 1 and sum(passed for passed, _ in taken) > config.patience:
                continue
            start = time.perf_counter(), time.process_time()
            call()
            taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: taken[1:] for name, taken in times.items()}  # the first is a warm-up


if __name__ == "__main__":
    run(main, Config)
