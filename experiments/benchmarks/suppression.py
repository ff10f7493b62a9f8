"""Time non-maximum suppression beside the loop over single boxes that libraries compile.

`measure()` returns milliseconds of both, alternating, for four crowds of boxes; both must keep the
same. torchvision's compiled loop cannot be had beside a CPU build of PyTorch, so the peer is the
same loop in `suppression.cc`, with the same strict inequality, compiled with -O3.
"""

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from nnlab.errors import InputError
from nnlab.vision.detection.suppression import nms

THRESHOLD = 0.5


class Timed(NamedTuple):
    """Least and median milliseconds of suppressing some boxes."""

    boxes: int
    kept: int
    ours: tuple[float, float]
    loop: tuple[float, float]


def crowds(count: int = 10_000) -> dict[str, np.ndarray]:
    """Return boxes of four kinds, float32 [count, 4], by how many of them overlap."""
    generator = np.random.default_rng(0)
    found = {}
    for name, side, spread in (("sparse", 40, 2000), ("image", 60, 800), ("dense", 100, 400)):
        centre = generator.uniform(0, spread, (count, 2))
        found[name] = centre, generator.uniform(0.5, 1.5, (count, 2)) * side
    objects = generator.uniform(0, 640, (100, 2))[generator.integers(0, 100, count)]
    found["around 100 objects"] = (
        objects + generator.normal(0, 4, (count, 2)),
        np.abs(80 + generator.normal(0, 5, (count, 2))),
    )
    return {
        name: np.concatenate([at - size / 2, at + size / 2], axis=1).astype(np.float32)
        for name, (at, size) in found.items()
    }


def compiled_loop() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Compile `suppression.cc`; the function takes boxes and scores and returns what it keeps.

    Raises:
        InputError: there is no C++ compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "suppression.so")
        source = Path(__file__).with_suffix(".cc")
        command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O3", "-shared", "-fPIC"]
        try:
            subprocess.run([*command, str(source), "-o", str(library)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f"The loop needs a C++ compiler, but {error}.") from error
        suppress = ctypes.CDLL(str(library)).suppress
    suppress.restype = ctypes.c_int64

    def run(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        order = np.argsort(-scores, kind="stable")
        kept = np.empty(len(scores), np.int64)
        pointers = [each.ctypes.data_as(ctypes.c_void_p) for each in (boxes, order, kept)]
        size, threshold = ctypes.c_int64(len(scores)), ctypes.c_float(THRESHOLD)
        count = suppress(pointers[0], pointers[1], size, threshold, pointers[2])
        return kept[:count]

    return run


def measure(count: int = 10_000, repeats: int = 21) -> dict[str, Timed]:
    """Return times by kind of crowd.

    Raises:
        AssertionError: the two keep different boxes.
    """
    loop = compiled_loop()
    ours = jax.jit(lambda boxes, scores: nms(boxes, scores, THRESHOLD))
    scores = np.random.default_rng(1).uniform(size=count).astype(np.float32)
    found = {}
    for name, boxes in crowds(count).items():
        kept = jax.device_get(ours(boxes, scores))
        expected = loop(boxes, scores)
        assert kept.indices[kept.mask].tolist() == expected.tolist(), name
        on_device = jax.device_put((boxes, scores))
        calls = (
            lambda args=on_device: jax.block_until_ready(ours(*args)),
            lambda args=(boxes, scores): loop(*args),
        )
        times: list[list[float]] = [[], []]
        for _ in range(repeats):
            for call, taken in zip(calls, times, strict=True):
                begin = time.perf_counter()
                call()
                taken.append(1000 * (time.perf_counter() - begin))
        pairs = [(min(taken), float(np.median(taken))) for taken in times]
        found[name] = Timed(count, len(expected), pairs[0], pairs[1])
    return found


if __name__ == "__main__":
    for name, timed in measure().items():
        ours, loop = timed.ours, timed.loop
        print(
            f"{name}: {timed.kept} of {timed.boxes} kept; nnlab {ours[0]:.1f} ms (median "
            f"{ours[1]:.1f}), loop {loop[0]:.1f} ms ({loop[1]:.1f})"
        )
