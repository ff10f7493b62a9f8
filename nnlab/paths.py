"""Paths as users give them: where they lead, and one sentence where they cannot be used.

A shell expands `~` at the beginning of a word, but not in `--out=~/run`, in a configuration or in a
call of Python; so every path that nnlab is given goes through `user_path` or `checkpoint_path`.
What the system then says in reading or writing becomes a sentence by `reading` and `writing`.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from nnlab.errors import InputError

_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")
# TensorStore compares the names of a checkpoint's arrays with a pattern that the path is a part of,
# and `etils` reads these folders as buckets of a cloud.
_UNREADABLE = re.compile(r"\\|\[.*\]", re.DOTALL)
_BUCKETS = ("/gs/", "/s3/", "/az/", "/hf/")


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return the path that a user means; `~` and `~name` at its beginning are home folders.

    Raises:
        InputError: it is empty, a URL, or no path at all, or there is no such home folder.
    """
    text = os.fspath(path)
    if not text:
        raise InputError("A path is empty, expected that of a file or folder.")
    if "\0" in text:
        raise InputError(f"The path {text!r} holds a null character, which no path can hold.")
    if _URL.match(text):
        raise InputError(f"{text} is a URL, expected a path on this machine.")
    path = Path(text)
    if not text.startswith("~"):  # "./~" is a folder of that name, but `Path` drops the "./"
        return path.absolute() if path.parts[:1] and path.parts[0][0] == "~" else path
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"The home folder in {text} is not known; expected another path.") from (
            error
        )


def checkpoint_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path that a user means for a checkpoint.

    Raises:
        InputError: as for `user_path`, or a checkpoint there could not be read again.
    """
    found = user_path(path).absolute()
    if _UNREADABLE.search(str(found)):
        raise InputError(
            f"{found} cannot hold checkpoints, which Orbax could not read again; expected a path"
            " without brackets [ ] and backslashes."
        )
    if str(found).startswith(_BUCKETS):
        raise InputError(f"{found} cannot hold checkpoints: Orbax takes it for a cloud's folder.")
    try:
        str(found).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{printable(found)} cannot hold checkpoints; expected a path in UTF-8."
        ) from error
    return found


def printable(path: str | os.PathLike[str]) -> str:
    """Return the path as a text that any file and terminal takes."""
    return os.fspath(path).encode(errors="backslashreplace").decode()


def reading(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[None]:
    """Turn an `OSError` of the block into an `InputError`: "PATH cannot be read: REASON."."""
    return _said(path, "read")


def writing(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[None]:
    """Turn an `OSError` of the block into an `InputError`: "PATH cannot be written: REASON."."""
    return _said(path, "written")


@contextlib.contextmanager
def _said(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be {what}: {reason(error)}.") from error


def reason(error: OSError) -> str:
    """Return the system's words for what went wrong."""
    return error.strerror or str(error).rstrip(".") or type(error).__name__
