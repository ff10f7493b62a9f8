"""From a command line to a call: what every experiment script does the same way.

A script holds a docstring, a frozen dataclass, `main(config)` and `run(main, Config)`. The
dataclass checks itself in `__post_init__` with the functions below, because the parser accepts
`--learning-rate nan`. Whatever the user gave wrongly, here or later in `main`, is an `InputError`;
it ends the script with that one sentence on standard error and exit status 2, not with a traceback.

    @dataclass(frozen=True)
    class Config:
        learning_rate: float = 0.1

        def __post_init__(self):
            check_positive("learning_rate", self.learning_rate)

    if __name__ == "__main__":
        run(main, Config)
"""

import functools
import logging
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, TypeVar

from nnlab.errors import (
    CheckpointError,
    DivergedError,
    InputError,
    Interrupted,
)
from nnlab.runs import signals

Config = TypeVar("Config")


def run(
    main: Callable[[Config], object], config_type: type[Config], args: Sequence[str] | None = None
) -> None:
    """Calls `main` with a `config_type` made from the command line.

    The description shown by `--help` is the docstring of the module that defines `config_type`.
    Returns when `main` does.

    Args:
        main: the script, a function of one configuration.
        config_type: a frozen dataclass; each field is a flag, its comment or docstring the help.
        args: the command line without the program's name; None reads `sys.argv`.

    Raises:
        SystemExit: with status 2 after an `InputError` or a flag that does not parse, 1 after a
            `DivergedError` or a `CheckpointError`, 128 plus the number of the signal after an
            `Interrupted`, 130 after Ctrl-C, 0 after `--help`.
    """
    _keep_to_sentences()
    try:
        config = _parse(config_type, args)
        with signals.immediate():  # but `nnlab.runs.fit` saves its state first
            main(config)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    except (DivergedError, CheckpointError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error
    except Interrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(128 + error.signal) from error
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error


@functools.cache  # once a process
def _keep_to_sentences() -> None:
    """What Orbax and TensorStore tell with tracebacks reaches the user as the one of an error."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        # A read or write that Orbax gave up after an error in another one has come to its end.
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _parse(config_type: type[Config], args: Sequence[str] | None) -> Config:
    import tyro

    # tyro draws a box around a ValueError from a class that it builds, but lets one through from
    # a function. The empty name keeps the function's parameter out of the flags.
    def build(config):
        return config

    build.__annotations__["config"] = Annotated[config_type, tyro.conf.arg(name="")]
    description = sys.modules[config_type.__module__].__doc__
    try:
        return tyro.cli(build, description=description, args=args)
    except (AssertionError, OSError) as error:
        # An unknown shell or a file that cannot be written, given to --tyro-write-completion.
        raise InputError(str(error)) from error


def check_positive(name: str, value: float) -> None:
    """Raises `InputError` unless the field `name` holds a number above zero and below infinity."""
    if not 0 < value < float("inf"):  # NaN fails every comparison
        raise InputError(f"{_flag(name)} must be a positive finite number, not {value}.")


def check_positive_integer(name: str, value: int) -> None:
    """Raises `InputError` unless the field `name` holds an integer from 1 to 2^31 - 1 (int32)."""
    if not (_is_integer(value) and 0 < value < 2**31):
        raise InputError(f"{_flag(name)} must be an integer from 1 to {2**31 - 1}, not {value}.")


def check_count(name: str, value: int) -> None:
    """Raises `InputError` unless the field `name` holds an integer from 0 to 2^31 - 1."""
    if not (_is_integer(value) and 0 <= value < 2**31):
        raise InputError(f"{_flag(name)} must be an integer from 0 to {2**31 - 1}, not {value}.")


def check_fraction(name: str, value: float) -> None:
    """Raises `InputError` unless the field `name` holds a number from 0 to 1, both included."""
    if not 0 <= value <= 1:
        raise InputError(f"{_flag(name)} must be a number from 0 to 1, not {value}.")


def check_seed(name: str, value: int) -> None:
    """Raises `InputError` unless the field `name` holds a seed, an integer in [0, 2^32)."""
    if not (_is_integer(value) and 0 <= value < 2**32):
        raise InputError(f"{_flag(name)} must be an integer from 0 to {2**32 - 1}, not {value}.")


def check_choices(name: str, values: Collection[str], choices: Collection[str]) -> None:
    """Raises `InputError` unless the field `name` holds some of the choices, each once."""
    wrong = [value for value in values if value not in choices]
    if wrong or not values or len(set(values)) < len(values):
        shown = (value if value.isprintable() else repr(value) for value in wrong or values)
        given = ", ".join(shown) or "nothing"
        raise InputError(f"{_flag(name)} must be some of {', '.join(choices)}, not {given}.")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
