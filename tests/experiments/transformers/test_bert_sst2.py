"""BERT on SST-2 in small: what is refused, and rows that go on where they stopped."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from nnlab.models import Bert
from nnlab.runs.script import run
from nnlab.sequences import hugging_face

pytest.importorskip("tokenizers")
SCRIPT = "transformers/bert_sst2"
WORDS = ["good", "bad", "film", "a", "the"]
SYMBOLS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def lines_of(count, seed):
    rng = np.random.default_rng(seed)
    for number in range(count):
        words = [*rng.choice(WORDS[2:], rng.choice((2, 5))), WORDS[1 - number % 2]]
        yield f"{' '.join(rng.permutation(words))}\t{number % 2}\n"


def write(folder, encoder):
    """An encoder with its vocabulary, and the two files."""
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), np.zeros((1, 1), np.int32))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
    hugging_face.write(folder / "encoder", encoder, params)
    (folder / "encoder" / "vocab.txt").write_text("\n".join(SYMBOLS))
    (folder / "sst2").mkdir()
    for name, count in (("train", 40), ("dev", 12)):
        text = "sentence\tlabel\n" + "".join(lines_of(count, count))
        (folder / "sst2" / f"{name}.tsv").write_text(text)


SIZES: Any = {"features": 8, "layers": 1, "heads": 2, "positions": 32}


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, Bert(len(SYMBOLS), **SIZES))
    return tmp_path


def arguments(folder, *further):
    files = "--encoder", folder / "encoder", "--data-dir", folder, "--out", folder / "run"
    return [str(each) for each in (*files, "--positions", 12, *further)]


def dev(folder, text):
    (folder / "sst2" / "dev.tsv").write_text(text)


BAD = {
    "a label": (lambda f: dev(f, "sentence\tlabel\ngood\t2\n"), [], ["dev.tsv, line 2", "'2'"]),
    "a column": (lambda f: dev(f, "text\tlabel\ngood\t1\n"), [], ["dev.tsv, line 2", "sentence"]),
    "an empty text": (lambda f: dev(f, "sentence\tlabel\n\t1\n"), [], ["dev.tsv, line 2", "empty"]),
    "unknown": (lambda f: dev(f, "sentence\tlabel\nx y\t1\n"), [], ["dev.tsv, line 2", "'x y'"]),
    "too long": (
        lambda f: dev(f, f"sentence\tlabel\n{'good ' * 20}\t1\n"),
        ["--no-truncate"],
        ["dev.tsv, line 2 has 22 symbols", "12"],
    ),
    "positions": (lambda f: None, ["--positions", "33"], ["--positions", "32", "33"]),
    "frozen": (lambda f: None, ["--frozen", "3"], ["--frozen", "2", "3"]),
    "a student alone": (lambda f: None, ["--networks", "shift"], ["seed 0", "float"]),
    "a vocabulary": (
        lambda f: (f / "encoder" / "vocab.txt").write_text("\n".join([*SYMBOLS, "more"])),
        [],
        ["11 symbols", "embedding 10"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_before_any_folder_is_made(name, script, folder, capsys):
    change, further, words = BAD[name]
    change(folder)
    with pytest.raises(SystemExit) as stop:
        run(script.main, script.Config, arguments(folder, *further))
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1, said
    assert all(word in said for word in words), said
    assert not (folder / "run").exists()


def test_biases_normalisations_and_frozen_parts(script):
    """One step of the optimiser without gradients is the decay alone."""
    dense = {"kernel": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}
    norm = {"scale": np.ones(2, np.float32)}
    block = {"mixer": {"key": dense}, "mixer_norm": norm}
    embeddings = {"word_embedding": {"embedding": dense["kernel"]}, "embedding_norm": norm}
    params = {"bert": {**embeddings, "layer_0": block, "layer_1": block}, "classifier": dense}
    nothing = jax.tree.map(np.zeros_like, params)
    for frozen in (0, 2):
        config = script.Config(frozen=frozen, warmup=1.0)
        rate, optimizer = script.optimiser(config, 1e-3, 4, teach=False)
        assert [float(rate(step)) for step in range(5)] == pytest.approx(
            [0, 2.5e-4, 5e-4, 7.5e-4, 1e-3]
        )
        state, updates = optimizer.init(params), nothing
        for _ in range(2):  # at rates of 0 and 2.5e-4
            updates, state = optimizer.update(nothing, state, params)
        for path, update in jax.tree_util.tree_leaves_with_path(updates):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            held = frozen and ("_embedding/" in name or "/layer_0/" in name)
            decays = name.endswith(("kernel", "embedding")) and not held
            assert np.allclose(update, -2.5e-4 * config.weight_decay if decays else 0), name


@pytest.mark.slow
def test_rows_in_small(script, folder):
    """Each row stays as it is once it is trained."""
    small = ("--batch-size", 8, "--epochs", 1, "--learning-rate", "1e-3")
    for network in ("float", "binary", "adder"):
        further = "--resume", "--networks", network, *small
        run(script.main, script.Config, arguments(folder, *further))
    result = json.loads((folder / "run" / "result.json").read_text())
    rows = {row["network"]: row for row in result["rows"]}
    assert [*rows] == [row["network"] for row in result["table"]] == ["float", "binary", "adder"]
    assert rows["binary"]["MB"] < rows["float"]["MB"]
    assert rows["adder"]["multiplications"] < rows["float"]["multiplications"]
    teacher = hugging_face.read(folder / "run" / "networks" / "float_0")
    assert (teacher.model.features, teacher.model.classes) == (8, 2)
    assert not [*(folder / "run" / "checkpoints").glob("*/step*")]
    run(script.main, script.Config, arguments(folder, "--resume", *small, "--networks", "float"))
    again = json.loads((folder / "run" / "result.json").read_text())
    assert again["rows"] == result["rows"] and again["table"] == result["table"]
