"""`nnlab watch` as a user runs it: on growing files, through kills, with wrong input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from nnlab.commands import watch
from nnlab.files import container
from nnlab.models import NextValue, save_model
from nnlab.runs.script import run
from nnlab.series import Standardize, fit_transformation
from nnlab.series.tables import Table

THRESHOLD = 0.3
GOLDEN = Path(__file__).parents[1]  # with networks that version 0.1.0 has saved


def values():
    """700 numbers near a sine, and three places where they are not."""
    rng = np.random.default_rng(0)
    series = np.sin(np.arange(700) / 5) + 0.1 * rng.normal(size=700)
    for place in (300, 450, 600):
        series[place : place + 12] += 5 * rng.normal(size=12)
    return series


def rows(first, last):
    return "".join(f"{i},{value:.4f}\n" for i, value in enumerate(values()[first:last], first))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of zeros, which predicts the value before: errors are large where values jump."""
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    table = Table({"value": "number"}, {"value": values()[:200]})
    record = fit_transformation(table, [(Standardize, "value")])
    model = NextValue(4)
    inputs = np.zeros((1, 2, 1), np.float32)
    notes = {"transformation": record.to_json(), "columns": 1, "format": "csv", "short": 4}
    notes |= {"threshold": THRESHOLD, "start": None}
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
    save_model(
        path, model, jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes), inputs, notes=notes
    )
    return path


@pytest.fixture
def folder(tmp_path, network):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / network.name).write_bytes(network.read_bytes())
    return tmp_path / "run"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("id,value\n" + rows(0, 700))
    return path


@pytest.fixture
def call(capsys):
    """`call(*args)` is what the command prints, or with `status` the one sentence it ends with."""

    def called(*args, status=0):
        args = [str(arg) for arg in args]
        if not status:
            run(watch.main, watch.Config, args)
            return capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run(watch.main, watch.Config, args)
        assert end.value.code == status
        streams = capsys.readouterr()
        assert streams.out == "" and streams.err.count("\n") == 1, streams
        return streams.err

    return called


def start(*args):
    command = [sys.executable, "-m", "nnlab", "watch", *map(str, args)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def anomalies(out):
    return [line for line in out.splitlines() if line.startswith(">")]


@pytest.fixture
def expected(call, folder, file):
    """What an uninterrupted watch shows; it leaves no files."""
    out = call(folder, file, "--from-start", "--once").out
    for left in folder.glob("watch-*"):
        left.unlink()
    return out


def test_shows_anomalies_among_the_lines_around_them(expected):
    lines = expected.splitlines()
    numbers = [int(line[1:].split("|")[0]) for line in lines]
    assert numbers == sorted(set(numbers))  # each once
    marked = {number for number, line in zip(numbers, lines, strict=True) if line[0] == ">"}
    # Row i is line i + 2; each of the places is found, and little else.
    assert all(marked & set(range(place + 2, place + 16)) for place in (300, 450, 600))
    assert len([n for n in marked if not 302 <= n < 618]) <= 2
    around = {n + i for n in marked for i in (-2, -1, 0, 1, 2)}
    assert set(numbers) == around & set(range(2, 702))
    text = ["id,value", *rows(0, 700).splitlines()][min(marked) - 1]
    assert re.fullmatch(
        rf"> +{min(marked)} \| {re.escape(text)}  score 0\.\d+", anomalies(expected)[0]
    )


@pytest.mark.parametrize("context", [0, 1, 5])
def test_pieces_show_what_the_whole_shows(call, folder, file, tmp_path, context):
    """The file in any pieces, a process each: the lines are those of one process, each once."""
    options = ("--once", "--from-start", "--context", context, "--json")
    whole = call(folder, file, *options).out
    content = file.read_bytes()
    part = tmp_path / "part.csv"
    out = ""
    for end in (3, 2000, 3500, 3512, 4800, 4805, len(content)):
        part.write_bytes(content[:end])  # the same inode
        out += call(folder, part, *options).out
    assert out == whole
    shown = [json.loads(line) for line in whole.splitlines()]
    assert {row["anomaly"] for row in shown} == ({True} if context == 0 else {True, False})
    assert all(row["score"] >= THRESHOLD for row in shown if row["anomaly"])


def test_what_was_there_is_not_judged_unless_asked(call, folder, file, expected):
    assert call(folder, file, "--once").out == ""
    with file.open("a") as appended:
        appended.write("".join(f"{i},{90 * (-1) ** i}\n" for i in range(130)))
    shown = anomalies(call(folder, file, "--once", "--from-start").out)  # not the first watch
    assert all(int(line[1:].split("|")[0]) > 701 for line in shown)
    assert anomalies(call(folder, file, "--once", "--from-start", "--forget").out)[0] in expected


def test_threshold(call, folder, file, expected):
    few = call(folder, file, "--once", "--from-start", "--threshold", 0.9, "--context", 0).out
    scores = [float(line.split("score")[1]) for line in anomalies(expected)]
    assert len(few.splitlines()) == sum(score >= 0.9 for score in scores) < len(scores)


def test_rotation(call, folder, file, expected):
    """A file in three, renamed while nobody watches and while somebody does."""
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:320]))
    out = call(folder, file, "--once", "--from-start").out
    with file.open("a") as old:
        old.write("".join(lines[320:460]))
    file.rename(file.with_name("data.csv.1"))
    file.write_text(lines[0] + "".join(lines[460:]))  # with its header
    streams = call(folder, file, "--once", "--from-start")
    assert "another file" in streams.err

    def texts(out):
        return [line.split("|")[1] for line in anomalies(out)]

    assert texts(out + streams.out) == texts(expected)


