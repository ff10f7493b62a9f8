"""`nnlab summary` as a user runs it."""

import io
import re
import sys
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from nnlab.arithmetics import BITNET
from nnlab.commands import summary
from nnlab.deployment import pack
from nnlab.models import GPT2, save_model
from nnlab.runs.script import run


@pytest.fixture
def printed(capsys):
    """`printed(*args)` runs the command in this process and returns what it prints."""

    def call(*args):
        run(summary.main, summary.Config, [str(arg) for arg in args])
        return capsys.readouterr().out

    return call


@pytest.fixture
def refused(capsys):
    """`refused(*args)` is the sentence that the command ends with, at status 2."""

    def call(*args):
        with pytest.raises(SystemExit) as end:
            run(summary.main, summary.Config, [str(arg) for arg in args])
        assert end.value.code == 2
        streams = capsys.readouterr()
        assert streams.err.count("\n") == 1
        return streams.err

    return call


def figure(text, name):
    """The number of a total by its name."""
    found = re.search(rf"^  {re.escape(name)} +([\d,]+)$", text, re.MULTILINE)
    assert found, f"{name} is not in {text}"
    return int(found[1].replace(",", ""))


def test_lenet_as_published(printed, tmp_path):
    file = tmp_path / "lenet5.svg"
    text = printed("lenet5", "--no-compile", "--picture", file)
    assert str(file) in text and [*tmp_path.iterdir()] == [file]
    (title,) = ElementTree.parse(file).getroot().findall("./{http://www.w3.org/2000/svg}title")
    assert title.text == "lenet5, float"
    assert text.startswith("lenet5: arithmetic float, first float, classifier float;")
    assert "1x32x32x1" in text
    assert figure(text, "parameters") == 61_942
    # 416,520 of the layers and one a number that is normalised, one a channel for its factor.
    normalised, channels = 28 * 28 * 6 + 10 * 10 * 16 + 120 + 84 + 10, 6 + 16 + 120 + 84 + 10
    assert figure(text, "multiplications") == 416_520 + normalised + channels
    assert "Compiled" not in text


def test_a_recurrent_network(printed):
    text = printed("next_event", "--norm", "--train", "--batch-size", 2, "--no-compile")
    assert text.startswith("next_event: arithmetic float, classifier float; inputs 2x10 in float32")
    assert figure(text, "parameters") == 54_223 + 2 * (2 * 4 * 64 + 64)  # scales of LayerNorm
    # Two sequences of ten one-hot events, into one of two layers and on to the other; 15 logits.
    products = 2 * 10 * 256 * (14 + 3 * 64) + 2 * 64 * 15
    assert products < figure(text, "multiplications") < 1.1 * products


def test_options_reach_the_model(printed):
    options = ["--classes", 7, "--channels", 2, "--image-size", 12, "--batch-size", 5]
    arithmetics = ["--first", "adder", "--classifier", "binary", "--dtype", "bfloat16"]
    text = printed("small_cnn", *options, *arithmetics, "--no-compile")
    assert "arithmetic float, first adder, classifier binary" in text
    assert "inputs 5x12x12x2 in bfloat16" in text
    assert "5x7" in text and "AdderConv" in text and "BinaryDense" in text
    assert figure(text, "  of 1 bit") > 0
    assert "no price for" in text  # of bfloat16


@pytest.mark.slow
def test_compiled_and_measured(printed):
    text = printed("small_cnn", "--arithmetic", "adder", "--train", "--measure", "--repeats", 2)
    inference, step = text.split("Compiled ")[1:]
    assert inference.startswith("inference on ") and step.startswith("training step on ")
    for part in (inference, step):
        arguments, results = figure(part, "bytes of arguments"), figure(part, "bytes of results")
        together = arguments + results + figure(part, "temporary bytes")
        assert figure(part, "bytes together") == together
        assert re.search(r"measured: median of 2 +[\d.]+.?s$", part, re.MULTILINE)
        assert re.search(r"inputs a second +[\d.]+k?$", part, re.MULTILINE)
    # Parameters and statistics and one float32 image go in, ten logits come out.
    at_rest = figure(text, "bytes at rest")
    assert figure(inference, "bytes of arguments") == at_rest + 4 * 8 * 8
    assert figure(inference, "bytes of results") == 40
    # A step takes the state, with its momentum, and gives another.
    assert figure(step, "bytes of arguments") > 2 * (
        at_rest - 4 * figure(text, "running statistics")
    )
    of_step = text.split("Training step on an input")[1]
    assert figure(of_step, "multiplications") > figure(text, "multiplications")


