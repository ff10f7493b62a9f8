"""How fast are the kernels, against their peers and against what this machine can do?

Answer: Forward and backward, adder layers of ResNet-20 take about 0.7 of the time of JAX's
convolution and 0.9 to 1.5 of PyTorch's; the published adder layer takes 230 to 249 times as long.
They reach 75 to 80 % of the machine's limit.

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
from typing import Annotated, Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or PyTorch's threads spin beside the next

import layers
import measure
import networks
import numpy as np
import tables

from nnlab import kernels
from nnlab.costs.measuring import in_turn
from nnlab.runs import Run
from nnlab.runs.fields import OneOf, Positive, PositiveInt
from nnlab.runs.script import run

Row = dict[str, Any]

MEMORY_BODIES = ("nnlab adder", "nnlab adder, XLA body", "nnlab conv", "JAX conv", "PyTorch conv2d")
LayerName = Annotated[str, OneOf(layers.LAYERS)]
NetworkName = Annotated[str, OneOf(networks.NETWORKS)]


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/speed"
    layers: tuple[LayerName, ...] = tuple(layers.LAYERS)
    networks: tuple[NetworkName, ...] = tuple(networks.NETWORKS)
    batch: PositiveInt = 64
    """Images a call of the single layers."""
    repeats: PositiveInt = 25
    """Rounds of timing."""
    patience: Positive = 10.0
    """Seconds of measurements after which one is not repeated further."""


def main(config: Config) -> None:
    peers = importlib.util.find_spec("torch") is not None
    if not peers:
        print("PyTorch is not here, so its rows are left out: pip install -e '.[benchmark]'")
    with config.open() as record:
        limits = measure.limits()
        record.result({"kernels": kernels.status(), "limits": limits})
        for rows_of, names in ((layer_rows, config.layers), (network_rows, config.networks)):
            for name in names:
                print(f"measuring {name}", flush=True)
                for row in rows_of(config, limits, name, peers):
                    record.row(row, "rows")
        tables.show(record.contents)


def measured(
    config: Config, calls: Mapping[str, Callable], work: Mapping[str, float], steps: int = 1
) -> list[Row]:
    """Return a row for each body, per step of a call.

    `work` holds the seconds that the terms of a step take at the machine's limit.
    """
    rows = []
    for body, times in in_turn(calls, config.repeats, config.patience).items():
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


if __name__ == "__main__":
    run(main, Config)
