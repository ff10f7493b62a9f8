"""Processes that read a stream's batches in advance, and how they end.

They end when the stream is closed or forgotten, and when their parent ends, even if that is killed.
A signal to the whole group, by which schedulers end a job and terminals pass on Ctrl-C, is the
parent's to answer: readers ignore it from their first instruction on. If one ends by itself, or is
killed, all end, and the stream says so.
"""

import collections
import itertools
import multiprocessing
import multiprocessing.context
import os
import signal
import threading
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from nnlab.errors import InputError, needs

READ_AHEAD = 2  # batches that each reader reads in advance

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_dataset: Any = None  # in a reader, what it reads, or why it cannot be had


class _Reader(multiprocessing.context.SpawnProcess):
    """A process that ignores `_SIGNALS`."""

    ended = False  # by its parent

    def start(self) -> None:
        """Start with the signals blocked, which the process inherits."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """End it, as its executor wants it when another one has died."""
        self.ended = not self.is_over
        self.kill()

    @property
    def is_over(self) -> bool:
        """Whether it has ended; the system may not have its exit status yet."""
        return bool(wait([self.sentinel], timeout=0))


class _Readers(multiprocessing.context.SpawnContext):
    """Makes readers, and remembers them. They are not forked, which JAX does not survive."""

    def __init__(self):
        self.started: list[_Reader] = []

    def Process(self, *args: Any, **options: Any) -> _Reader:
        self.started.append(_Reader(*args, **options))
        return self.started[-1]

    def cause(self) -> str:
        """Say how the first one that nobody ended has ended."""
        first = next((each for each in self.started if each.is_over and not each.ended), None)
        for _ in range(100):  # another thread may be asking for the status at this moment
            if first is None or first.exitcode is not None:
                break
            time.sleep(0.01)
        code = None if first is None else first.exitcode
        if not code:
            return "ended"
        if code > 0:
            return (
                f"ended with status {code}; a script whose streams have workers needs"
                ' `if __name__ == "__main__":`, since each of them imports it'
            )
        short = ", as the system does where memory is short" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{short}"


def read(dataset: Any, first: int, workers: int) -> Generator[Any, None, None]:
    """Yield `dataset[first]`, `dataset[first + 1]` and so on, which processes read in advance.

    grain's own `mp_prefetch` is slow to close: a worker with a batch larger than a pipe waits for
    it to be taken, and closing takes 25 s for each such worker.

    Args:
        dataset: what cloudpickle can serialise.
        first: the number of the first element.
        workers: the number of processes.

    Raises:
        InputError: the dataset cannot be sent to a process, or a process has ended.
    """
    with needs("data"):
        import cloudpickle

    try:
        sent = cloudpickle.dumps(dataset)
    except Exception as error:  # of whatever it holds
        raise InputError(
            "The source and the transform of a stream with workers must be what cloudpickle can"
            f" serialise, but it says: {error}."
        ) from error
    readers = _Readers()
    executor = ProcessPoolExecutor(workers, readers, _start, (sent,))
    try:
        numbers = itertools.count(first)
        ahead = collections.deque(
            executor.submit(_element, next(numbers)) for _ in range(workers * READ_AHEAD)
        )
        while True:
            element = ahead.popleft().result()
            ahead.append(executor.submit(_element, next(numbers)))
            yield element
    except BrokenProcessPool as error:
        raise InputError(f"A process that reads the stream {readers.cause()}.") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start(dataset: bytes) -> None:
    """Prepare a reader."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    parent = multiprocessing.parent_process()

    def watch():
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    global _dataset
    try:
        import cloudpickle

        _dataset = cloudpickle.loads(dataset)
    except Exception as error:  # of whatever it holds
        _dataset = InputError(
            "The source or the transform of a stream cannot be had in a process that reads it:"
            f" {type(error).__name__}: {error}."
        )


def _element(number: int) -> Any:
    if isinstance(_dataset, InputError):
        raise _dataset
    return _dataset[number]