@pytest.mark.slow
def test_kill_in_the_middle_and_restart(folder, file, expected):
    """-9 at any moment, many times: every anomaly is shown, and none that should not be."""
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("")
    out = ""
    with file.open("a") as growing:
        for number in range(3):
            process = start(folder, file, "--from-start", "--poll", 0.01)
            for i in range(number * 240, min(len(lines), (number + 1) * 240)):
                growing.write(lines[i])
                growing.flush()
                time.sleep(0.02)
            process.kill()
            out += process.communicate()[0]
    process = start(folder, file, "--from-start", "--once")
    rest, said = process.communicate()
    assert process.returncode == 0, said
    assert set(anomalies(out + rest)) == set(anomalies(expected))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_out_and_repeat_nothing(folder, file, expected, number):
    content = file.read_text()
    half = content.index("\n455,") + 5  # between two anomalies, within a line
    file.write_text(content[:half])
    process = start(folder, file, "--from-start")
    assert process.stdout is not None and process.stderr is not None
    first = ""
    while "> " not in first or int(anomalies(first)[-1][1:].split("|")[0]) < 454:
        first += process.stdout.readline()
    process.send_signal(number)
    out, said = process.stdout.read(), process.stderr.read()
    assert process.wait() == 128 + number
    assert f"stopped by {number.name} after line 456 of" in said
    file.open("a").write(content[half:])
    process = start(folder, file, "--from-start", "--once")
    rest, said = process.communicate()
    assert process.returncode == 0, said
    assert first + out + rest == expected


@pytest.mark.slow
def test_a_file_that_comes_later_and_another_watch_of_it(folder, file, expected, call):
    content = file.read_text()
    file.unlink()
    with start(folder, file, "--json") as process:
        while not list(folder.glob("watch-*.safetensors")):
            time.sleep(0.1)
        file.write_text(content)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["anomaly"] is False
        assert "is in use" in call(folder, file, "--once", status=2)
        process.terminate()
        rest = process.stdout.read()
    assert sum(json.loads(line)["anomaly"] for line in rest.splitlines()) <= len(
        anomalies(expected)
    )


@pytest.mark.slow
def test_nobody_reads(folder, file, expected):
    """What was not shown comes with the next call."""
    process = start(folder, file, "--from-start")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait() == 2
    said = process.stderr.read()
    assert said.count("\n") == 1 and "Standard output cannot be written" in said
    process = start(folder, file, "--from-start", "--once")
    assert process.communicate()[0] == expected


