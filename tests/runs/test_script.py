"""A script that checks its own command line."""

import contextlib
import io
import math
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import (
    CheckpointError,
    DivergedError,
    InputError,
    Interrupted,
)
from nnlab.runs.script import (
    check_choices,
    check_count,
    check_fraction,
    check_positive,
    check_positive_integer,
    check_seed,
    run,
)


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1
    epochs: int = 3  # passes over the data
    momentum: float = 0.9
    seed: int = 0
    workers: int = 0
    network: Literal["cnn", "adder"] = "cnn"
    sizes: tuple[int, ...] = (1, 2)
    words: tuple[str, ...] = ("any",)
    out: Path | None = None

    def __post_init__(self):
        check_choices("words", self.words, ("some", "any"))
        check_positive("learning_rate", self.learning_rate)
        check_positive_integer("epochs", self.epochs)
        check_fraction("momentum", self.momentum)
        check_seed("seed", self.seed)
        check_count("workers", self.workers)


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
    assert "A script that checks its own command line." in out
    assert "passes over the data" in out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["--learning-rate", "nan"],
            "--learning-rate must be a positive finite number, not nan.",
        ),
        (
            ["--learning-rate", "inf"],
            "--learning-rate must be a positive finite number, not inf.",
        ),
        (["--epochs", "0"], "--epochs must be an integer from 1 to 2147483647, not 0."),
        (
            ["--epochs", str(2**31)],
            "--epochs must be an integer from 1 to 2147483647, not 2147483648.",
        ),
        (["--momentum", "nan"], "--momentum must be a number from 0 to 1, not nan."),
        (["--seed", "-1"], "--seed must be an integer from 0 to 4294967295, not -1."),
        (["--words", "any", "all"], "--words must be some of some, any, not all."),
        (["--words", "any", "any"], "--words must be some of some, any, not any, any."),
        (["--words"], "--words must be some of some, any, not nothing."),
        (["--words", "an\ny"], "--words must be some of some, any, not 'an\\ny'."),
        (["--workers", "-1"], "--workers must be an integer from 0 to 2147483647, not -1."),
    ],
)
def test_a_refused_value_is_one_sentence(args, sentence):
    assert ended(args) == (2, "", sentence + "\n")


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


def test_a_signal_ends_a_script_even_within_a_call():
    program = (
        "import threading, dataclasses\nfrom nnlab.runs.script import run\n"
        "@dataclasses.dataclass\nclass Config:\n    x: int = 0\n"
        "def main(config):\n    lock = threading.Lock()\n    lock.acquire()\n"
        "    print('ready', flush=True)\n    lock.acquire()\nrun(main, Config, [])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
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
    "--learning-rate", "--epochs", "--epochs=3", "--momentum", "--seed", "--network", "--sizes",
    "--out", "--help", "--tyro-print-completion", "--tyro-write-completion", "bash", "nan", "-inf",
    "1e400", "0", "-1", "3", "cnn", "--", "-", "9" * 5000,
]
# fmt: on


@settings(max_examples=200, deadline=None)
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


numbers = st.one_of(st.integers(), st.integers(-3, 3), st.floats(), st.sampled_from([0, 1, 2**32]))


@settings(max_examples=200, deadline=None)
@given(numbers, numbers, numbers, numbers)
def test_a_config_is_valid_or_refused_with_a_flag(learning_rate, epochs, momentum, seed):
    valid = (
        learning_rate > 0
        and learning_rate != math.inf
        and isinstance(epochs, int)
        and 1 <= epochs < 2**31
        and 0 <= momentum <= 1
        and isinstance(seed, int)
        and 0 <= seed < 2**32
    )
    try:
        Config(learning_rate, epochs, momentum, seed)
    except InputError as error:
        assert not valid
        assert str(error).startswith("--") and str(error).endswith(".")
    else:
        assert valid


def test_as_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        '"""A question."""\n'
        "from dataclasses import dataclass\n"
        "from nnlab.runs.script import check_positive, run\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        "    weight_decay: float = 0.1\n"
        "    def __post_init__(self):\n"
        "        check_positive('weight_decay', self.weight_decay)\n"
        "def main(config):\n"
        "    print(config.weight_decay)\n"
        "if __name__ == '__main__':\n"
        "    run(main, Config)\n"
    )
    call = [sys.executable, str(script), "--weight-decay"]
    good = subprocess.run([*call, "0.5"], capture_output=True, text=True)
    assert (good.returncode, good.stdout, good.stderr) == (0, "0.5\n", "")
    bad = subprocess.run([*call, "nan"], capture_output=True, text=True)
    sentence = "--weight-decay must be a positive finite number, not nan.\n"
    assert (bad.returncode, bad.stdout, bad.stderr) == (2, "", sentence)


def test_importing_loads_no_heavy_package():
    heavy = ("orbax", "tyro", "tensorboardX")  # rich comes with flax
    modules = ("checkpoints", "environment", "progress", "run_folder", "script")
    code = "import sys\n" + "".join(f"import nnlab.training.{name}\n" for name in modules)
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
