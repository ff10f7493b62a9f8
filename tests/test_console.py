"""Standard output that nobody reads, that is full or that is not there; errors as exit statuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnlab import __version__, commands

PRINTS = "from nnlab.console import console\nwith console(): print('a' * 10**5)"


def ended(code=PRINTS, stdout: int | None = None, shell="", **environment):
    """The exit status and standard error of a process, whose output `shell` may redirect."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-c", code]
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_gets_one_sentence(unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    status, said = ended(stdout=writing, PYTHONUNBUFFERED=unbuffered)
    os.close(writing)
    assert (status, said) == (2, "Standard output cannot be written: Broken pipe.\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_gets_one_sentence_even_at_the_very_end():
    few = "from nnlab.console import console\nwith console(): print('a')"
    for code in (PRINTS, few):
        status, said = ended(code, shell="> /dev/full")
        assert (status, said) == (
            2,
            "Standard output cannot be written: No space left on device.\n",
        )


def test_without_standard_output_no_file_gets_its_place(tmp_path):
    code = f"""
from nnlab.console import console
with console(), open({str(tmp_path / "file")!r}, "w") as file:
    assert file.fileno() > 2
    print("lost")
"""
    assert ended(code, shell=">&-") == (0, "")
    assert (tmp_path / "file").read_text() == ""


def test_a_platform_that_is_not_there_gets_one_sentence():
    code = "from nnlab.console import console\nwith console():\n import jax\n jax.devices()"
    status, said = ended(code, JAX_PLATFORMS="abacus")
    assert status == 2 and "Traceback" not in said
    assert said.startswith("Unable to initialize backend 'abacus'")


def test_errors_end_with_their_sentence_and_status():
    code = """
import signal
from nnlab.console import console
from nnlab.errors import *
with console(): raise {}
"""
    for error, status in (
        ("InputError('No.')", 2),
        ("DivergedError('No.')", 1),
        ("CheckpointError('No.')", 1),
        ("Interrupted('No.', signal.SIGTERM)", 143),
    ):
        assert ended(code.format(error)) == (status, "No.\n")
    assert ended(code.format("KeyboardInterrupt")) == (130, "")


def test_help_is_that_of_the_command():
    command = [sys.executable, "-m", "nnlab", "doctor", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "usage: nnlab doctor" in shown and "Name what of a network cannot learn" in shown
    assert "Arithmetic of the network" in shown  # the docstring of a field


def nnlab(*args):
    command = [sys.executable, "-m", "nnlab", *args]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_without_a_name_all_commands_are_listed_with_what_they_do():
    status, listed, said = nnlab()
    found = {file.stem for file in Path(commands.__path__[0]).glob("[!_]*.py")}
    assert (status, said) == (0, "") and nnlab("--help")[1] == nnlab("help")[1] == listed
    lines = [line.split(maxsplit=1) for line in listed.splitlines() if line.startswith("  ")]
    assert {name for name, _ in lines} == found and all(text.endswith(".") for _, text in lines)
    assert nnlab("--version") == (0, f"nnlab {__version__}\n", "")


def test_an_unknown_command_is_one_sentence_with_the_nearest():
    status, listed, said = nnlab("sumary", "--levels", "1")
    assert (status, listed) == (2, "") and said.count("\n") == 1
    assert "'sumary'" in said and "summary" in said and "sweep" not in said
    assert nnlab("moon")[0] == 2 and "demo, doctor" in nnlab("moon")[2]