def test_malformed_lines(call, folder, file):
    """A few are reported; more end the watch, until that many are allowed."""
    lines = file.read_text().splitlines(keepends=True)
    lines[100:100] = ["\n", "1,2,3\r\n", "7,high\n"]
    file.write_text("".join(lines))
    said = call(folder, file, "--once", "--from-start").err.splitlines()
    assert said[:2] == ["line 101 is blank", "line 102 has 3 cells, expected 2"]
    assert said[2].startswith("line 103 has value = 'high', expected a number")
    assert said[3].startswith("704 lines, ") and ", 3 malformed;" in said[3]
    with file.open("ab") as growing:
        growing.write(b"\xff\xfe\n" * 20 + rows(0, 50).encode())
    with pytest.raises(SystemExit):
        call(folder, file, "--once")
    with pytest.raises(SystemExit):  # and again
        call(folder, file, "--once")
    assert "0 malformed" in call(folder, file, "--once", "--max-malformed", 0.1).err


def test_a_log(call, tmp_path):
    path, log = tmp_path / "network.safetensors", tmp_path / "service.log"
    path.write_bytes((GOLDEN / "series/golden/log_network.safetensors").read_bytes())
    log.write_bytes(b"1 open b1\n1 close b1\n\x1b[31mc 1\xff\n1 open b2\n1 \x1b[31mc b2\n")
    options = ("--once", "--from-start", "--context", "1", "--threshold", "50")
    streams = call(path, log, *options)
    assert "line 3 is not UTF-8" in streams.err
    *before, last = streams.out.splitlines()
    assert before == ["        4 | 1 open b2"]
    assert last == ">       5 | 1 \\x1b[31mc b2  score 100  b2: no template"
    assert list(path.parent.glob("watch-*.safetensors"))


def test_sentences(call, folder, file, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no network.safetensors" in call(tmp_path / "empty", file, status=2)
    assert "there is no file" in call(tmp_path / "nothing", file, status=2)
    path = GOLDEN / "sequences/golden/language.safetensors"
    assert "holds a LanguageModel; expected" in call(path, file, status=2)
    assert "is no regular file" in call(folder, tmp_path, "--once", status=2)
    assert "there is no file" in call(folder, tmp_path / "none.csv", "--once", status=2)
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    for option in ((), ("--from-start",)):
        said = call(folder, other, "--once", *option, status=2)
        assert "has the columns 'a', 'b', expected 'value'" in said
    (folder / "network.safetensors").write_bytes(b"damaged")
    assert "is damaged" in call(folder, file, "--once", status=2)


def test_a_state_that_cannot_be_used(call, folder, file, network):
    call(folder, file, "--once", "--from-start")
    (place,) = folder.glob("watch-*.safetensors")
    good = place.read_bytes()
    place.write_bytes(good[:-1])
    assert "is damaged" in call(folder, file, "--once", status=2)
    place.write_bytes(network.read_bytes())
    assert "holds no state of a watch" in call(folder, file, "--once", status=2)
    place.write_bytes(good)
    left = folder / f".{place.name}.killed"
    left.mkdir()
    assert call(folder, file, "--once").err.startswith("0 lines") and not left.exists()
    about, arrays = container.read(network)
    about["notes"]["threshold"] = 0.2
    container.write(folder / network.name, arrays, about=about, overwrite=True)
    said = call(folder, file, "--once", status=2)
    assert "by another network" in said and "--forget" in said
    assert call(folder, file, "--once", "--forget", "--from-start").out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("threshold", value) for value in ("nan", "inf", "0", "-1")),
        *(("context", value) for value in ("-1", str(2**32))),
        *(("poll", value) for value in ("0", "nan", "1e9")),
        *(("max-malformed", value) for value in ("nan", "2", "-1")),
    ],
)
def test_wrong_options(call, option, value):
    assert f"--{option}" in call("run", "file", f"--{option}", value, status=2)
