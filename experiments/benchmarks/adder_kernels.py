"""How fast are the kernels, against XLA and against what the machine can do?

Every kernel runs natively and on XLA's body, and beside them JAX's own convolution of the same
shape, in one process and in turn, so that ratios hold where times drift. The limit is what a loop
without memory sums on as many threads, measured here with a few lines of C++. Written for x86-64
and aarch64 with g++ or clang++; run it on an otherwise idle machine.

    python experiments/benchmarks/adder_kernels.py
"""

import ctypes
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from nnlab import kernels
from nnlab.kernels import adder, convolution
from nnlab.kernels.window import Window

SAME3, SAME5 = Window(padding=((1, 1), (1, 1))), Window(padding=((2, 2), (2, 2)))
LAYERS = {  # height and width, inputs, taps a side, outputs
    "ResNet-20, first stage": (32, 16, 3, 16, SAME3),
    "ResNet-20, second stage": (16, 32, 3, 32, SAME3),
    "ResNet-20, third stage": (8, 64, 3, 64, SAME3),
    "LeNet-5, first layer": (28, 1, 5, 6, SAME5),
    "LeNet-5, second layer": (14, 6, 5, 16, Window()),
    "dense 400 to 120": (1, 400, 1, 120, Window()),
}
LIMITS = ("maximum_and_add", "subtract_absolute_add", "subtract_clip_multiply_add", "multiply_add")


@dataclass(frozen=True)
class Config:
    batch: int = 64
    repeats: int = 25  # of every measurement

    def __post_init__(self):
        if min(self.batch, self.repeats) < 1:
            raise ValueError(f"batch and repeats must be positive, not {self}.")


def limits() -> dict[str, float]:
    """Terms a second of all threads together, by the name of a loop."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "limits.so")
        command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O3", "-march=native", "-shared"]
        source = Path(__file__).with_name("limits.cc")
        subprocess.run([*command, "-fPIC", str(source), "-o", str(library)], check=True)
        loops = ctypes.CDLL(str(library))
        rates = {}
        with ThreadPoolExecutor(threads) as pool:
            for name in LIMITS:
                loop = loops[name]
                loop.argtypes, loop.restype = [ctypes.c_double], ctypes.c_double
                rates[name] = sum(pool.map(loop, [0.5] * (threads or 1)))
    return rates


def programs(batch: int, size: int, inputs: int, taps: int, outputs: int, window: Window):
    """({name: {body: call}}, terms) of one layer, compiled."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, size, size, inputs)).astype(np.float32)
    kernel = rng.normal(size=(taps, taps, inputs, outputs)).astype(np.float32)
    shape = batch, *window.positions(x.shape[1:], kernel.shape), outputs
    g = rng.normal(size=shape).astype(np.float32)
    g, x, kernel = map(jax.device_put, (g, x, kernel))
    functions = {
        "adder forward": lambda g, x, w: adder.adder_conv(x, w, window=window),
        "adder input gradient": lambda g, x, w: adder.adder_conv_input_gradient(
            g, x, w, rule="clip", window=window
        ),
        "conv forward": lambda g, x, w: convolution.convolve(x, w, window),
        "conv input gradient": lambda g, x, w: convolution.convolve_input_gradient(g, x, w, window),
        "conv filter gradient": lambda g, x, w: convolution.convolve_filter_gradient(
            g, x, w, window
        ),
    }

    def compiled(function, body):
        with kernels.use(body):
            program = jax.jit(function).lower(g, x, kernel).compile()
        return lambda: program(g, x, kernel).block_until_ready()

    calls = {
        name: {body: compiled(function, body) for body in ("native", "xla")}
        for name, function in functions.items()
    }
    return calls, g.size * taps * taps * inputs


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(config: Config):
    ceilings = limits()
    print("  ".join(f"{name} {rate / 1e9:.0f} Gterm/s" for name, rate in ceilings.items()))
    print(f"native bodies: {kernels.status()['adder_conv']['cpu']}\n")
    ceiling_of = {
        "adder forward": "maximum_and_add",
        "adder input gradient": "subtract_clip_multiply_add",
    }
    print(f"{'kernel':22}{'ms, median / best':>19}{'Gterm/s':>9}{'of limit':>9}{'XLA body':>10}")
    for layer, sizes in LAYERS.items():
        calls, terms = programs(config.batch, *sizes)
        print(f"{layer}, batch {config.batch}, {terms / 1e6:.0f} M terms")
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(config.repeats):
            for name, bodies in calls.items():
                for body, call in bodies.items():
                    times.setdefault((name, body), []).append(seconds(call))
        for name in calls:
            median, best = np.median(times[name, "native"]), min(times[name, "native"])
            limit = ceilings[ceiling_of.get(name, "multiply_add")]
            ratio = np.median(times[name, "xla"]) / median
            print(
                f"{name:22}{1e3 * median:10.2f} /{1e3 * best:7.2f}{terms / best / 1e9:9.1f}"
                f"{terms / best / limit:9.2f}{ratio:9.1f}x"
            )


if __name__ == "__main__":
    main(tyro.cli(Config))
