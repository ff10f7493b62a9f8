"""`python -m nnlab generate` as a user runs it."""

import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from nnlab.commands import generate
from nnlab.models import LanguageModel, SmallCNN, save_model
from nnlab.runs.script import run

CHARACTERS = "\n abcü\x1c"


def save(path, characters=CHARACTERS, end=None, bias=None):
    """A network of random weights; `bias` is added to the logits of the last character."""
    model = LanguageModel(7, features=4, layers=1)
    symbols = jnp.zeros((1, 3), jnp.int32)
    variables = model.init(jax.random.key(0), symbols)
    if bias is not None:
        leaves = flatten_dict(variables)
        name = "params", "network", "classifier", "bias"
        variables = unflatten_dict(leaves | {name: jnp.asarray(leaves[name]).at[-1].set(bias)})
    notes = {"vocabulary": characters, "start": "\n", "end": end}
    save_model(path, model, variables, symbols, notes=notes)
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return save(folder / "network.safetensors", end=None, bias=-1e9)


@pytest.fixture
def call(capsys):
    """`call(*args)` is what the command prints, and with `status` what it ends with."""

    def called(*args, status=0):
        args = [str(arg) for arg in args]
        if not status:
            run(generate.main, generate.Config, args)
            return capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run(generate.main, generate.Config, args)
        assert end.value.code == status
        streams = capsys.readouterr()
        assert streams.out == "" and streams.err.count("\n") == 1
        return streams.err

    return called


def test_a_folder_and_its_file_write_the_same(call, network):
    out, err = call(network.parent, "--prompt", "abü", "--length", 250)
    assert re.fullmatch(r"abü[\n abcü]{250}\n", out)
    assert re.fullmatch(r"250 characters in [\d.]+ seconds, [\d,]+ a second.\n", err)
    assert call(network, "--prompt", "abü", "--length", 250).out == out
    shorter = call(network, "--prompt", "abü", "--length", 120).out
    assert shorter == out[:123] + "\n"
    assert call(network, "--prompt", "abü", "--length", 250, "--seed", 1).out != out


def test_little_heat_and_one_choice_are_the_same(call, network):
    cold = call(network, "--temperature", 1e-30, "--length", 50).out
    assert call(network, "--top-k", 1, "--length", 50, "--seed", 3).out == cold


def test_a_text_of_files_ends_where_a_file_does(call, tmp_path):
    path = save(tmp_path / "a", end="\x1c", bias=1e9)
    assert call(path, "--prompt", "ab").out == "ab\n"
    path = save(tmp_path / "b", end="\x1c", bias=1.0)
    text = call(path, "--length", 100_000).out
    assert "\x1c" not in text and len(text) < 100_000


def test_what_cannot_be_used(call, network, tmp_path):
    said = call(network, "--prompt", "abx", status=2)
    assert said == (
        "character 'x' at place 2 is not among the 7 characters that the network knows.\n"
    )
    assert "holds no network.safetensors; expected the folder" in call(tmp_path, status=2)
    assert str(tmp_path / "none") in call(tmp_path / "none", status=2)
    for name in ("temperature", "length", "top-k"):
        assert f"--{name} must be" in call(network, f"--{name}=0", status=2)
    assert "--temperature must be" in call(network, "--temperature=nan", status=2)
    assert "--temperature must be" in call(network, "--temperature=-1", status=2)


def test_files_that_are_no_character_network(call, network, tmp_path):
    damaged = tmp_path / "damaged"
    data = bytearray(network.read_bytes())
    data[-9] ^= 1
    damaged.write_bytes(data)
    assert "damaged" in call(damaged, status=2)
    image = jnp.zeros((1, 8, 8, 1))
    model = SmallCNN(10)
    images = tmp_path / "images"
    save_model(images, model, model.init(jax.random.key(0), image), image)
    assert "holds a SmallCNN; expected a character network" in call(images, status=2)
    assert "names 2 characters for a network of 7" in call(save(tmp_path / "few", "ab"), status=2)


@pytest.mark.slow
def test_a_closed_pipe_and_ctrl_c_are_quiet(network):
    command = [sys.executable, "-m", "nnlab", "generate", network, "--length", "2000000000"]
    for stop in (lambda process: process.stdout.close(), interrupt):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None and process.stderr is not None
        assert len(process.stdout.read(100)) == 100
        stop(process)
        assert process.wait(timeout=60) in (-signal.SIGPIPE, -signal.SIGINT)
        assert process.stderr.read() == b""
        process.stderr.close()
        process.stdout.close()


def interrupt(process):
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