def test_a_network_of_ones_own(printed, refused, tmp_path, monkeypatch):
    (tmp_path / "long_network.py").write_text(
        "import flax.linen as nn\n"
        "class Block(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        for size in range(1, 25):\n"
        "            x = nn.Dense(size)(x)\n"
        "        return x\n"
        "class Network(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        return Block()(x)\n"
    )
    monkeypatch.chdir(tmp_path)
    args = ["long_network:Network", "--input-shape", 2, "--no-compile", "--picture", "long.svg"]
    lines = printed(*args).splitlines()
    assert lines[0] == "long_network:Network: inputs 1x2 in float32"
    height = ElementTree.parse(tmp_path / "long.svg").getroot().get("height")
    assert lines[-1].startswith("Picture: long.svg, ")
    assert lines[-1].endswith(f" x {height} pixels; --levels 1 draws a shorter one")
    assert printed(*args, "--levels", 1).splitlines()[-1] == "Picture: long.svg"
    said = refused(*args, "--arithmetic", "adder")
    assert "a field arithmetic" in said and "--fields NAME=adder" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["resnet"], ["MODEL", "resnet", "lenet5", "resnet20"]),
        (["lenet5", "--arithmetic", "add"], ["--arithmetic", "add", "adder", "posit8"]),
        (["lenet5", "--first", "add"], ["--first", "add", "adder"]),
        (["lenet5", "--classifier", "add"], ["--classifier", "add", "adder"]),
        (["lenet5", "--dtype", "int8"], ["--dtype", "int8", "bfloat16"]),
        (["lenet5", "--norm"], ["--norm", "lenet5"]),
        (["ntm", "--first", "adder"], ["--first", "ntm"]),
        (["ntm", "--image-size", "4"], ["--image-size", "ntm"]),
        (["lenet5", "--image-size", "4"], ["lenet5", "4x4x1", "window"]),
        (["lenet5", "--image-size", "0"], ["--image-size", "0"]),
        (["lenet5", "--channels", "-1"], ["--channels", "-1"]),
        (["lenet5", "--classes", "0"], ["--classes", "0"]),
        (["lenet5", "--levels", "0"], ["--levels", "0"]),
        (["lenet5", "--batch-size", "0"], ["--batch-size", "0"]),
        (["lenet5", "--batch-size", str(2**31 - 1)], ["--batch-size", "2,199,023,254,528"]),
        (["lenet5", "--repeats", "0"], ["--repeats", "0"]),
        (["lenet5", "--picture", "lenet5.png"], ["--picture", ".svg", "lenet5.png"]),
        (["lenet5", "--picture", "nowhere/lenet5.svg"], ["--picture", "nowhere", "folder"]),
    ],
)
def test_bad_input_is_named_in_one_sentence(args, words, refused):
    said = refused(*args)
    assert all(word in said for word in words)


def test_where_no_picture_can_be(refused, tmp_path, monkeypatch):
    folder = tmp_path / "drawn.svg"
    folder.mkdir()
    assert f"{folder} is a folder" in refused("lenet5", "--picture", folder)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot be written" in refused("lenet5", "--picture", folder / "lenet5.svg")
    assert [*folder.iterdir()] == []


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        run(summary.main, summary.Config, ["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for word in ("--arithmetic", "winograd_adder", "vgg_small", "--measure"):
        assert word in said


def test_where_micro_cannot_be_written(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    run(summary.main, summary.Config, ["lenet5", "--levels", "1", "--no-compile"])
    stream.seek(0)
    text = stream.read()
    assert figure(text, "parameters") == 61_942
    assert "\x1b" not in text


@pytest.mark.slow
def test_a_packed_network_and_the_bytes_of_its_file(printed, refused, tmp_path):
    model = GPT2(symbols=11, positions=8, features=16, layers=1, heads=2, arithmetic=BITNET)
    symbols = np.zeros((1, 8), np.int32)
    packed = pack(model, jax.jit(model.init)(jax.random.key(0), symbols))
    file = tmp_path / "packed.safetensors"
    save_model(file, packed.model, packed.variables, symbols)
    out = printed(file, "--no-compile")
    assert figure(out, "bytes of file") == file.stat().st_size
    parts = [
        figure(out, f"bytes of {name}")
        for name in ("packed weights", "their scales", "other numbers")
    ]
    assert sum(parts) == figure(out, "bytes at rest")
    assert parts[0] == 64 * (3 + 1 + 4 + 4)  # lines of 64 bytes, by layers
    assert "inputs 1x8 in int32" in out
    assert "--arithmetic is for networks by their names" in refused(file, "--arithmetic", "adder")
    assert "there is no file" in refused(tmp_path / "none.safetensors")
