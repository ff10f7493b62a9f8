"""The benchmark of the data pipeline as a user runs it."""

import json

import numpy as np
import pytest

from nnlab.runs.script import run
from nnlab.vision.datasets import cifar

SCRIPT = "benchmarks/pipeline"


def write_cifar10(folder):
    """Write six files of the right size, all zeros but for one image."""
    record = np.random.default_rng(0).integers(0, 10, 1 + cifar.PIXELS, np.uint8)
    for name in cifar.BINARY:
        with open(folder / name, "wb") as file:
            file.write(record.tobytes())
            file.truncate(cifar.IMAGES_PER_FILE * (1 + cifar.PIXELS))


@pytest.mark.slow
def test_every_way_is_measured_and_saved(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cifar, "IMAGES_PER_FILE", 40)
    write_cifar10(tmp_path)
    small = ["--batch-size", "8", "--workers", "0", "--steps", "3", "--training-steps", "2"]
    out = tmp_path / "run"
    folders = ["--data-dir", str(tmp_path), "--out", str(out)]
    run(script.main, script.Config, [*small, "--rounds", "2", *folders])
    printed = capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    rates = {(row["what"], row["way"]): row["images_per_second"] for row in result["rows"]}
    ways = ("in memory", "streamed, 0 workers")
    assert rates.keys() == {(what, way) for what in ("data alone", "training") for way in ways}
    assert min(rates.values()) > 0
    assert all(row["rounds"] == 2 for row in result["rows"])
    assert all(f" {rate:,.0f} |" in printed for rate in rates.values())

    with pytest.raises(SystemExit) as stop:
        run(script.main, script.Config, ["--batch-size", "201", *folders[:2], "--out", "new"])
    said = "batch_size must be at most the 200 examples, not 201.\n"
    assert stop.value.code == 2 and capsys.readouterr().err == said
