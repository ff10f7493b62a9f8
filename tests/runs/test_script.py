"""From a command line to a configuration and a call, or to an exit status and one sentence."""

import contextlib
import dataclasses
import io
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import CheckpointError, DivergedError, InputError, Interrupted
from nnlab.runs import Run
from nnlab.runs.fields import Fraction, Positive, PositiveInt
from nnlab.runs.script import run


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/test"
    learning_rate: Positive = 0.1
    epochs: PositiveInt = 3  # passes over the data
    momentum: Fraction = 0.9
    network: Literal["cnn", "adder"] = "cnn"
    sizes: tuple[int, ...] = (1, 2)
    where: Path | None = None


def ended(args, main=lambda config: None):
    """Exit status, standard output and standard error of a run; status 0 where it returns."""
    status = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            run(main, Config, args=args)
        except SystemExit as end:
            status = end.code or 0
    return status, out.getvalue(), err.getvalue()


def test_main_gets_the_config_of_the_command_line():
    seen = []
    assert ended(["--learning-rate", "0.5", "--sizes", "4", "5"], seen.append) == (0, "", "")
    assert seen == [Config(learning_rate=0.5, sizes=(4, 5))]


def test_help_shows_the_module_docstring_and_the_field_comments():
    status, out, err = ended(["--help"])
    assert (status, err) == (0, "")
    assert "From a command line to a configuration" in out
    assert "passes over the data" in out and "Continue the run in that folder" in out


def test_a_refused_value_is_one_sentence():
    said = "--learning-rate must be a positive finite number, not nan.\n"
    assert ended(["--learning-rate", "nan"]) == (2, "", said)


def test_an_input_error_in_main_is_one_sentence():
    def main(config):
        raise InputError("data.zip is not a data set.")

    assert ended([], main) == (2, "", "data.zip is not a data set.\n")


def test_other_errors_keep_their_traceback():
    def main(config):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run(main, Config, args=[])


def test_interruption_is_quiet():
    def main(config):
        raise KeyboardInterrupt

    assert ended([], main) == (130, "", "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DivergedError("It went to infinity."), 1),
        (CheckpointError("It cannot be written."), 1),
        (Interrupted("It was stopped.", signal.SIGTERM), 143),
        (Interrupted("It was stopped.", signal.SIGINT), 130),
    ],
)
def test_a_run_that_ends_early_says_why_in_one_sentence(error, status):
    def main(config):
        raise error

    assert ended([], main) == (status, "", f"{error}\n")


def test_importing_loads_no_heavy_package_and_a_signal_ends_a_script_even_within_a_call():
    heavy = ("orbax", "tyro", "tensorboardX", "matplotlib")  # rich comes with flax
    program = (
        "import sys, threading, dataclasses\nfrom nnlab.runs.script import run\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
        "@dataclasses.dataclass\nclass Config:\n    x: int = 0\n"
        "def main(config):\n    lock = threading.Lock()\n    lock.acquire()\n"
        "    print('ready', flush=True)\n    lock.acquire()\nrun(main, Config, [])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["[]\n", "ready\n"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT


@pytest.mark.parametrize(
    "args",
    [
        ["--epochs", "three"],
        ["--epochs"],
        ["--nonsense"],
        ["--network", "resnet"],
        ["--tyro-print-completion", "nosuchshell"],
        ["--tyro-write-completion", "bash", "/proc/nowhere/at/all"],
    ],
)
def test_a_flag_that_does_not_parse_is_brief(args):
    status, out, err = ended(args)
    assert (status, out) == (2, "")
    assert 0 < len(err.splitlines()) < 12
    assert "Traceback" not in err


# fmt: off
TOKENS = [
    "--learning-rate", "--epochs", "--epochs=3", "--momentum", "--network", "--sizes", "--where",
    "--out", "--help", "--tyro-print-completion", "--tyro-write-completion", "bash", "nan", "-inf",
    "1e400", "0", "-1", "3", "cnn", "--", "-", "9" * 5000,
]
# fmt: on


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=6), max_size=5))
def test_no_command_line_ends_in_a_traceback(args):
    # A completion script may be written wherever the next token says; keep it off the disk.
    if "--tyro-write-completion" in args[:1]:
        args = [*args[:2], "/proc/nowhere"]
    seen = []
    status, _, err = ended(args, seen.append)
    assert status in (0, 2)
    assert (status == 2) == bool(err.strip())
    for config in seen:
        assert 0 < config.learning_rate < math.inf and config.epochs > 0
