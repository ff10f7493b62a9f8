"""Where a result comes from: its command line, machine and versions, for `result.json`."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax


def provenance() -> dict[str, Any]:
    """Return the command line, the hardware and the versions that a result comes from, by name."""
    script, *args = sys.argv
    command = " ".join([program() or f"python {script}", *args])
    return {"command": command, "hardware": hardware(), "versions": versions()}


def program() -> str | None:
    """Return the command of nnlab that is running, such as `nnlab demo`; None in other scripts."""
    file = Path(sys.argv[0])
    return f"nnlab {file.stem}" if file.parent == Path(__file__).parents[1] / "commands" else None


def hardware() -> str:
    """Name the processors that JAX computes on, for example `4 x NVIDIA H200`.

    For a CPU this is its model and the number of cores that this process may use, for example
    `AMD EPYC 7B13, 2 cores`. Nothing in it identifies the machine or its user.
    """
    devices = jax.devices()
    if devices[0].platform != "cpu":
        count = f"{len(devices)} x " if len(devices) > 1 else ""
        return count + devices[0].device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers, by name."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in packages
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
