"""What can go wrong without a defect in the code; scripts print the message alone.

The core needs jax, flax, optax and chex. Whatever else a function imports belongs to an extra of
`pyproject.toml`, and `needs` says which one to install.
"""

import contextlib
import importlib.metadata
import json
import operator
import shlex
import signal
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something that the user gave cannot be used; a script ends with exit status 2.

    The message is one sentence that names what was given and what was expected.
    """


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise `InputError` unless the argument `name` is an integer of at least `least`."""
    try:
        holds = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:  # NaN fails every comparison, so that a loop up to it never ends
        holds = False
    if not holds:
        raise InputError(f"{name} must be an integer of at least {least}, not {value!r}.")


def check_maker(name: str, value: Any, such_as: str) -> None:
    """Raise `InputError` unless `value` can be called, as what makes a layer can."""
    if not callable(value):
        expected = f"expected what makes a layer, such as {such_as}"
        raise InputError(f"{name} is {value!r:.80}, {expected}.")


def installing(extra: str) -> str:
    """Return the command that installs an extra of nnlab, from where this one has come.

    nnlab is on no package index: it is a checkout, or installed from one or from a repository.
    """
    root: Path | None = Path(__file__).resolve().parents[1]
    option = "-e "
    if not (root / "pyproject.toml").is_file():
        root, option = None, ""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            found = importlib.metadata.distribution("nnlab").read_text("direct_url.json")
            source = json.loads(found or "{}")
            url = urllib.parse.urlsplit(source.get("url", ""))
            if "vcs_info" in source:
                what = f"nnlab[{extra}] @ {source['vcs_info']['vcs']}+{source['url']}"
                return f"pip install {shlex.quote(what)}"
            if url.scheme == "file":
                root = Path(urllib.parse.unquote(url.path))
    if root is None or not (root / "pyproject.toml").is_file():
        return f"pip install '.[{extra}]' in a checkout of nnlab"
    return f"pip install {option}{shlex.quote(f'{root}[{extra}]')}"


class MissingPackageError(InputError, ImportError):
    """A package that only some users need is not installed; a script ends with exit status 2.

    The message names the package and the extra of nnlab that installs it.
    """


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import optional packages in this block, or say which extra of nnlab brings them.

        with needs("figures"):
            import matplotlib

    Raises:
        MissingPackageError: a package imported in the block is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise MissingPackageError(f"{package} is not installed: {installing(extra)}.") from error


class DivergedError(RuntimeError):
    """A number is not finite any more; a script ends with exit status 1.

    The message names the step, what is not finite, the configuration and the last good checkpoint.
    """


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or is damaged; a script ends with exit status 1.

    The message names its path and, if there is one, the last good checkpoint.
    """


class Interrupted(RuntimeError):
    """A run was asked to stop, and stopped; a script ends with exit status 128 + `signal`.

    The message names the checkpoint from which it goes on.
    """

    def __init__(self, message: str, signal: signal.Signals):
        super().__init__(message)
        self.signal = signal
