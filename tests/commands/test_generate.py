"""`nnlab generate` as a user runs it."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import BITNET
from nnlab.commands import generate
from nnlab.deployment import pack
from nnlab.files import container
from nnlab.models import GPT2, LanguageModel, save_model
from nnlab.runs.script import run

CHARACTERS = "\n abcü\x1c"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of random weights that never writes its last character."""
    path = tmp_path_factory.mktemp("run") / "network.safetensors"
    model, symbols = LanguageModel(7, features=4, layers=1), jnp.zeros((1, 3), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), symbols)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    variables["params"]["network"]["classifier"]["bias"][-1] = -1e9
    notes = {"vocabulary": CHARACTERS, "start": "\n", "end": None}
    save_model(path, model, variables, symbols, notes=notes)
    return path


def changed(network, path, bias=-1e9, **notes):
    """The network with another bias of its last character, and other notes."""
    about, arrays = container.read(network)
    about["notes"] |= notes
    arrays["params/network/classifier/bias"][-1] = bias
    container.write(path, arrays, about=about)
    return path


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


def test_as_many_characters_as_asked_for(call, network):
    out, err = call(network.parent, "--prompt", "abü", "--length", 250)
    assert re.fullmatch(r"abü[\n abcü]{250}\n", out)
    assert re.fullmatch(r"250 characters in [\d.]+ seconds, [\d,]+ a second.\n", err)
    assert generate.load(network).notes == generate.load(network.parent).notes


@pytest.mark.slow
def test_seeds_little_heat_and_one_choice(call, network):
    text = call(network, "--length", 50).out
    assert call(network, "--length", 50, "--seed", 1).out != text
    cold = call(network, "--temperature", 1e-30, "--length", 50).out
    assert call(network, "--top-k", 1, "--length", 50, "--seed", 3).out == cold


def test_a_text_of_files_ends_where_a_file_does(call, network, tmp_path):
    path = changed(network, tmp_path / "a", bias=1.0, end="\x1c")
    text = call(path, "--length", 100_000, "--prompt", "ab").out
    assert text.startswith("ab") and "\x1c" not in text and len(text) < 100_000


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
    golden = Path(__file__).parents[1] / "series/golden/series_network.safetensors"
    assert "holds a NextValue; expected a character network" in call(golden, status=2)
    few = changed(network, tmp_path / "few", vocabulary="ab")
    assert "names 2 characters for a network of 7" in call(few, status=2)


def test_a_packed_decoder_and_its_positions(call, tmp_path):
    model = GPT2(7, positions=20, features=8, layers=1, heads=2, arithmetic=BITNET)
    symbols = jnp.zeros((1, 1), jnp.int32)
    packed = pack(model, jax.jit(model.init)(jax.random.key(0), symbols))
    path = tmp_path / "packed.safetensors"
    notes = {"vocabulary": CHARACTERS}
    save_model(path, packed.model, packed.variables, symbols, notes=notes)
    assert len(call(path, "--prompt", "ab").out) == 20 + 1
    said = call(path, "--prompt", "ab", "--length", 19, status=2)
    assert "has 20 positions, of which the prompt takes 2; expected --length 18 at most" in said
    assert "expected --prompt" in call(path, status=2)
    assert "'x' at place 2 is not among" in call(path, "--prompt", "abx", status=2)


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
