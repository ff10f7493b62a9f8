"""A run's folder, and the results that it records there from the first row on."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest

from nnlab.errors import InputError
from nnlab.runs import COSINE, Run, provenance
from nnlab.runs.fields import DataDir, Seed


@dataclasses.dataclass(frozen=True)
class Config(Run):
    seed: Seed = 0
    workers: int = 0
    data_dir: DataDir = None


def result(config):
    with open(f"{config.out}/result.json") as file:
        return json.load(file)


def test_rows_are_kept_as_they_come_also_when_the_run_fails(tmp_path):
    config = Config(str(tmp_path / "run"), seed=3)
    with pytest.raises(ZeroDivisionError), config.open() as record:
        record.row({"network": "CNN", "loss": 0.5})
        record.row({"network": "CNN"}, "rows")
        assert len(result(config)["table"]) == 1
        record.row({"network": "BNN", "loss": 0.25})
        record.result({"minutes": record.minutes})
        _ = 1 / 0
    assert list(result(config)) == [*provenance(), "config", "table", "rows", "minutes"]
    assert (
        result(config)["table"]
        == record.rows()
        == [
            {"network": "CNN", "loss": 0.5},
            {"network": "BNN", "loss": 0.25},
        ]
    )
    assert result(config)["config"] == dataclasses.asdict(config)
    assert result(config)["minutes"] == 0.0


def test_what_the_tests_say_is_in_the_result_when_it_is_finished(tmp_path):
    config = Config(str(tmp_path / "run"))
    measures = {"BNN": {"epoch": 1, "test": {"loss": math.inf}}, "AdderNet": {"epoch": 2}}
    with config.open() as record:
        for name, each in measures.items():
            record.folder.add_measures(name, each)
        record.folder.add_measures("BNN", {"epoch": 3, "test": {"loss": math.inf}})
        record.row({"network": "BNN"})
        assert "measures" not in result(config)
    assert list(result(config)["measures"].items()) == [
        ("BNN", {"epoch": 3, "test": {"loss": "inf"}}),
        ("AdderNet", {"epoch": 2}),
    ]
    with dataclasses.replace(config, overwrite=True).open():
        pass
    assert "measures" not in result(config)


def test_a_figure_is_saved_under_its_name(tmp_path):
    class Figure:
        def savefig(self, path, dpi):
            path.write_text(f"{dpi}")

    with Config(str(tmp_path / "run")).open() as record:
        record.figure(Figure())  # pyright: ignore[reportArgumentType]
        record.figure(Figure(), "weights.png", dpi=100)  # pyright: ignore[reportArgumentType]
    texts = [(tmp_path / "run" / name).read_text() for name in ("curves.png", "weights.png")]
    assert texts == ["120", "100"]


def test_a_resumed_run_may_differ_where_it_says(tmp_path):
    config = Config(str(tmp_path / "run"))
    with config.open():
        pass
    with pytest.raises(InputError, match="already holds a run"), config.open():
        pass
    again = dataclasses.replace(config, resume=True, data_dir="elsewhere", workers=2)
    with again.open("workers") as record:
        assert record.folder.resume
    back = dataclasses.replace(again, workers=0)
    with pytest.raises(InputError, match="workers was 2 and is 0"), back.open():
        pass


def test_a_longer_run_may_resume_a_shorter_one_where_it_says(tmp_path, capsys):
    @dataclasses.dataclass(frozen=True)
    class Longer(Run):
        epochs: int = 3

    config = Longer(str(tmp_path / "run"), resume=True)
    with config.open():
        pass
    assert result(config)["finished"]
    longer = dataclasses.replace(config, epochs=5)
    with pytest.raises(InputError, match=r"epochs was 3 and is 5 \(.* may be sched"), longer.open():
        pass
    refused = longer.open(reasons=COSINE)
    with pytest.raises(InputError, match=r"is 5 \(the learning rate falls .* cosine"), refused:
        pass
    assert not capsys.readouterr().err
    with longer.open("epochs"):
        pass
    assert capsys.readouterr().err == f"{tmp_path / 'run'} goes on: epochs was 3 and is 5.\n"
    with pytest.raises(InputError, match=r"5 and is 3 .*only become longer"), config.open("epochs"):
        pass
    with longer.open():  # which is what the folder now says
        pass


def test_the_folder_belongs_to_one_process_until_the_block_ends(tmp_path):
    config = Config(str(tmp_path / "run"), resume=True)
    code = (
        "import fcntl, sys\n"
        f"file = open({str(tmp_path / 'run' / '.lock')!r}, 'a')\n"
        "try:\n    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError:\n    sys.exit(7)\n"
    )
    command = [sys.executable, "-S", "-c", code]
    with config.open():
        assert subprocess.run(command, check=False).returncode == 7
    assert subprocess.run(command, check=False).returncode == 0
