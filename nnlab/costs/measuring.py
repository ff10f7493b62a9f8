"""Measure what a compiled program needs: time, and memory as planned and as observed."""

import ctypes
import gc
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

Call = Callable[[], object]

_CLEAR_REFS = Path("/proc/self/clear_refs")
_SLOW = 0.25  # seconds; such a call is not warmed up again before it is timed


def planned_bytes(program: jax.stages.Compiled) -> dict[str, int]:
    """Return the bytes of a compiled program by purpose; {} if the compiler reports none.

    Returns:
        "arguments", "results", "shared" (by both), "temporary", and "compiled", all together.
    """
    analysis = program.memory_analysis()
    if analysis is None:
        return {}
    parts = {"argument": "arguments", "output": "results", "alias": "shared", "temp": "temporary"}
    sizes = {to: getattr(analysis, f"{of}_size_in_bytes") for of, to in parts.items()}
    total = sizes["arguments"] + sizes["results"] - sizes["shared"] + sizes["temporary"]
    return sizes | {"compiled": total}


def growth(call: Call) -> int | None:
    """Return the most bytes that this process holds during `call`, above what it held before.

    They are resident bytes and include those of other threads. None if the system does not report
    them (only Linux does).
    """
    if not _CLEAR_REFS.exists():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text("5")  # the peak starts from what is held now
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def accelerator_peak() -> int | None:
    """Return the most bytes that JAX ever held on its first accelerator; None on a CPU."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


def seconds(call: Call, repeats: int, patience: float = 60.0) -> np.ndarray:
    """Return the seconds of each call after an untimed one, float64 [at most `repeats`].

    After the third call no more are made once they have taken `patience` seconds together.
    """
    call()
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < patience):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return np.array(times)


def in_turn(calls: Mapping[str, Call], repeats: int, patience: float) -> dict[str, np.ndarray]:
    """Time calls one after the other in rounds, so that their ratios hold where a machine drifts.

    A call is left out of further rounds once it was timed three times and took `patience` seconds
    in all. Before it is timed, a fast call runs once untimed, so that its data is in the caches and
    the threads of other libraries have gone to sleep.

    Returns:
        Seconds of each call by name, float64 [at most `repeats`].
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            taken = times[name]
            if len(taken) >= 3 and sum(taken) > patience:
                continue
            time.sleep(0.005)
            if not taken or taken[-1] < _SLOW:
                call()
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return {name: np.array(taken) for name, taken in times.items()}


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0
