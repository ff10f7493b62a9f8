"""The benchmark of the data pipeline as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnlab.vision.datasets import cifar

PIPELINE = Path(__file__).parents[3] / "experiments" / "benchmarks" / "pipeline.py"


def run(*args):
    command = [sys.executable, str(PIPELINE), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def write_cifar10(folder):
    """Six files of the right size, all zeros but for one image, that take no room on the disk."""
    record = np.random.default_rng(0).integers(0, 10, 1 + cifar.PIXELS, np.uint8)
    for name in cifar.BINARY:
        with open(folder / name, "wb") as file:
            file.write(record.tobytes())
            file.truncate(cifar.IMAGES_PER_FILE * (1 + cifar.PIXELS))


@pytest.mark.slow
def test_every_way_is_measured_and_saved(tmp_path):
    write_cifar10(tmp_path)
    small = ("--batch-size", 8, "--workers", 0, 1, "--steps", 3, "--training-steps", 2)
    out = tmp_path / "run"
    process = run(*small, "--rounds", 2, "--data-dir", tmp_path, "--out", out)
    assert process.returncode == 0, process.stderr
    result = json.loads((out / "result.json").read_text())
    rates = {(row["what"], row["way"]): row["images_per_second"] for row in result["rows"]}
    ways = ("in memory", "streamed, 0 workers", "streamed, 1 workers")
    assert rates.keys() == {(what, way) for what in ("data alone", "training") for way in ways}
    assert min(rates.values()) > 0
    assert all(row["rounds"] == 2 for row in result["rows"])
    assert all(f" {rate:,.0f} |" in process.stdout for rate in rates.values())


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--batch-size", "0"], ["--batch-size", "0"]),
        (["--rounds", "-1"], ["--rounds", "-1"]),
        (["--workers", "0", "-2"], ["--workers", "-2"]),
    ],
)
def test_bad_input_is_named_in_one_sentence(args, names):
    process = run(*args)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert all(name in process.stderr for name in names)


@pytest.mark.slow
def test_a_batch_of_more_images_than_there_are(tmp_path):
    write_cifar10(tmp_path)
    process = run("--data-dir", tmp_path, "--batch-size", 50_001, "--out", tmp_path / "run")
    assert process.returncode == 2
    assert process.stderr == "--batch-size must be at most the 50000 examples, not 50001.\n"
    assert not (tmp_path / "run").exists()
