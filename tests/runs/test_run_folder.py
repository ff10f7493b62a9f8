"""Run folders: what is written reads back, and nobody's files are lost."""

import dataclasses
import importlib
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.runs.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = (0.5, math.inf)


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = 3
    out: Path = Path("runs/x")
    inner: Inner = Inner()
    note: str | None = None


def strict(text):
    """Parses JSON as the standard has it: without NaN and Infinity."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def finished(path):
    folder = RunFolder.create(path, Config())
    with folder.metrics("CNN") as record:
        record(step=1, loss=0.5)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "1").write_text("state")
    folder.write_result({"accuracy": 0.9})
    folder.report.write_text("<html>")
    return folder


def contents(path):
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    files.pop(".lock", None)
    return files


def test_the_configuration_reads_back(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b", Config())
    assert strict((folder.path / "config.json").read_text()) == {
        "epochs": 3,
        "out": "runs/x",
        "inner": {"rates": [0.5, "inf"]},
        "note": None,
    }
    assert list(contents(folder.path)) == ["config.json"]


def test_each_record_is_on_disk_at_once_as_one_valid_line(tmp_path):
    folder = RunFolder.create(tmp_path, Config())
    lines = folder.path / "metrics.jsonl"
    with folder.metrics("CNN") as cnn, folder.metrics("BNN") as bnn:
        cnn(step=1, loss=jnp.float32(0.5), correct=np.int64(7))
        assert len(lines.read_text().splitlines()) == 1
        bnn(step=jnp.int32(2), loss=math.nan, scale=-math.inf)
        cnn(step=3, loss=jnp.bfloat16(0.25))
    assert [strict(line) for line in lines.read_text().splitlines()] == [
        {"network": "CNN", "step": 1, "loss": 0.5, "correct": 7},
        {"network": "BNN", "step": 2, "loss": "nan", "scale": "-inf"},
        {"network": "CNN", "step": 3, "loss": 0.25},
    ]


def test_tensorboard_gets_the_same_figures_by_network(tmp_path):
    event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
    folder = RunFolder.create(tmp_path, Config())
    with folder.metrics("CNN") as record:
        record(step=10, loss=0.5)
        record(step=20, loss=0.25)
        record(step=30, loss=math.nan)
    (file,) = (folder.path / "tensorboard" / "CNN").iterdir()
    data, seen = file.read_bytes(), []
    while data:  # a record: length (8 bytes), its checksum (4), an event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        seen += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        data = data[16 + length :]
    assert seen == [(10, "loss", 0.5), (20, "loss", 0.25)]


def test_metrics_continue_in_a_folder_opened_again(tmp_path):
    finished(tmp_path)
    with RunFolder(tmp_path).metrics("CNN") as record:
        record(step=2, loss=0.25)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_later_and_cut_off_lines_of_a_resumed_network_are_dropped(tmp_path):
    folder = RunFolder.create(tmp_path, Config())
    lines = [
        {"network": network, "step": step, "loss": 0.5}
        for network in ("CNN", "BNN")
        for step in (10, 20, 30)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"network": "CNN", "st')
    with folder.metrics("CNN", after=20) as record:
        record(step=30, loss=0.25)
    kept = [line for line in lines if line["network"] == "BNN" or line["step"] <= 20]
    expected = [*kept, {"network": "CNN", "step": 30, "loss": 0.25}]
    assert [strict(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()] == expected


def test_a_run_is_resumed_with_all_that_it_has_written(tmp_path):
    finished(tmp_path)
    before = contents(tmp_path)
    assert RunFolder.create(tmp_path, Config(out=Path("elsewhere")), resume=True).resume
    assert contents(tmp_path) == before


@pytest.mark.parametrize("left", [[], ["config.json.partial"]])
def test_where_there_is_no_run_to_resume_one_is_started(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("{")
    RunFolder.create(tmp_path, Config(), resume=True)
    assert list(contents(tmp_path)) == ["config.json"]


def test_another_configuration_is_refused_with_the_differences(tmp_path):
    finished(tmp_path)
    before, other = contents(tmp_path), Config(epochs=4, note="new", inner=Inner((1.0,)))
    with pytest.raises(InputError) as error:
        RunFolder.create(tmp_path, other, resume=True)
    assert str(error.value) == (
        f"{tmp_path / 'config.json'} is of another configuration: epochs was 3 and is 4, "
        "inner was {'rates': [0.5, 'inf']} and is {'rates': [1.0]}, note was None and is new."
    )
    assert contents(tmp_path) == before
    RunFolder.create(tmp_path, other, resume=True, may_differ=("epochs", "note", "inner"))


def test_a_field_that_is_new_and_at_its_default_is_no_difference(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Grown(Config):
        clip: float | None = None

    finished(tmp_path)
    RunFolder.create(tmp_path, Grown(), resume=True)
    with pytest.raises(InputError, match=r"clip was None and is 1\.0\.$"):
        RunFolder.create(tmp_path, Grown(clip=1.0), resume=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_damaged_configuration_is_not_resumed(tmp_path, text):
    finished(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json is damaged, expected the configuration"):
        RunFolder.create(tmp_path, Config(), resume=True)


def test_overwriting_and_resuming_exclude_each_other(tmp_path):
    finished(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="--overwrite and --resume were both given"):
        RunFolder.create(tmp_path, Config(), overwrite=True, resume=True)
    assert contents(tmp_path) == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=25)
@given(st.dictionaries(st.text(), values))
def test_any_result_is_valid_json_and_reads_back(tmp_path_factory, result):
    def expected(value):
        if isinstance(value, dict):
            return {key: expected(item) for key, item in value.items()}
        if isinstance(value, list):
            return [expected(item) for item in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_result(result)
    assert strict((folder.path / "result.json").read_text()) == expected(result)


def test_a_result_is_replaced_whole_or_not_at_all(tmp_path):
    folder = finished(tmp_path)

    class Unwritable:
        def __str__(self):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        folder.write_result({"accuracy": 0.1, "model": Unwritable()})
    assert strict((tmp_path / "result.json").read_text()) == {"accuracy": 0.9}
    # A new file in place of the old one, which whoever reads it at that moment keeps.
    (tmp_path / "kept").hardlink_to(tmp_path / "result.json")
    folder.write_result({"accuracy": 0.8})
    assert strict((tmp_path / "result.json").read_text()) == {"accuracy": 0.8}
    assert strict((tmp_path / "kept").read_text()) == {"accuracy": 0.9}


def test_a_run_is_not_overwritten_unasked(tmp_path):
    finished(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"--overwrite\.$") as error:
        RunFolder.create(tmp_path, Config())
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert contents(tmp_path) == before


def test_overwriting_removes_what_a_run_writes_and_nothing_else(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1").write_text("another run's state")
    finished(run)
    (run / "checkpoints" / "1").unlink()
    (run / "checkpoints").rmdir()
    (run / "checkpoints").symlink_to(elsewhere)
    (run / "notes.txt").write_text("mine")
    (run / "result.json.partial").write_text("cut off")
    RunFolder.create(run, Config(epochs=4), overwrite=True)
    assert sorted(contents(run)) == ["config.json", "notes.txt"]
    assert strict((run / "config.json").read_text())["epochs"] == 4
    assert (elsewhere / "1").read_text() == "another run's state"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused_even_with_overwrite(tmp_path, overwrite):
    (tmp_path / "metrics.jsonl").write_text("not from a run")
    (tmp_path / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"holds thesis\.tex but no config\.json.*--overwrite"):
        RunFolder.create(tmp_path, Config(), overwrite=overwrite)
    assert contents(tmp_path) == before


def test_a_run_killed_while_writing_its_configuration_can_be_overwritten(tmp_path):
    (tmp_path / "config.json.partial").write_text("{")
    RunFolder.create(tmp_path, Config(), overwrite=True)
    assert list(contents(tmp_path)) == ["config.json"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("path", ["file", "file/run", "/proc/nowhere/run", "x" * 300])
def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path, path, overwrite):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="cannot be written") as error:
        RunFolder.create(tmp_path / path, Config(), overwrite=overwrite)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    assert contents(tmp_path) == {"file": b"kept"}
