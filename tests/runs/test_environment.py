"""The machine and the versions that a result names."""

import re
import sys
from types import SimpleNamespace

import jax
import numpy as np

from nnlab.commands import demo
from nnlab.runs import environment


def devices(monkeypatch, *found):
    monkeypatch.setattr(
        jax, "devices", lambda: [SimpleNamespace(platform=p, device_kind=kind) for p, kind in found]
    )


def test_a_cpu_is_its_model_and_the_cores_of_this_process(monkeypatch):
    devices(monkeypatch, ("cpu", "cpu"))
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    assert re.fullmatch(r"\S.*\S, 3 cores", environment.hardware())
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: {5}, raising=False)
    assert environment.hardware().endswith(", 1 core")


def test_accelerators_are_counted_and_named(monkeypatch):
    devices(monkeypatch, ("gpu", "NVIDIA H200"))
    assert environment.hardware() == "NVIDIA H200"
    devices(monkeypatch, *[("tpu", "TPU v5 lite")] * 4)
    assert environment.hardware() == "4 x TPU v5 lite"


def test_versions_are_those_that_run():
    versions = environment.versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (versions["jax"], versions["numpy"]) == (jax.__version__, np.__version__)
    assert {"jaxlib", "flax", "optax"} < versions.keys()


def test_provenance_names_command_machine_and_versions(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiments/one.py", "--seed", "3"])
    provenance = environment.provenance()
    assert provenance["command"] == "python experiments/one.py --seed 3"
    assert provenance["hardware"] == environment.hardware()
    assert provenance["versions"] == environment.versions()


def test_a_command_of_nnlab_goes_by_its_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", [demo.__file__, "--seed", "3"])
    assert environment.provenance()["command"] == "nnlab demo --seed 3"
