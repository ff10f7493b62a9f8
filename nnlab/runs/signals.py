"""SIGTERM, SIGINT and SIGHUP as a question that a training loop asks between two of its steps.

A scheduler takes a machine away with SIGTERM, a user with Ctrl-C, and a terminal or a connection
that is closed with SIGHUP, unless it is ignored, as under `nohup`. While a compiled program runs no
Python code does, so programs are kept short, and where one cannot be (compilation, which changes
nothing that would have to be saved) the signals have their immediate effect.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], signal.Signals | None]]:
    """Hold the signals back; yield a function that returns the one that has come, or None.

    A second signal takes effect at once. Outside the main thread, where Python does not let signals
    be handled, nothing is held back.
    """
    came: list[signal.Signals] = []

    def note(number, frame):
        came.append(signal.Signals(number))
        for each, handler in before.items():
            signal.signal(each, handler)

    with _handlers(note) as before:
        yield lambda: came[0] if came else None


@contextlib.contextmanager
def immediate() -> Iterator[None]:
    """Let the signals end the process at once, even within a call into compiled code."""
    with _handlers(signal.SIG_DFL):
        yield


@contextlib.contextmanager
def _handlers(handler) -> Iterator[dict]:
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for each in _SIGNALS:
                if each is signal.SIGHUP and signal.getsignal(each) is signal.SIG_IGN:
                    continue
                before[each] = signal.signal(each, handler)
        yield before
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)
