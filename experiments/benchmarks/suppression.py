"""Is non-maximum suppression under `jax.jit` as fast as the loop that libraries compile?

Answer: Not measured yet on a quiet machine; on a busy one it took less time than the loop for each
of four crowds of 10,000 boxes.

Known: torchvision's `nms` goes through single boxes by falling score and drops every later one that
overlaps. Its compiled loop cannot be had beside a CPU build of PyTorch, so the peer is the same
loop in `suppression.cc`, with the same strict inequality, compiled with -O3. Both are called in
turns, and both must keep the same boxes.

    python experiments/benchmarks/suppression.py
"""

import ctypes
import dataclasses
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnlab import figures, runs
from nnlab.errors import InputError
from nnlab.runs.fields import PositiveInt
from nnlab.runs.script import run
from nnlab.vision.detection.suppression import nms

THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/suppression"
    boxes: PositiveInt = 10_000
    rounds: PositiveInt = 21


def main(config: Config) -> None:
    loop = compiled_loop()
    with config.open() as record:
        for row in measure(loop, config.boxes, config.rounds):
            record.row(row)
        figures.print_table(record.rows())


def crowds(count: int) -> dict[str, np.ndarray]:
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


def measure(loop, count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row a crowd: least and median milliseconds of both."""
    ours = jax.jit(lambda boxes, scores: nms(boxes, scores, THRESHOLD))
    scores = np.random.default_rng(1).uniform(size=count).astype(np.float32)
    for name, boxes in crowds(count).items():
        kept, expected = jax.device_get(ours(boxes, scores)), loop(boxes, scores)
        assert kept.indices[kept.mask].tolist() == expected.tolist(), name
        on_device = jax.device_put((boxes, scores))
        calls = {
            "nnlab": lambda args=on_device: jax.block_until_ready(ours(*args)),
            "loop": lambda args=(boxes, scores): loop(*args),
        }
        times: dict[str, list[float]] = {who: [] for who in calls}
        for _ in range(rounds):
            for who, call in calls.items():
                begin = time.perf_counter()
                call()
                times[who].append(1000 * (time.perf_counter() - begin))
        row: dict[str, Any] = {"boxes": name, "of": count, "kept": len(expected)}
        for who, taken in times.items():
            row |= {f"{who}, least / ms": min(taken), f"{who} / ms": float(np.median(taken))}
        yield row | {"ratio": row["nnlab / ms"] / row["loop / ms"]}


if __name__ == "__main__":
    run(main, Config)
