"""Character models in small: a run and what it leaves, going on with it, and its brackets."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.models import load_model

EXPERIMENTS = Path(__file__).parents[3] / "experiments" / "text"
SMALL = ["--features", "12", "--layers", "1", "--epochs", "3", "--window", "20", "--streams", "4"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve files whose brackets balance."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(12):
        lines = [f"    f(a[{number}]); // )" for _ in range(8)]
        (folder / f"{number}.java").write_text("\n".join(["class A {", *lines, "}\n"]))
    return folder


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "char_lm"
    ran = call("char_lm", "--corpus", corpus, *SMALL, "--length", 50, "--out", out)
    assert ran.returncode == 0, ran.stderr
    return out


def call(name, *args):
    command = [sys.executable, EXPERIMENTS / f"{name}.py", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_small_run(folder, corpus):
    result = json.loads((folder / "result.json").read_text())
    (row,), history = result["table"], result["history"]
    assert row["best epoch"] == 1 + int(np.argmin(history["test_loss"]))
    loss = row["validation loss / nats"]
    assert row["validation bits a character"] == pytest.approx(loss / math.log(2))
    assert row["validation perplexity"] == pytest.approx(math.exp(loss))
    saved = load_model(folder / "network.safetensors")
    assert len(saved.notes["vocabulary"]) == saved.model.symbols
    assert saved.notes["validation loss"] == loss and saved.notes["start"] == "\x1c"
    page = (folder / "report.html").read_text()
    assert "A sample at temperature 0.8" in page and "<pre>" in page
    assert all(len(text) == 50 for text in result["samples"].values())
    assert (folder / "curves.png").is_file()


@pytest.mark.slow
def test_what_is_saved_has_the_loss_that_is_reported(folder, corpus):
    """The validation text read once more as a whole, in float64, from the saved network."""
    from nnlab.sequences.corpora import load_text
    from nnlab.sequences.text import Vocabulary

    saved = load_model(folder / "network.safetensors")
    vocabulary = Vocabulary(saved.notes["vocabulary"])
    symbols = vocabulary.encode("\x1c" + load_text(str(corpus)).valid)
    logits = np.asarray(saved.model.apply(saved.variables, symbols[None, :-1])[0], np.float64)
    of_labels = logits[np.arange(len(logits)), symbols[1:]]
    loss = np.mean(np.log(np.exp(logits).sum(-1)) - of_labels)
    # Some hundred losses of a few nats, added up in float32.
    assert saved.notes["validation loss"] == pytest.approx(loss, rel=len(logits) * 2**-24)


@pytest.mark.slow
def test_going_on_changes_nothing(folder, corpus):
    before = json.loads((folder / "result.json").read_text())
    args = ["--corpus", corpus, *SMALL, "--length", 50, "--out", folder]
    ran = call("char_lm", *args, "--resume")
    assert ran.returncode == 0, ran.stderr
    after = json.loads((folder / "result.json").read_text())
    assert after["table"] == before["table"] and after["samples"] == before["samples"]


@pytest.mark.slow
def test_brackets_of_a_small_network(folder, corpus, tmp_path):
    small = ["--files", 2, "--longest", 600, "--order", 3]
    ran = call("java_brackets", folder, "--corpus", corpus, *small, "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    # Each of two files: one brace, 8 times ( [ ] ) within it; what stands in comments is none.
    counts = {row["depth"]: row["closing brackets"] for row in result["table"]}
    assert counts == {"1": 2, "2": 16, "3": 16}
    own = result["files"][-1]
    assert own["ended and balanced / %"] == 100 and own["median opening brackets"] == 17


@pytest.mark.parametrize("script", ["java_brackets"], indirect=True)
def test_hits_by_hand(script):
    from nnlab.sequences.text import Vocabulary

    vocabulary = Vocabulary("a)]}")
    labels = vocabulary.encode(")a]")
    scores = np.array([[5.0, 4, 3, 2], [0, 9, 9, 9], [0, 1, 9, 2]])
    likeliest, of_three = script.bracket_hits(scores, labels, labels != 0, vocabulary)
    assert likeliest.tolist() == [False, True] and of_three.tolist() == [True, True]


@pytest.mark.parametrize("script", ["char_lm"], indirect=True)
def test_a_text_that_is_too_short(script, tmp_path):
    (tmp_path / "short.txt").write_text("abc" * 100)
    config = script.Config(corpus=str(tmp_path / "short.txt"), out=str(tmp_path / "run"))
    with pytest.raises(InputError, match="270 symbols are too few for 32 streams of windows of"):
        script.main(config)
