"""Text as arrays: a vocabulary of characters, and windows in the order of the training.

Truncated back-propagation reads a text as several streams side by side: the batch of step k is
window k of every stream, and window k + 1 goes on from the state at its end.
"""

import dataclasses
import os
from collections.abc import Iterable

import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The characters of a text; a symbol is the place of a character among them."""

    characters: str

    @classmethod
    def of(cls, text: str) -> "Vocabulary":
        """Make the vocabulary of all characters of `text`, sorted.

        Raises:
            InputError: the text is empty.
        """
        if not text:
            raise InputError("a vocabulary needs at least one character of text, not none.")
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Turn a text into symbols, int32 [characters].

        Raises:
            InputError: a character is not in the vocabulary; the message names it and its place.
        """
        places = {character: place for place, character in enumerate(self.characters)}
        found = np.fromiter((places.get(character, -1) for character in text), np.int32, len(text))
        if (found < 0).any():
            first = int(np.argmin(found))
            raise InputError(
                f"character {text[first]!r} at place {first} is not among the"
                f" {len(self)} characters that the network knows."
            )
        return found

    def decode(self, symbols: Iterable[int]) -> str:
        """Turn symbols into text."""
        return "".join(self.characters[symbol] for symbol in symbols)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a whole file of UTF-8 text, without its byte order mark if it has one.

    Raises:
        InputError: there is no such file, it is empty, or it is not UTF-8.
    """
    path = user_path(path)
    try:
        with reading(path):
            text = path.read_text(encoding="utf-8-sig")
    except UnicodeError as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    if not text:
        raise InputError(f"{path} is empty; expected a text.")
    return text


def windows(symbols: np.ndarray, streams: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a text into inputs and labels, [steps × streams, length], for training in order.

    The text is cut into `streams` pieces of equal length, and rows k × streams to (k + 1) × streams
    are window k of all pieces. A label is the symbol after its input. Symbols at the end of a piece
    that do not fill a window are left out, less than `streams` × (`length` + 1) in all. Feed them
    with `in_memory(…, shuffle=False)`.

    Raises:
        InputError: there are not enough symbols for one window.
    """
    steps = (len(symbols) // streams - 1) // length
    if steps < 1:
        raise InputError(
            f"{len(symbols)} symbols are too few for {streams} streams of windows of {length}; "
            f"expected at least {streams * (length + 1)}."
        )
    piece = len(symbols) // streams
    rows = symbols[: streams * piece].reshape(streams, piece)

    def cut(first: int) -> np.ndarray:
        part = rows[:, first : first + steps * length].reshape(streams, steps, length)
        return part.swapaxes(0, 1).reshape(steps * streams, length)

    return cut(0), cut(1)
