"""Sweeps: one run for each combination, none twice, and signals that reach the run."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nnlab.commands import compare, sweep
from nnlab.commands.sweep import combinations, command
from nnlab.errors import InputError
from nnlab.runs.reading import read_run
from nnlab.runs.script import configuration_of

SCRIPT = '''"""Does it sweep?"""
from __future__ import annotations
import dataclasses
from typing import Annotated
from nnlab.errors import InputError
from nnlab.runs import Run
from nnlab.runs.fields import Positive, PositiveInt, Seed, Some
from nnlab.runs.script import run
import helper_of_the_script

@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/script"
    learning_rate: Positive = 0.1
    epochs: PositiveInt = 3
    seed: Seed = 0
    networks: Some[str] = ("CNN",)
    limit: float | None = None
    stream: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.learning_rate > 9:
            raise InputError("--learning-rate must be at most 9.")

def main(config):
    with config.open("epochs") as record:
        if config.learning_rate == 5:
            raise ZeroDivisionError
        for name in config.networks:
            with record.folder.metrics(name, after=0) as line:
                for epoch in range(1, config.epochs + 1):
                    accuracy = config.learning_rate + config.seed / 10 - 0.01 * (epoch != 2)
                    line(step=7 * epoch, test_accuracy=accuracy, test_loss=1 / epoch)

if __name__ == "__main__":
    run(main, Config)
'''


@pytest.fixture
def script(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(SCRIPT)
    (tmp_path / "helper_of_the_script.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own.py"


@pytest.fixture
def calls(monkeypatch):
    """The commands that a sweep gives, which this process runs itself."""
    given = []

    def call(command, came, environment):
        given.append(command[2:])
        monkeypatch.setattr(sys, "argv", list(command[1:]))
        monkeypatch.syspath_prepend(os.path.dirname(os.path.abspath(command[1])))
        try:
            runpy.run_path(command[1], run_name="__main__")
        except SystemExit as end:
            return end.code
        except ZeroDivisionError:
            return 1
        return 0

    monkeypatch.setattr(sweep, "call", call)
    return given


def of(script, *words) -> list[Any]:
    with configuration_of(script) as config_type:
        return combinations(config_type, sweep.split(words)[1], script.parent / "s")


def test_the_type_of_a_field_decides_what_a_dimension_is(script):
    found = of(script, "--seed", "0", "1", "--networks", "CNN", "BNN", "--limit", "-0.5", "-1")
    values = [(each.values, each.config.networks) for each in found]
    both = ("CNN", "BNN")
    assert values == [
        ({"seed": seed, "limit": limit}, both) for seed in (0, 1) for limit in (-0.5, -1.0)
    ]
    found = of(script, "--networks", "CNN", "BNN", "--networks=BNN", "--stream", "--no-stream")
    assert [each.name for each in found] == [
        f"networks={n},stream={s}" for n in ("CNN+BNN", "BNN") for s in (True, False)
    ]
    assert [each.config.stream for each in found] == [True, False, True, False]
    odd = of(script, "--networks", "a/b", "--networks", "a b", "--networks", "x" * 300)
    assert len({each.name for each in odd}) == 3  # though all need another name
    assert all(len(each.name) < 128 and "/" not in each.name for each in odd)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seed 1", "No flag has several values"),
        ("--seed 0 1 --nope 3", "--nope is not a flag of the script; expected some of --learning"),
        ("--learning-rate 0.1 0.10", "learning_rate=0.1 are given twice"),
        ("--seed 0 1 --epochs 0", "--epochs must be an integer from 1"),
        ("--learning-rate 1 10", "--learning-rate must be at most 9"),
    ],
)
def test_bad_flags_are_found_before_any_work(words, said, script, calls, capsys):
    with pytest.raises(SystemExit) as end:
        command([str(script), *words.split()])
    assert end.value.code == 2 and said in capsys.readouterr().err
    assert not calls and not (script.parent / "runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        ("def f(:", "cannot be loaded: SyntaxError"),
        ("x = 1", "does not call nnlab.runs.script.run"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_script(text, said, tmp_path):
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    before = sys.modules["__main__"], list(sys.path)
    with pytest.raises(InputError, match=said), configuration_of(tmp_path / "own.py"):
        pass
    assert before == (sys.modules["__main__"], sys.path)


def test_a_sweep_goes_on_after_a_failure_and_resumes_what_is_not_finished(script, calls, capsys):
    with pytest.raises(SystemExit) as end:
        command([str(script), "--learning-rate", "0.1", "5", "0.2", "--out", "s"])
    assert end.value.code == 1 and len(calls) == 3
    assert capsys.readouterr().err == "learning_rate=5.0 failed (1).\n"
    kept = json.loads((script.parent / "s" / "sweep.json").read_text())
    columns = ("learning_rate", "best epoch", "test accuracy / %, best epoch", "status")
    assert [tuple(row[name] for name in columns) for row in kept["table"]] == [
        ("0.1", "2", "10.00", "finished"),
        ("5.0", "-", "-", "failed (1)"),
        ("0.2", "2", "20.00", "finished"),
    ]

    calls.clear()
    more = [str(script), "--learning-rate", "0.1", "0.3", "--out", "s"]  # without 5, and with 0.3
    with pytest.raises(SystemExit):
        command(more)
    assert capsys.readouterr().err.endswith("--overwrite.\n") and not calls
    command([*more, "--resume"])
    assert [args[1] for args in calls] == ["0.3"]
    assert capsys.readouterr().out.count("finished before") == 1

    calls.clear()
    command([*more, "--resume", "--epochs", "4"])  # those of 3 have not finished 4
    assert len(calls) == 2 and "epochs was 3 and is 4" in capsys.readouterr().err
    assert len(read_run("s/learning_rate=0.1").curves["CNN"]["test_loss"]) == 4


def test_a_comparison_of_a_sweep(script, calls, capsys):
    command([str(script), "--learning-rate", "0.1", "0.2", "--seed", "0", "2", "--out", "s"])
    capsys.readouterr()
    compare.main(compare.Config(("s", "s/learning_rate=0.1,seed=0"), figure="c.png"))
    said = capsys.readouterr()
    assert said.err == ""  # the run that is given twice counts once
    assert "2 2.0 ± 0.0 20.00 ± 14.14 19.00 ± 14.14" in said.out
    assert "2 2.0 ± 0.0 30.00 ± 14.14 29.00 ± 14.14" in said.out
    assert said.out.count("±") == 6  # the score alone
    assert (script.parent / "c.png").read_bytes()[:4] == b"\x89PNG"
    compare.main(compare.Config(("s",), over=("learning_rate",)))
    assert capsys.readouterr().out.count("± 7.07") == 4  # 10 points apart
    with pytest.raises(InputError, match="holds no config"):
        compare.main(compare.Config(("nothing",)))
    (script.parent / "s" / "learning_rate=0.1,seed=0" / "result.json").unlink()
    compare.main(compare.Config(("s",)))
    assert "seed=0 has no result and is left out" in capsys.readouterr().err


def test_a_comparison_of_runs_that_a_validation_set_has_chosen(script, calls, capsys):
    command([str(script), "--learning-rate", "0.1", "--seed", "0", "2", "--out", "s"])
    for run, accuracy in zip(sorted(Path("s").glob("*/metrics.jsonl")), (0.5, 0.7), strict=True):
        run.write_text(run.read_text().replace("test_", "validation_"))
        found = json.loads((run.parent / "result.json").read_text())
        test = {"accuracy": accuracy, "macro_f1": 0.25, "calibration_error": 0.125}
        found["measures"] = {"CNN": {"chosen_on": "validation", "test": test}}
        (run.parent / "result.json").write_text(json.dumps(found))
    capsys.readouterr()
    compare.main(compare.Config(("s",)))
    said = capsys.readouterr().out
    assert "60.00 ± 14.14" in said and said.count("±") == 3
    compare.main(compare.Config(("s",), all=True))
    said = capsys.readouterr().out
    assert "60.00 ± 14.14 25.00 ± 0.00" in said and "12.50 ± 0.00" in said


WAIT = """
import signal, sys, time
def save(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one would end it without a save
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_signal_is_handed_to_the_run_once(capfd):
    start = time.monotonic()

    def came():
        return signal.SIGTERM if "ready" in seen() else None

    output = []

    def seen():
        output.append(capfd.readouterr().out)
        return "".join(output)

    status = sweep.call([sys.executable, "-S", "-c", WAIT], came, dict(os.environ))
    assert status == 7 and seen() == "ready\nsaved\n" and time.monotonic() - start < 30


@pytest.mark.slow
def test_a_killed_sweep_resumes(script):
    text = script.read_text().replace("line(step", "__import__('time').sleep(0.2); line(step")
    script.write_text(text)
    args = [sys.executable, "-m", "nnlab", "sweep", str(script), "--seed", "0", "1"]
    args += ["--epochs", "300", "--out", "s"]
    lines = script.parent / "s" / "seed=0" / "metrics.jsonl"
    with subprocess.Popen(args, stderr=subprocess.PIPE, text=True) as process:
        while not lines.exists() or len(lines.read_text().splitlines()) < 3:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped by SIGTERM in run 1 of 2; with --resume" in said
    script.write_text(SCRIPT)
    done = subprocess.run([*args, "--resume"], capture_output=True, text=True, check=True)
    assert done.stdout.count("finished") == 2
