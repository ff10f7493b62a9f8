"""From a command line to a call: what every experiment script does the same way.

A script holds a docstring, a configuration (a frozen dataclass, mostly a `nnlab.runs.Run`),
`main(config)`, and at its end

    if __name__ == "__main__":
        run(main, Config)

Whatever the user got wrong, in a flag or later in `main`, is an `InputError`; it ends the script
with that one sentence on standard error and exit status 2, not with a traceback.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, TypeVar

from nnlab.console import console
from nnlab.errors import InputError, needs
from nnlab.paths import reading, user_path
from nnlab.runs import signals
from nnlab.runs.environment import program

Config = TypeVar("Config")
_asked: list[type] | None = None  # in `configuration_of`, where `run` leaves what it is given


def run(
    main: Callable[[Config], object], config_type: type[Config], args: Sequence[str] | None = None
) -> None:
    """Call `main` with a `config_type` made from the command line.

    The description shown by `--help` is the docstring of the module that defines `config_type`.
    Returns when `main` does.

    Args:
        main: the script, a function of one configuration.
        config_type: a frozen dataclass; each field is a flag, its comment or docstring the help.
        args: the command line without the program's name; None reads `sys.argv`.

    Raises:
        SystemExit: after an error of `nnlab.errors` or Ctrl-C, as `nnlab.console` says; with status
            2 after a flag that does not parse, and 0 after `--help`.
    """
    if _asked is not None:
        _asked.append(config_type)
        raise _Asked
    _keep_to_sentences()
    with console():
        config = parse(config_type, args)
        with signals.immediate():  # but `nnlab.runs.fit` saves its state first
            main(config)


class _Asked(BaseException):
    """Ends a script at its call of `run`."""


@contextlib.contextmanager
def configuration_of(path: str | os.PathLike[str]) -> Iterator[type]:
    """Execute a script up to its call of `run`, and yield the type of its configuration.

    In the block the script is the module `__main__`, as its annotations and `parse` need it.

    Raises:
        InputError: there is no such script, it raises an error, or it does not call `run`.
    """
    global _asked
    path = user_path(path)
    with reading(path), path.open("rb"):
        pass
    spec = importlib.util.spec_from_file_location("__main__", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a script of Python; expected a file NAME.py.")
    module = importlib.util.module_from_spec(spec)
    before, found = sys.modules["__main__"], []
    sys.modules["__main__"], _asked = module, found
    sys.path.insert(0, str(path.absolute().parent))  # where the script's helpers are
    try:
        try:
            spec.loader.exec_module(module)
        except (_Asked, SystemExit):
            pass
        except Exception as error:
            raise InputError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
        finally:
            _asked = None
        if not found:
            raise InputError(
                f"{path} does not call nnlab.runs.script.run; expected a script that ends in"
                " run(main, Config)."
            )
        yield found[0]
    finally:
        sys.path.remove(str(path.absolute().parent))
        sys.modules["__main__"] = before


@functools.cache  # once a process
def _keep_to_sentences() -> None:
    """Silence the tracebacks that Orbax and TensorStore log: the user gets the error's sentence."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        # A read or write that Orbax gave up after an error in another one has come to its end.
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def parse(config_type: type[Config], args: Sequence[str] | None) -> Config:
    """Make a `config_type` from a command line, as `run` does.

    Raises:
        InputError: a value is not one that its field allows.
        SystemExit: with status 2 after a flag that does not parse, and 0 after `--help`.
    """
    with needs("runs"):
        import tyro

    # tyro draws a box around a ValueError from a class that it builds, but lets one through from
    # a function. The empty name keeps the function's parameter out of the flags.
    def build(config):
        return config

    build.__annotations__["config"] = Annotated[config_type, tyro.conf.arg(name="")]
    description = sys.modules[config_type.__module__].__doc__ or ""
    description = "\n\n".join(map(_paragraph, description.split("\n\n")))
    try:
        return tyro.cli(build, prog=program(), description=description, args=args)
    except (AssertionError, OSError) as error:
        # An unknown shell or a file that cannot be written, given to --tyro-write-completion.
        raise InputError(str(error)) from error


def _paragraph(text: str) -> str:
    """Prepare a paragraph for tyro, which joins lines that begin with a letter, and no others."""
    if "===" in text:  # a table
        return textwrap.indent(text, " ")
    return text if text.startswith(" ") else " ".join(text.split())
