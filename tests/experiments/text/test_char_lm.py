"""Character models in small: the loss of what is saved, and its brackets."""

import json
import math

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.models import load_model
from nnlab.sequences.corpora import load_text
from nnlab.sequences.text import Vocabulary

SCRIPT = "text/char_lm"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve files whose brackets balance."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(12):
        lines = [f"    f(a[{number}]); // )" for _ in range(8)]
        (folder / f"{number}.java").write_text("\n".join(["class A {", *lines, "}\n"]))
    return folder


@pytest.fixture(scope="module")
def folder(script, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "char_lm"
    small = {"features": 12, "layers": 1, "epochs": 3, "window": 20, "streams": 4, "length": 50}
    script.main(script.Config(corpus=str(corpus), out=str(out), **small))
    return out


@pytest.mark.slow
def test_what_is_saved_has_the_loss_that_is_reported(folder, corpus):
    """The validation text read once more as a whole, in float64, from the saved network."""
    result = json.loads((folder / "result.json").read_text())
    (row,), history = result["table"], result["history"]
    assert row["best epoch"] == 1 + int(np.argmin(history["test_loss"]))
    saved = load_model(folder / "network.safetensors")
    vocabulary = Vocabulary(saved.notes["vocabulary"])
    symbols = vocabulary.encode("\x1c" + load_text(str(corpus)).valid)
    logits = np.asarray(saved.model.apply(saved.variables, symbols[None, :-1])[0], np.float64)
    of_labels = logits[np.arange(len(logits)), symbols[1:]]
    loss = np.mean(np.log(np.exp(logits).sum(-1)) - of_labels)
    # Some hundred losses of a few nats, added up in float32.
    assert saved.notes["validation loss"] == pytest.approx(loss, rel=len(logits) * 2**-24)
    assert row["validation loss / nats"] == saved.notes["validation loss"]
    assert row["validation bits a character"] == pytest.approx(loss / math.log(2))
    assert row["validation perplexity"] == pytest.approx(math.exp(loss))
    assert saved.notes["start"] == "\x1c" and len(vocabulary) == saved.model.symbols
    assert all(len(text) == 50 for text in result["samples"].values())


@pytest.mark.slow
def test_brackets_of_a_small_network(folder, corpus, load_script, tmp_path):
    script = load_script("text/java_brackets")
    small = {"files": 2, "longest": 600, "order": 3, "out": str(tmp_path / "run")}
    script.main(script.Config(network=str(folder), corpus=str(corpus), **small))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    # Each of two files: one brace, 8 times ( [ ] ) within it; those in comments do not count.
    counts = {row["depth"]: row["closing brackets"] for row in result["table"]}
    assert counts == {"1": 2, "2": 16, "3": 16}
    own = result["files"][-1]
    assert own["ended and balanced / %"] == 100 and own["median opening brackets"] == 17


@pytest.mark.parametrize("script", ["text/java_brackets"], indirect=True)
def test_hits_by_hand(script):
    vocabulary = Vocabulary("a)]}")
    labels = vocabulary.encode(")a]")
    scores = np.array([[5.0, 4, 3, 2], [0, 9, 9, 9], [0, 1, 9, 2]])
    likeliest, of_three = script.bracket_hits(scores, labels, labels != 0, vocabulary)
    assert likeliest.tolist() == [False, True] and of_three.tolist() == [True, True]


def test_a_text_that_is_too_short(script, tmp_path):
    (tmp_path / "short.txt").write_text("abc" * 100)
    config = script.Config(corpus=str(tmp_path / "short.txt"), out=str(tmp_path / "run"))
    with pytest.raises(InputError, match="270 symbols are too few for 32 streams of windows of"):
        script.main(config)
