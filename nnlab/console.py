"""How a command meets its user: standard output that may break, one sentence, an exit status."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from nnlab.errors import CheckpointError, DivergedError, InputError, Interrupted

# What is told of an error and its exit status before the process ends, such as other processes.
farewells: list[Callable[[BaseException, int], None]] = []


@contextlib.contextmanager
def console() -> Iterator[None]:
    """End the process as a command does when the block raises an error of `nnlab.errors`.

    Its sentence goes to standard error. In the block, standard output that cannot be written, since
    nobody reads it any more or the disk is full, is an `InputError`; where there is none, what is
    written is lost.

    Raises:
        SystemExit: with status 2 after an `InputError`, 1 after a `DivergedError` or a
            `CheckpointError`, 128 plus the number of the signal after an `Interrupted`, 130 after
            Ctrl-C; also 2 where JAX has not the platform that JAX_PLATFORMS asks for.
    """
    for descriptor in range(3):  # or the next file that is opened gets a standard stream's number
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    stream = sys.stdout or os.fdopen(1, "w", closefd=False)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # an encoding may lack µ or a user's letters
    output = _Output(stream)
    try:
        with contextlib.redirect_stdout(output):  # pyright: ignore[reportArgumentType]
            yield
            output.flush()
    except InputError as error:
        raise _said(error, 2) from error
    except (DivergedError, CheckpointError) as error:
        raise _said(error, 1) from error
    except Interrupted as error:
        raise _said(error, 128 + error.signal) from error
    except RuntimeError as error:  # JAX has no class of its own for it
        if not str(error).startswith(("Unable to initialize backend", "Unknown backend")):
            raise
        raise _said(error, 2) from error
    except KeyboardInterrupt as error:
        raise _left(error, 130) from error


def _said(error: Exception, status: int) -> SystemExit:
    with contextlib.suppress(OSError):
        print(error, file=sys.stderr, flush=True)
    return _left(error, status)


def _left(error: BaseException, status: int) -> SystemExit:
    for farewell in farewells:
        farewell(error, status)
    return SystemExit(status)


class _Output:
    """Standard output whose errors are sentences."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._sentence():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._sentence():
            self._stream.flush()

    @contextlib.contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is left in the buffer would be tried again at the end of the process.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise InputError(f"Standard output cannot be written: {error.strerror}.") from error
