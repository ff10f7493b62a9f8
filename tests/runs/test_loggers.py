"""Loggers: what lies in their files, and what Weights & Biases is told."""

import csv
import dataclasses
import math
import sys
import types

import pytest

from nnlab.errors import InputError, MissingPackageError
from nnlab.runs import RunFolder, csv_log, wandb_log
from nnlab.runs.loggers import recording


@dataclasses.dataclass
class Config:
    learning_rate: float


class Now:
    """What of a training under way a logger's context looks at."""

    name, last_epoch_end = "CNN", 0

    def __init__(self):
        self.kept = []

    def keep_after(self, error):
        self.kept.append(error)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", Config(0.1))


def table(folder):
    with (folder.path / "csv" / "CNN.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_a_step_and_goes_on(folder):
    with csv_log(folder, "CNN", 0) as record:
        record(step=4, loss=1.5)
        record(step=8, loss=math.nan, accuracy=0.5)  # a figure that came later
        assert table(folder) == [
            {"step": "4", "loss": "1.5", "accuracy": ""},
            {"step": "8", "loss": "nan", "accuracy": "0.5"},
        ]
    path = folder.path / "csv" / "CNN.csv"
    path.write_text(path.read_text() + "12,0.2")  # cut off by a kill
    with csv_log(folder, "CNN", 4) as record:
        record(step=8, loss=0.1, accuracy=0.75)
    assert [(row["step"], row["loss"]) for row in table(folder)] == [("4", "1.5"), ("8", "0.1")]
    path.write_text("time,loss\n1,2\n")
    with pytest.raises(InputError, match=r"CNN.csv is no log of figures, expected a column step"):
        csv_log(folder, "CNN", 4).__enter__()
    RunFolder.create(folder.path, Config(0.2), overwrite=True)
    assert not path.exists()


def test_all_get_what_the_folder_gets_and_an_error_saves(folder):
    def failing(folder, network, after):
        return csv_log(folder, f"{network} {after}", after)

    now = Now()
    with recording(folder, now, [csv_log, failing]) as record:  # pyright: ignore[reportArgumentType]
        record(step=4, loss=0.5)
        (folder.path / "csv" / "CNN 0.csv").unlink()
        (folder.path / "csv" / "CNN 0.csv").mkdir()
        with pytest.raises(InputError, match=r"CNN 0.csv cannot be written"):
            record(step=8, loss=0.25)
    assert len(now.kept) == 1
    assert [row["step"] for row in table(folder)] == ["4", "8"]
    assert (folder.path / "metrics.jsonl").read_text().count("\n") == 2


class Run:
    def __init__(self, settings):
        self.settings, self.logged, self.status = settings, [], None

    def log(self, figures, step):
        self.logged.append((step, figures))

    def finish(self, exit_code):
        self.status = exit_code


@pytest.fixture
def told(monkeypatch):
    """The runs that a stand-in for the package has begun."""
    runs: list[Run] = []

    def begin(**settings):
        runs.append(Run(settings))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=begin))
    return runs


def test_wandb_is_told_of_each_network_and_of_the_same_run_when_resumed(folder, told):
    logger = wandb_log("adders", tags=["small"])
    with logger(folder, "CNN", 0) as record:
        record(step=4, loss=0.5)
    with pytest.raises(ZeroDivisionError), logger(folder, "CNN", 4) as record:
        record(step=8, loss=0.25)
        raise ZeroDivisionError
    first, second = told
    assert first.logged == [(4, {"loss": 0.5})] and second.logged == [(8, {"loss": 0.25})]
    assert (first.status, second.status) == (0, 1)
    assert first.settings == second.settings
    assert first.settings["config"] == {"learning_rate": 0.1}
    assert first.settings["tags"] == ["small"] and first.settings["name"] == "run/CNN"
    RunFolder.create(folder.path, Config(0.1), overwrite=True)
    with logger(folder, "CNN", 0):
        pass
    assert told[-1].settings["id"] != first.settings["id"]


def test_without_wandb_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackageError, match=r"wandb is not installed: .*\[wandb\]"):
        wandb_log("adders")


@pytest.mark.slow
def test_wandb_itself_writes_offline(folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for after in (0, 4):
        with wandb_log("adders", settings=wandb.Settings(silent=True))(folder, "CNN", after) as log:
            log(step=after + 4, loss=0.5)
    assert len(list((folder.path / "wandb").glob("offline-run-*/run-*.wandb"))) == 2
