"""Texts as symbols: WordPiece and byte-pair encoding, by Hugging Face's `tokenizers`.

    tokenizer = read_tokenizer(minilm_folder())
    tokens = padded(tokenizer.encode(["The weather is lovely today."]))

A tokenizer comes from a `tokenizer.json`, from the vocabulary of a BERT (`vocab.txt`), or is
trained (`train_bpe`). The package is in the extra `text`.

References:
    Sennrich et al., Neural machine translation of rare words with subword units, 2016,
    https://arxiv.org/abs/1508.07909, for byte-pair encoding; Radford et al., Language models are
    unsupervised multitask learners, 2019, for that of bytes; Devlin et al., BERT, 2018, for
    WordPiece.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnlab.errors import InputError, check_count, needs
from nnlab.files import container
from nnlab.paths import reading, user_path
from nnlab.sequences.text import read_text

_WORD_PIECE = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Turn texts into symbols and back.

    Attributes:
        inner: a `tokenizers.Tokenizer` that neither cuts nor pads.
    """

    inner: Any

    def __len__(self) -> int:
        """The number of symbols, which is the size of an embedding."""
        return self.inner.get_vocab_size()

    @property
    def pad(self) -> int:
        """The symbol for padding, 0 where there is none."""
        found = (self.inner.token_to_id(name) for name in ("[PAD]", "<pad>"))
        return next((symbol for symbol in found if symbol is not None), 0)

    def encode(
        self,
        texts: Sequence[str],
        longest: int | None = None,
        *,
        truncate: bool = True,
        place: Callable[[int], str] = "text {}".format,
    ) -> list[np.ndarray]:
        """Turn each text into symbols, int32 [time], with those at its ends, as of BERT.

        Args:
            texts: any number of them.
            longest: most symbols of a text, such as the positions of a network.
            truncate: cut longer ones, whose last symbol stays, and say once on standard error how
                many there were; otherwise they are refused.
            place: where the text of a number comes from, for errors, such as
                `nnlab.sequences.text_files.Table.place`.

        Raises:
            InputError: a text has no symbols besides those at its ends, or only such as the
                tokenizer does not know; or one is too long and not to be cut.
        """
        ends = self.inner.num_special_tokens_to_add(False)
        check_count("longest", ends + 1 if longest is None else longest, least=ends + 1)
        found = self.inner.encode_batch(list(texts))
        unknown = self._unknown
        for number, each in enumerate(found):
            marks = zip(each.ids, each.special_tokens_mask, strict=True)
            inside = {symbol for symbol, at_end in marks if not at_end}
            if not inside - {unknown}:
                what = "only symbols that the tokenizer does not know" if inside else "no symbols"
                raise InputError(
                    f"{place(number)} has {what} ({texts[number]!r:.40}), expected a text."
                )
        symbols = [np.array(each.ids, np.int32) for each in found]
        long = [n for n, each in enumerate(symbols) if longest is not None and len(each) > longest]
        if long and not truncate:
            raise InputError(
                f"{place(long[0])} has {len(symbols[long[0]])} symbols, expected at most {longest}."
            )
        if long:
            print(
                f"{len(long)} of {len(texts)} texts are cut to {longest} symbols, the first being "
                f"{place(long[0])}.",
                file=sys.stderr,
                flush=True,
            )
            self.inner.enable_truncation(longest)
            cut = self.inner.encode_batch([texts[n] for n in long])
            self.inner.no_truncation()
            for number, each in zip(long, cut, strict=True):
                symbols[number] = np.array(each.ids, np.int32)
        return symbols

    def decode(self, symbols: Iterable[int]) -> str:
        """Turn symbols into text, without those at its ends."""
        return self.inner.decode([int(symbol) for symbol in symbols])

    def check_fits(self, symbols: int) -> None:
        """Raise `InputError` unless an embedding of so many symbols is that of this vocabulary."""
        if symbols != len(self):
            raise InputError(
                f"the vocabulary has {len(self)} symbols and the embedding {symbols}, expected as "
                "many."
            )

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a `tokenizer.json`, for `read_tokenizer` and others.

        Raises:
            InputError: the file exists and is not to be replaced, or cannot be written.
        """
        with container.replacing(user_path(path), overwrite) as partial:
            partial.write_text(self.inner.to_str(pretty=True), encoding="utf-8")

    @property
    def _unknown(self) -> int | None:
        name = getattr(self.inner.model, "unk_token", None)
        return None if name is None else self.inner.token_to_id(name)


def read_tokenizer(path: str | os.PathLike[str], *, lowercase: bool = True) -> Tokenizer:
    """Read a tokenizer; what its file says of cutting and padding is left aside.

    Args:
        path: a `tokenizer.json`; a vocabulary of WordPiece, one symbol a line; or a folder of
            either, the former first.
        lowercase: whether a vocabulary is of lower case without accents, as BERT's "uncased" is;
            a `tokenizer.json` says so itself.

    Raises:
        InputError: there is no such file, or it is damaged; a vocabulary holds a symbol twice, or
            lacks one of BERT's special ones.
        MissingPackageError: `tokenizers` is not installed.
    """
    with needs("text"):
        import tokenizers
    path = _file(user_path(path))
    text = read_text(path)
    if path.suffix == ".json":
        try:
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the package knows no other
            said = " ".join(str(error).split())
            raise InputError(f"{path} is no tokenizer: {said}.") from error
        inner.no_truncation()
        inner.no_padding()
        return Tokenizer(inner)
    vocabulary: dict[str, int] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        symbol = line.removesuffix("\r")
        if symbol in vocabulary:
            before = vocabulary[symbol] + 1
            raise InputError(f"{path}, line {number}: {symbol!r} is in line {before} already.")
        vocabulary[symbol] = number - 1
    if missing := [name for name in _WORD_PIECE if name not in vocabulary]:
        raise InputError(f"{path} lacks {', '.join(missing)}, expected a vocabulary of BERT.")
    made = tokenizers.BertWordPieceTokenizer(vocab=vocabulary, lowercase=lowercase)
    return Tokenizer(tokenizers.Tokenizer.from_str(made.to_str()))


def _file(path: Path) -> Path:
    with reading(path):
        if not path.is_dir():
            return path
        for name in ("tokenizer.json", "vocab.txt"):
            if (path / name).is_file():
                return path / name
    raise InputError(f"{path} holds no tokenizer.json and no vocab.txt, expected one of them.")


def train_bpe(
    path: str | os.PathLike[str], symbols: int, special: Sequence[str] = ("<pad>",)
) -> Tokenizer:
    """Train a byte-pair encoding of bytes, as GPT-2's, on a file of UTF-8 text.

    Every text becomes symbols and, with nothing lost, text again. The same file gives the same
    tokenizer.

    Args:
        path: the file.
        symbols: size of the vocabulary, at least 256 and the special ones; a small text may not
            give as many, of which `len` tells.
        special: symbols that no text gives; the first has number 0.

    Raises:
        InputError: `symbols` is too few, or the file cannot be read.
        MissingPackageError: `tokenizers` is not installed.
    """
    check_count("symbols", symbols, least=256 + len(special))
    with needs("text"):
        import tokenizers
    text = read_text(path)
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(
        [text], symbols, min_frequency=2, show_progress=False, special_tokens=list(special)
    )
    return Tokenizer(tokenizers.Tokenizer.from_str(made.to_str()))
