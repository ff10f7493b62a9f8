"""Training on a table and on a log, from the file to a network that `nnlab watch` takes."""

import importlib
import json

import numpy as np
import pytest

from nnlab.commands import watch
from nnlab.models import load_model
from nnlab.runs.script import run
from nnlab.series import LogDetector, SeriesDetector


def call(name, *args):
    script = importlib.import_module(name)  # of experiments/anomaly
    run(script.main, script.Config, list(map(str, args)))


def shown(capsys, *args):
    capsys.readouterr()
    run(watch.main, watch.Config, [*map(str, args), "--once", "--from-start", "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_from_file_to_watch(tmp_path, capsys, ending):
    """Two sines with noise; the last rows are something else, and the watch shows them."""
    rng = np.random.default_rng(0)
    rows = np.arange(1800)
    a = np.sin(rows / 5) + 0.05 * rng.normal(size=len(rows))
    b = 9 + np.cos(rows / 7) + 0.05 * rng.normal(size=len(rows))
    a[-20:] = rng.normal(size=20) * 3
    names, cells = ("a", "b"), np.stack([a, b], axis=1).round(4).tolist()
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in cells]
    if ending == "csv":
        lines = ["a,b", *(f"{x},{y}" for x, y in cells)]
    lines.insert(500, "broken,")
    file, out = tmp_path / f"data.{ending}", tmp_path / "run"
    file.write_text("\n".join(lines) + "\n")
    small = ["--columns", "a", "b", "--time", "None", "--units", 8, "--epochs", 15]
    small += ["--streams", 4, "--block", 32, "--train", 0.9, "--short", 4]
    call("anomaly_series", "--file", file, "--out", out, *small)
    (row,) = json.loads((out / "result.json").read_text())["table"]
    assert row["malformed"] == 1 and row["rows to fit"] == 1296 and row["held out"] == 324
    assert row["alarms held out"] <= 1 <= row["alarms"]
    detector = SeriesDetector(load_model(out / "network.safetensors"))
    assert detector.threshold == row["threshold"] and detector.columns == 2
    found = [each for each in shown(capsys, out, file) if each["anomaly"]]
    late = [each for each in found if each["line"] > len(lines) - 20]
    assert late and late[0]["why"] == "a"


@pytest.mark.slow
def test_a_log_from_file_to_watch(tmp_path, capsys):
    pytest.importorskip("drain3")
    file, out = tmp_path / "service.log", tmp_path / "run"
    words = ("opened the file", "read 5 bytes", "closed the file")
    file.write_text("".join(f"12:00 {words[i % 3]}\n" for i in range(600)))
    small = ["--log-format", "<Time> <Content>", "--masks", r"\d+", "--units", 8, "--epochs", 6]
    small += ["--window", 3, "--batch-size", 16, "--learning-rate", 0.02]
    call("anomaly_logs", "--file", file, "--out", out, *small)
    (row,) = json.loads((out / "result.json").read_text())["table"]
    assert row["templates"] == 3 and row["alarms"] <= 1  # the first, which nothing comes before
    assert row["surprise held out / nats"] < 0.1 < row["without the events before / nats"]
    saved = load_model(out / "network.safetensors")
    assert LogDetector(saved).threshold == row["threshold / nats"]
    with file.open("a") as log:
        log.write("12:00 opened the file\n12:00 closed the file\n12:00 on fire\n")
    lines = [each["line"] for each in shown(capsys, out, file, "--context", 0)]
    assert lines[-2:] == [602, 603]


@pytest.mark.parametrize(
    ("name", "content", "args", "said"),
    [
        ("anomaly_series", "value\n1\n2\n", ["--time", "None"], "2 rows give"),
        ("anomaly_series", "a\n1\n", [], "expected 'value', 'timestamp'"),
        ("anomaly_logs", "x\n" * 9, [], "9 malformed lines"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, capsys, name, content, args, said):
    (tmp_path / "data").write_text(content)
    with pytest.raises(SystemExit) as end:
        call(name, "--file", tmp_path / "data", "--out", tmp_path / "run", *args)
    assert end.value.code == 2 and not (tmp_path / "run").exists()
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and said in printed, printed
