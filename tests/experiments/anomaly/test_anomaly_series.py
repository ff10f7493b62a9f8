"""Training on a table and on a log, from the file to a network that `nnlab watch` takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnlab.models import load_model
from nnlab.series import LogDetector, SeriesDetector

EXPERIMENTS = Path(__file__).parents[3] / "experiments" / "anomaly"


def script(name, *args):
    command = [sys.executable, *([EXPERIMENTS / f"{name}.py"] if name else []), *map(str, args)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def trained(name, *args):
    process = script(name, *args)
    assert process.returncode == 0, process.stderr
    folder = Path(args[args.index("--out") + 1])
    assert (folder / "curves.png").is_file()
    (row,) = json.loads((folder / "result.json").read_text())["table"]
    return row, load_model(folder / "network.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_from_file_to_watch(tmp_path, ending):
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
    row, saved = trained("anomaly_series", "--file", file, "--out", out, *small)
    assert row["malformed"] == 1 and row["rows to fit"] == 1296 and row["held out"] == 324
    assert row["alarms held out"] <= 1 <= row["alarms"]
    detector = SeriesDetector(saved)
    assert detector.threshold == row["threshold"] and detector.columns == 2
    process = script("", "-m", "nnlab", "watch", out, file, "--once", "--from-start", "--json")
    assert process.returncode == 0, process.stderr
    shown = [json.loads(line) for line in process.stdout.splitlines()]
    late = [each for each in shown if each["anomaly"] and each["line"] > len(lines) - 20]
    assert late and late[0]["why"] == "a"


@pytest.mark.slow
def test_a_log_from_file_to_watch(tmp_path):
    pytest.importorskip("drain3")
    file, out = tmp_path / "service.log", tmp_path / "run"
    words = ("opened the file", "read 5 bytes", "closed the file")
    file.write_text("".join(f"12:00 {words[i % 3]}\n" for i in range(600)))
    small = ["--log-format", "<Time> <Content>", "--masks", r"\d+", "--units", 8, "--epochs", 6]
    small += ["--window", 3, "--batch-size", 16, "--learning-rate", 0.02]
    row, saved = trained("anomaly_logs", "--file", file, "--out", out, *small)
    assert row["templates"] == 3 and row["alarms"] <= 1  # the first, which nothing stands before
    assert row["surprise held out / nats"] < 0.1 < row["without the events before / nats"]
    assert LogDetector(saved).threshold == row["threshold / nats"]
    with file.open("a") as log:
        log.write("12:00 opened the file\n12:00 closed the file\n12:00 on fire\n")
    process = script(
        "", "-m", "nnlab", "watch", out, file, "--once", "--from-start", "--context", 0
    )
    marked = [line.split("|")[0] for line in process.stdout.splitlines()]
    assert "602" in marked[-2] and "603" in marked[-1]


@pytest.mark.parametrize(
    ("name", "content", "args", "said"),
    [
        ("anomaly_series", "", ["--time", "None"], "is empty"),
        ("anomaly_series", "value\n", ["--time", "None"], "holds no rows"),
        ("anomaly_series", "value\n1\n2\n", ["--time", "None"], "2 rows give"),
        ("anomaly_series", "a\n1\n", [], "expected 'value', 'timestamp'"),
        ("anomaly_logs", "", [], "holds no rows"),
        ("anomaly_logs", "x\n" * 9, [], "9 malformed lines"),
    ],
)
def test_one_sentence(tmp_path, monkeypatch, capsys, name, content, args, said):
    import importlib

    from nnlab.runs.script import run

    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    module = importlib.import_module(name)
    file = tmp_path / "data"
    file.write_text(content)
    with pytest.raises(SystemExit) as end:
        run(
            module.main,
            module.Config,
            ["--file", str(file), "--out", str(tmp_path / "run"), *args],
        )
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and said in told, told
