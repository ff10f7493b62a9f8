"""How fast are the kernels, against their peers and against what this machine can do?

Single layers and whole networks: ours, JAX's own convolution, a plain broadcasting adder, and in
PyTorch the convolution, its int8 kind, torch.cdist and the published adder layer. All are measured
in one process and in turn, so that ratios hold where times drift; times are medians. The limits are
what small C++ loops sum from registers on all cores, measured in the same run. Peak memory is that
of a first call in a process of its own, above operands and results.

Run it on an idle machine with a C++ compiler, about ten minutes on two cores:

    pip install -e '.[benchmark]'
    python experiments/benchmarks/speed.py
"""

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or PyTorch's threads spin beside the next

import layers
import measure
import networks
import numpy as np
import tables

from nnlab import kernels
from nnlab.errors import InputError
from nnlab.runs import RunFolder, provenance
from nnlab.runs.script import check_positive, check_positive_integer, run

Row = dict[str, Any]

MEMORY_BODIES = ("nnlab adder", "nnlab adder, XLA body", "nnlab conv", "JAX conv", "PyTorch conv2d")


@dataclasses.dataclass(frozen=True)
class Config:
    layers: tuple[str, ...] = tuple(layers.LAYERS)
    networks: tuple[str, ...] = tuple(networks.NETWORKS)
    batch: int = 64
    """Of the single layers."""
    repeats: int = 25
    """Of every measurement."""
    patience: float = 10.0
    """Seconds after which a slow peer is not measured again."""
    out: str = "runs/speed"
    overwrite: bool = False

    def __post_init__(self):
        check_positive_integer("batch", self.batch)
        check_positive_integer("repeats", self.repeats)
        check_positive("patience", self.patience)
        for field, known in (("layers", layers.LAYERS), ("networks", networks.NETWORKS)):
            for name in getattr(self, field):
                if name not in known:
                    raise InputError(f"--{field} takes {', '.join(known)}; not {name}.")


def measured(
    config: Config, calls: Mapping[str, Callable], work: Mapping[str, float], steps: int = 1
) -> list[Row]:
    """A row for each body, per step of a call.

    `work` gives the seconds that the terms of a step take at the machine's limit.
    """
    rows = []
    for body, times in measure.in_turn(calls, config.repeats, config.patience).items():
        seconds = times / steps
        low, median, high = np.percentile(seconds, (25, 50, 75))
        row: Row = {"body": body, "median": median, "quartiles": (low, high), "runs": len(seconds)}
        row |= {"best": seconds.min(), "of_limit": work[body] / median if work.get(body) else None}
        rows.append(row)
    return rows


def layer_rows(config: Config, limits: Mapping[str, float], name: str, peers: bool) -> list[Row]:
    terms = layers.LAYERS[name].terms(config.batch)
    rows = []
    for which in (layers.FORWARD, layers.GRADIENT, layers.BOTH):
        bodies = layers.bodies(which, peers)
        calls = {body: layers.call(name, body, which, config.batch)[0] for body in bodies}
        work = {
            body: sum(terms / limits[part] for part in parts)
            for body, parts in bodies.items()
            if limits.keys() >= set(parts)
        }
        for row in measured(config, calls, work):
            passes = 3 if which == layers.BOTH else 1
            row |= {"what": name, "pass": which, "terms_per_second": passes * terms / row["median"]}
            if which == layers.BOTH and row["body"] in MEMORY_BODIES:
                arguments = (name, row["body"], which, config.batch)
                row["peak_bytes"] = measure.peak_memory(layers.call, *arguments)
            rows.append(row)
    return rows


def network_rows(config: Config, limits: Mapping[str, float], name: str, peers: bool) -> list[Row]:
    distances, products = networks.terms(name)
    rows = []
    for which in (networks.INFERENCE, networks.STEP, networks.EPOCH):
        calls = {body: networks.call(name, body, which) for body in networks.bodies(which, peers)}
        passes, steps = 1 if which == networks.INFERENCE else 3, networks.steps(name, which)
        product = passes / limits["product"]
        distance = sum(1 / limits[part] for part in layers.ADDER_WORK[layers.BOTH][:passes])
        work = {
            body: products * product + distances * (distance if "Adder" in body else product)
            for body in calls
        }
        terms = passes * (distances + products)
        for row in measured(config, calls, work, steps):
            row |= {"what": name, "pass": which, "terms_per_second": terms / row["median"]}
            rows.append(row)
    return rows


def main(config: Config) -> None:
    peers = importlib.util.find_spec("torch") is not None
    if not peers:
        print("PyTorch is not here, so its rows are left out: pip install -e '.[benchmark]'")
    folder = RunFolder.create(config.out, config, config.overwrite)
    limits = measure.limits()
    result = provenance() | {"config": dataclasses.asdict(config), "kernels": kernels.status()}
    result |= {"limits": limits, "rows": []}
    for measured_of, names in ((layer_rows, config.layers), (network_rows, config.networks)):
        for name in names:
            print(f"measuring {name}", flush=True)
            result["rows"] += measured_of(config, limits, name, peers)
            folder.write_result(result)
    tables.show(result)


if __name__ == "__main__":
    run(main, Config)
