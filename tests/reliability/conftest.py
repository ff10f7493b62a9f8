"""Processes that run `training.py`, and the run that nothing breaks."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("training.py")
PATIENCE = 300.0  # seconds, for a machine that has much else to do


def pytest_configure(config):
    # The script is a module of that name for the parser, which reads its docstring.
    spec = importlib.util.spec_from_file_location("small_run", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault("small_run", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)


def _without_changes(said: str) -> str:
    """Leave out what a resumed run says of flags of these tests, such as `stop_after`."""
    return "".join(line for line in said.splitlines(True) if " goes on: " not in line)


@dataclasses.dataclass
class Child:
    """A process of the script, its output in two files."""

    process: subprocess.Popen
    out: Path
    err: Path

    def steps(self) -> list[int]:
        """The steps at which its programs started."""
        lines = self.out.read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("step ")]

    def wait_for(self, what: Callable[["Child"], Any]) -> None:
        """Returns when it is so; the process must not end before."""
        start = time.monotonic()
        while not what(self):
            ended = self.process.poll() is not None
            late = time.monotonic() - start > PATIENCE
            assert not (ended or late), f"{self.out.read_text()}\n{self.err.read_text()}"
            time.sleep(0.002)

    def wait_for_line(self, start: str) -> None:
        self.wait_for(lambda child: f"\n{start}" in "\n" + child.out.read_text())

    def status(self) -> int:
        """Its exit status, when it has ended."""
        return self.process.wait(PATIENCE)

    def stderr(self) -> str:
        self.status()
        return _without_changes(self.err.read_text())

    def result(self) -> dict[str, Any]:
        """What it prints at a good end."""
        assert (self.status(), self.stderr()) == (0, "")
        return json.loads(self.out.read_text().splitlines()[-1])


@pytest.fixture(scope="session")
def thorough():
    """Whether to take minutes for what seconds show already: `make reliability`."""
    return os.environ.get("NNLAB_THOROUGH") == "1"


@pytest.fixture(scope="session")
def without_changes():
    return _without_changes


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """`start(*flags, under=())` starts the script, under another program if one is given."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    children = []

    def call(*flags: Any, under: tuple[str, ...] = ()) -> Child:
        command = [*under, sys.executable, str(SCRIPT), *map(str, flags)]
        out, err = (folder / f"{len(children)}.{end}" for end in ("out", "err"))
        with out.open("w") as to_out, err.open("w") as to_err:
            process = subprocess.Popen(command, stdout=to_out, stderr=to_err, env=environment)
        children.append(Child(process, out, err))
        return children[-1]

    yield call
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


@dataclasses.dataclass
class Whole:
    """A run of five epochs, 20 steps, from its start to its end in one process."""

    sha256: str
    history: dict[str, list[float]]
    metrics: list[dict[str, Any]]


@pytest.fixture(scope="session")
def whole(start, metrics, tmp_path_factory):
    """`whole(epochs=5)` is the run of that length that nothing breaks."""
    runs = {}

    def call(epochs: int = 5) -> Whole:
        if epochs not in runs:
            folder = tmp_path_factory.mktemp("whole") / "run"
            result = start("--out", folder, "--epochs", epochs).result()
            runs[epochs] = Whole(**result, metrics=metrics(folder))
            assert len(runs[epochs].metrics) == epochs
        return runs[epochs]

    return call


@pytest.fixture(scope="session")
def metrics():
    """`metrics(folder)`: the lines of a run's metrics.jsonl without the seconds."""

    def call(folder: Path) -> list[dict[str, Any]]:
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [{key: line[key] for key in line if key != "seconds"} for line in lines]

    return call


@pytest.fixture(scope="session")
def assert_as_whole(whole, metrics):
    """Asserts that a child has ended with the state, history and metrics of the whole run."""

    def call(child: Child, folder: Path, epochs: int = 5) -> None:
        result = child.result()
        assert result["sha256"] == whole(epochs).sha256
        assert result["history"] == whole(epochs).history
        assert metrics(folder) == whole(epochs).metrics

    return call


@pytest.fixture(scope="session")
def sentence():
    """`sentence(text)`: the one sentence that standard error holds."""

    def call(text: str) -> str:
        assert text.endswith(".\n") and text.count("\n") == 1, text
        assert "Traceback" not in text
        return text.strip()

    return call
