"""Several processes, on one host or many, that train as one.

Each process runs the same script and calls `initialize` before anything else touches JAX; from then
on `jax.devices()` are those of all processes, and `nnlab.training.parallel` does the rest. SLURM,
Kubernetes, Open MPI (up to release 4) and Cloud TPUs are recognised; elsewhere three flags say the
same: where process 0 listens, how many processes there are, and which of them this one is.

A process whose peers do not arrive ends with one sentence. One whose peers die later is ended by
`jax.distributed` itself, about 100 seconds after it last heard from them; the launcher starts all
of them again, and they continue from the last checkpoint.
"""

import pickle
import socket
import threading
from collections.abc import Callable
from typing import TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from nnlab.errors import InputError

Value = TypeVar("Value")


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: int = 300,
) -> None:
    """Join this process to the others, and return when all are there.

    Without arguments the cluster is asked; under SLURM and Open MPI each process then has one GPU
    of its host. With all three arguments the cluster is not asked, and each process has all GPUs
    that it sees.

    Args:
        coordinator: "HOST:PORT" where the others reach process 0; the port must be free there.
        processes: the number of processes.
        process: the number of this process, from 0.
        timeout: seconds to wait for the others.

    Raises:
        InputError: the arguments do not fit together, the port is taken, no cluster is recognised,
            or a process does not arrive in time.
        RuntimeError: JAX has already computed something, or processes are joined already.
    """
    _check(coordinator, processes, process, timeout)
    if coordinator is not None and process == 0:
        _check_free(int(coordinator.rpartition(":")[2]))
    errors = []

    def join():
        try:
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                cluster_detection_method=None if coordinator is None else "deactivate",
                initialization_timeout=timeout + _GRACE,
            )
        except Exception as error:
            errors.append(error)

    # When it gives up, JAX ends the program with a stack trace; so it may not be first.
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    joining.join(timeout)
    if joining.is_alive():
        peers = "Not all processes" if processes is None else f"Not all {processes} processes"
        where = "" if coordinator is None else f" at {coordinator}"
        raise InputError(
            f"{peers} have met{where} in {timeout} seconds; each must be started, "
            "and reach the port of process 0."
        )
    for error in errors:
        if isinstance(error, ValueError) and coordinator is None:
            raise InputError(
                "No cluster was recognised (SLURM, Kubernetes, Open MPI, Cloud TPU); "
                "give --coordinator HOST:PORT, --processes and --process."
            ) from error
        raise error


def is_writer() -> bool:
    """Return whether this process writes what is written once, such as metrics: process 0 does."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Print a line once, in process 0."""
    if is_writer():
        print(line, flush=True)


def agree(value: Value) -> Value:
    """Return the value of process 0 in every process; all call it at the same place.

    Args:
        value: anything that pickle takes, such as a path, a time or a tree of NumPy arrays; the
            values of the other processes are ignored.
    """
    if jax.process_count() == 1:
        return value
    written = np.frombuffer(pickle.dumps(value), np.uint8) if is_writer() else np.zeros(0, np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(written))))
    written = np.resize(written, size) if is_writer() else np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(written)).tobytes())


def greatest(number: int) -> int:
    """Return the maximum of the processes' numbers, int32; all of them call it."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def by_writer(action: Callable[[], Value]) -> Value:
    """Run `action` in process 0; return its result, or raise its `InputError`, in every process."""

    def outcome() -> Value | InputError:
        try:
            return action()
        except InputError as error:
            return error

    agreed = agree(outcome() if is_writer() else None)
    if isinstance(agreed, InputError):
        raise agreed
    return cast(Value, agreed)


_GRACE = 3600  # seconds that JAX waits longer than we do


def _check(
    coordinator: str | None, processes: int | None, process: int | None, timeout: int
) -> None:
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [flag for flag, value in given.items() if value is None]
    if timeout < 1:
        raise InputError(f"timeout must be at least 1 second, not {timeout}.")
    if len(missing) == 3:
        return
    if coordinator is None or processes is None or process is None:
        raise InputError(
            f"{', '.join(given)} belong together; {' and '.join(missing)} must be given too."
        )
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(
            f"--coordinator must be HOST:PORT with a port from 1 to {2**16 - 1}, not {coordinator}."
        )
    if processes < 1:
        raise InputError(f"--processes must be at least 1, not {processes}.")
    if not 0 <= process < processes:
        raise InputError(
            f"--process must be from 0 to {processes - 1} for {processes} processes, not {process}."
        )


def _check_free(port: int) -> None:
    """Raise `InputError` if the port is taken, on which JAX would crash."""
    try:
        if socket.has_dualstack_ipv6():
            server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            server = socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"--coordinator must name a free port, but {port} cannot be listened on here: "
            f"{error.strerror}."
        ) from error
    server.close()
