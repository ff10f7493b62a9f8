"""Corpora: the published files in the published parts, and texts of one's own."""

import itertools

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.sequences.corpora import SEPARATOR, load_text


def test_tiny_shakespeare_is_cut_as_in_nanogpt(original_data):
    corpus = load_text("tinyshakespeare", original_data)
    whole = (original_data / "tinyshakespeare" / "input.txt").read_text()
    # nanoGPT's prepare.py prints these two lengths.
    assert (len(corpus.train), len(corpus.valid)) == (1_003_854, 111_540)
    assert corpus.train + corpus.valid == whole and corpus.test == "" and not corpus.files
    assert len(set(whole)) == 65


def test_penn_treebank_has_the_published_characters(original_data):
    corpus = load_text("ptb", original_data)
    # 5,017K, 393K and 442K in the literature.
    lengths = [len(part) for part in (corpus.train, corpus.valid, corpus.test)]
    assert lengths == [5_017_482, 393_042, 442_423]
    assert len(set(corpus.train)) == 50
    assert corpus.valid.startswith("consumers may want") and corpus.valid.endswith("\n")
    words = (original_data / "ptb" / "ptb.valid.txt").read_text().split()
    assert corpus.valid.split() == words
    assert " \n" not in corpus.valid and "\n " not in corpus.valid


def test_java_is_code_in_whole_files(original_data):
    corpus = load_text("java", original_data)
    parts = [part.split(SEPARATOR) for part in (corpus.train, corpus.valid, corpus.test)]
    assert [len(files) - 1 for files in parts] == [210, 27, 27] and corpus.files
    assert all(files[-1] == "" for files in parts)
    files = [file for part in parts for file in part[:-1]]
    assert len(set(files)) == 264
    assert not any("Licensed to the Apache" in file for file in files)
    assert sum(file.startswith("package org.apache") for file in files) > 250


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "texts"
    for number in range(12):
        path = root / f"part{number % 3}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text {number}\n")
    (root / ".hidden").write_bytes(b"\xff")
    return root


def test_a_folder_is_cut_by_files(folder):
    corpus = load_text(str(folder))
    parts = [part.split(SEPARATOR)[:-1] for part in (corpus.train, corpus.valid, corpus.test)]
    assert [len(part) for part in parts] == [8, 2, 2] and corpus.files
    assert sorted(itertools.chain(*parts)) == sorted(f"text {number}\n" for number in range(12))
    assert load_text(str(folder)) == corpus


def test_a_file_that_comes_leaves_the_others_in_their_order(folder):
    before = load_text(str(folder))
    (folder / "another.txt").write_text("another\n")
    after = load_text(str(folder))
    kept = [file for file in after.train.split(SEPARATOR) if file in before.train]
    assert len(set(before.train.split(SEPARATOR)) - set(kept)) <= 1


def test_a_file_is_cut_at_nine_tenths(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("0123456789" * 2 + "x")
    corpus = load_text(str(path))
    assert corpus == ("a.txt", "012345678901234567", "89x", "", False)


def test_what_cannot_be_had(folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no corpus 'linux', expected tinyshakespeare, ptb, java"):
        load_text("linux")
    with pytest.raises(InputError, match=r"java is in none of .*; expected a folder"):
        load_text("java", tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(InputError, match="holds 0 files of the kind"):
        load_text(str(tmp_path / "one"))
    (tmp_path / "letter").write_text("a")
    with pytest.raises(InputError, match="holds one character"):
        load_text(str(tmp_path / "letter"))
    (folder / "bad.txt").write_text(f"a{SEPARATOR}b")
    with pytest.raises(InputError, match=r"bad.txt holds the character '\\x1c'"):
        load_text(str(folder))
    (folder / "bad.txt").write_bytes(bytes(np.arange(128, 256, dtype=np.uint8)))
    with pytest.raises(InputError, match=r"bad.txt cannot be read as UTF-8"):
        load_text(str(folder))
