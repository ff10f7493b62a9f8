"""Calls timed in turn, the machine's own limits, and the memory that a call takes at its peak."""

import ctypes
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nnlab.costs.measuring import Call, growth
from nnlab.errors import InputError

LIMITS = {  # loops of limits.cc by what they bound; the fastest form of each
    "distance": ("maximum_and_add", "subtract_absolute_add", "subtract_on_multiplier_absolute_add"),
    "maximum and add": ("maximum_and_add",),
    "clipped gradient": ("subtract_clip_multiply_add", "subtract_on_multiplier_clip_multiply_add"),
    "product": ("multiply_add",),
    "distance of bytes": ("absolute_differences_of_bytes",),  # x86-64 alone, as the next
    "agreement of bits": ("xnor_popcount",),
}
TERNARY_LIMITS = {
    "product of bytes": ("products_of_bytes",),
    "bytes read": (
        "bytes_read_in_order",
        "bytes_read_in_pages",
        "bytes_read_ahead",
        "bytes_read_far_ahead",
    ),
}


def alternately(calls: Mapping[str, Call], repeats: int, inner: int = 1) -> dict[str, float]:
    """Return the median seconds of each call, in rounds of all, after an untimed one.

    Args:
        calls: what to time, by name.
        repeats: rounds.
        inner: times that a call is made in a round, each timed.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            for _ in range(inner):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def limits(of: Mapping[str, Sequence[str]] = LIMITS) -> dict[str, float]:
    """Measure the terms a second that all threads sum from registers, or the bytes they read.

    Args:
        of: loops of limits.cc by what they bound; those that this processor lacks are left out.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "limits.so")
        command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O3", "-march=native", "-shared"]
        source = Path(__file__).with_name("limits.cc")
        try:
            subprocess.run([*command, "-fPIC", str(source), "-o", str(library)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f"The limits need a C++ compiler, but {error}.") from error
        loops = ctypes.CDLL(str(library))

        def rate(name: str) -> float:
            loop = loops[name]
            loop.argtypes, loop.restype = [ctypes.c_double], ctypes.c_double
            return sum(pool.map(loop, [0.3] * (threads or 1)))

        with ThreadPoolExecutor(threads) as pool:
            return {
                name: max(map(rate, forms))
                for name, forms in of.items()
                if all(hasattr(loops, form) for form in forms)
            }


def peak_memory(build: Callable[..., tuple[Call, int]], *args: object) -> float | None:
    """Return the bytes that a first call takes above its operands and results.

    It runs in a process of its own, where `build(*args)` returns the call and the bytes of its
    results. None if the system does not tell.
    """
    if growth(lambda: None) is None:
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (build, *args))


def _peak_memory(build, *args) -> float:
    call, results = build(*args)
    return max(0, (growth(call) or 0) - results)
