"""How fast are the Pallas kernels on a GPU, against XLA and against what the GPU can do?

Answer: Not measured yet: no GPU was at hand.

A forward term of the adder is two additions that no tensor core does, so the limit is half of the
rate of multiply-adds outside the tensor cores: clock × multiprocessors × 128 / 2. That rate is
measured here with a loop that reads no memory. The input gradient has four instructions a term, two
of them at half speed, so that at best it takes three times as long. Every kernel is first checked
against XLA's body. Nothing has been measured yet: no GPU was at hand when this was written.

    python experiments/benchmarks/adder_gpu.py
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas
from jax.experimental.pallas import triton

from nnlab import kernels
from nnlab.errors import InputError
from nnlab.kernels import adder, adder_gpu
from nnlab.kernels.adder_triton import Tile
from nnlab.kernels.convolution import convolve, convolve_input_gradient
from nnlab.kernels.window import Window
from nnlab.runs.fields import PositiveInt, check_fields
from nnlab.runs.script import run

SAME = Window(padding=((1, 1), (1, 1)))
LAYERS = {  # height and width, inputs, outputs, window of a 3×3 kernel
    "ResNet-20, first stage": (32, 16, 16, SAME),
    "ResNet-20, into the second": (32, 16, 32, SAME._replace(strides=(2, 2))),
    "ResNet-20, second stage": (16, 32, 32, SAME),
    "ResNet-20, third stage": (8, 64, 64, SAME),
}
TILES = [
    None,  # the choice of `adder_triton.choose_tile`
    *(Tile(64, 16, rows, across) for rows in (1, 2, 4, 8) for across in (1, 2)),
    *(Tile(64, 32, rows, 1) for rows in (2, 4)),
    *(Tile(32, 16, rows, 1, 2) for rows in (2, 4, 8)),
    *(Tile(64, 16, rows, 1, 4, 24) for rows in (2, 4)),
]


@dataclasses.dataclass(frozen=True)
class Config:
    batch: PositiveInt = 128
    repeats: PositiveInt = 20
    """Repetitions of every measurement; the best counts."""

    def __post_init__(self):
        check_fields(self)


def best_seconds(call, repeats: int, calls: int = 20) -> float:
    """Time one call; several are queued at once, so that its launch from Python does not count."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready([call() for _ in range(calls)])
        times.append((time.perf_counter() - start) / calls)
    return min(times)


def multiply_adds(repeats: int) -> float:
    """Return the multiply-adds a second outside tensor cores, from eight chains in each thread."""
    programs, threads, chains, trips, unrolled = 2048, 256, 8, 256, 16

    def body(out):
        start = jnp.arange(threads, dtype=jnp.float32)

        def trip(_, sums):
            for _ in range(unrolled):
                sums = [0.999 * total + 0.5 for total in sums]
            return sums

        sums = lax.fori_loop(0, trips, trip, [start + chain for chain in range(chains)])
        index = pallas.program_id(0) * threads + jnp.arange(threads)
        triton.store(out.at[index], functools.reduce(jnp.add, sums))

    call = pallas.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((programs * threads,), jnp.float32),
        grid=(programs,),
        compiler_params=triton.CompilerParams(num_warps=threads // 32, num_stages=1),
    )
    return programs * threads * chains * trips * unrolled / best_seconds(jax.jit(call), repeats, 1)


def measure(config: Config, limit: float, layer: str):
    size, inputs, outputs, window = LAYERS[layer]
    rng = np.random.default_rng(0)
    shapes = (config.batch, size, size, inputs), (3, 3, inputs, outputs)
    out = config.batch, *window.positions(shapes[0][1:], shapes[1]), outputs
    g, x, w = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (out, *shapes))
    terms = g.size * 9 * inputs

    def report(name, function, expected=None):
        result = function(g, x, w)
        if expected is not None:
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)
        seconds = best_seconds(lambda: function(g, x, w), config.repeats)
        rate = terms / seconds
        print(f"  {name:52}{1e6 * seconds:10.1f} µs{rate / 1e9:9.0f} Gterm/s{rate / limit:7.2f}")
        return result

    def forward(g, x, w, tile=None):
        return adder_gpu.adder_conv(x, w, window=window, tile=tile)

    def backward(g, x, w, tile=None):
        return adder_gpu.adder_conv_input_gradient(g, x, w, rule="clip", window=window, tile=tile)

    def xla_forward(g, x, w):
        return adder.adder_conv(x, w, window=window)

    def xla_backward(g, x, w):
        return adder.adder_conv_input_gradient(g, x, w, rule="clip", window=window)

    print(f"{layer}, batch {config.batch}, {terms / 1e6:.0f} M terms")
    report("lax.conv forward", jax.jit(lambda g, x, w: convolve(x, w, window)))
    report(
        "lax.conv input gradient", jax.jit(lambda g, x, w: convolve_input_gradient(g, x, w, window))
    )
    for name, xla, pallas_body in (
        ("forward", xla_forward, forward),
        ("input gradient", xla_backward, backward),
    ):
        with kernels.use("xla"):
            expected = report(f"{name}, XLA", jax.jit(xla))
        for tile in TILES:
            label = f"{name}, chosen" if tile is None else f"{name}, {tuple(tile)}"
            report(label, jax.jit(functools.partial(pallas_body, tile=tile)), expected)


def main(config: Config):
    if jax.default_backend() != "gpu":
        raise InputError(f"This benchmark needs an Nvidia GPU, not the {jax.default_backend()}.")
    rate = multiply_adds(config.repeats)
    print(f"{jax.devices()[0].device_kind}: {rate / 1e12:.1f} T multiply-adds/s")
    print("the last column is the fraction of half of that\n")
    for layer in LAYERS:
        measure(config, rate / 2, layer)


if __name__ == "__main__":
    run(main, Config)
