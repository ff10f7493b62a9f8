"""Several processes, on one host or many, that train as one.

Each process runs the same script and calls `initialize` before anything else touches JAX; from then
on `jax.devices()` are those of all processes, and `nnlab.training.parallel` does the rest. SLURM,
Kubernetes, Open MPI (up to release 4) and Cloud TPUs are recognised; elsewhere three flags say the
same: where process 0 listens, how many processes there are, and which of them this one is.

A process whose peers do not arrive ends with one sentence, and so does one whose peers die later,
within 15 seconds (`nnlab.runs.peers`): the launcher starts all of them again, and they continue
from the last checkpoint.
"""

import contextlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nnlab.errors import InputError
from nnlab.runs.peers import Watch, relay
from nnlab.runs.roll_call import call_roll

Value = TypeVar("Value")

_PER_PROCESS = ("coordinator", "process", "data_dir", "workers", "wait")  # fields that may differ


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: int | None = None,
) -> None:
    """Join this process to the others, and return when all are there.

    Without arguments the cluster is asked; under SLURM and Open MPI each process then has one GPU
    of its host. With all three arguments the cluster is not asked, and each process has all GPUs
    that it sees.

    JAX looks for its devices here, so what is set of them comes before.

    While a process waits, a line on standard error says for whom. From then on, if one of them
    dies, the others end within 15 seconds, with exit status 1 and a sentence that names it and the
    checkpoint from which the training goes on.

    Args:
        coordinator: "HOST:PORT" where the others reach process 0; the port must be free there.
        processes: the number of processes.
        process: the number of this process, from 0.
        timeout: seconds to wait for the others, by default 15 where `coordinator` is of this
            machine alone, such as "localhost:4567", and 300 elsewhere.

    Raises:
        InputError: the arguments do not fit together, the port is taken, no cluster is recognised,
            a process does not arrive in time, or they differ in their number or versions.
        RuntimeError: JAX has already computed something, or processes are joined already.
    """
    _check(coordinator, processes, process, timeout)
    local_devices: Sequence[int] | None = None
    if coordinator is None:
        coordinator, processes, process, local_devices = _asked_of_cluster(timeout or _FAR)
    assert coordinator is not None and processes is not None and process is not None
    host, _, port = coordinator.rpartition(":")
    if timeout is None:
        timeout = _NEAR if host.startswith("127.") or host in ("localhost", "[::1]") else _FAR
    if jax.distributed.is_initialized():
        raise RuntimeError("initialize was called before; expected one call in each process.")
    peers = call_roll(coordinator, processes, process, timeout)
    if peers:
        Watch(process, processes, peers).say_goodbye()
    if any(name.lower().endswith("_proxy") for name in os.environ):
        # A proxy for the web is none for processes of a cluster, of which JAX only warns.
        direct = os.environ.get(_DIRECT) or os.environ.get("no_proxy")
        os.environ[_DIRECT] = ",".join(filter(None, [direct, "127.0.0.1", host.strip("[]")]))
        jax.config.update("jax_check_proxy_envs", False)
    if process > 0:
        coordinator = f"127.0.0.1:{relay(host.strip('[]'), int(port))}"
    jax.distributed.initialize(
        coordinator, processes, process, local_devices, cluster_detection_method="deactivate"
    )
    if jax.default_backend() == "cpu":
        with _without(b"[Gloo] Rank "):
            _connect()


def _connect() -> None:
    """Use one device of each process, then all devices: Gloo prints a line for each such group."""
    greatest(0)
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))
    one_each = jax.make_array_from_callback(
        (jax.device_count(),), everywhere, lambda _: np.ones(1, np.int32)
    )
    jax.block_until_ready(jax.jit(jnp.sum)(one_each))


@contextlib.contextmanager
def _without(beginning: bytes) -> Iterator[None]:
    """Keep lines of standard output that begin so from it, those of C++ too."""
    if sys.stdout is not None:
        sys.stdout.flush()
    with tempfile.TemporaryFile() as caught, contextlib.closing(os.fdopen(os.dup(1), "wb")) as out:
        os.dup2(caught.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(out.fileno(), 1)
            caught.seek(0)
            out.writelines(line for line in caught if not line.startswith(beginning))


def _asked_of_cluster(timeout: int) -> tuple[str, int, int, Sequence[int] | None]:
    """Return what JAX would ask of the cluster: address, processes, process, local devices."""
    from jax._src.clusters import ClusterEnv  # the public function does not tell them

    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    ids = [int(each) for each in os.environ.get("JAX_LOCAL_DEVICE_IDS", "").split(",") if each]
    found = ClusterEnv.auto_detect_unset_distributed_params(
        address, None, None, ids or None, None, timeout
    )
    if None in found[:3]:
        raise InputError(
            "No cluster was recognised (SLURM, Kubernetes, Open MPI, Cloud TPU); "
            "give --coordinator HOST:PORT, --processes and --process."
        )
    return cast(tuple[str, int, int, Sequence[int] | None], found)


def is_writer() -> bool:
    """Return whether this process writes what is written once, such as metrics: process 0 does."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Print a line once, in process 0."""
    if is_writer():
        print(line, flush=True)


def agree(value: Value, process: int = 0) -> Value:
    """Return the value of one process in every process; all call it at the same place.

    Args:
        value: anything that pickle takes, such as a path, a time or a tree of NumPy arrays; the
            values of the other processes are ignored.
        process: whose value it is.
    """
    if jax.process_count() == 1:
        return value
    mine = jax.process_index() == process
    written = np.frombuffer(pickle.dumps(value) if mine else b"", np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(written)), mine))
    written = np.resize(written, size) if mine else np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(written, mine)).tobytes())


def check_same(values: Mapping[str, Any]) -> None:
    """Raise `InputError` in every process if one was given other values than process 0.

    Args:
        values: fields of a configuration; those that are a process's own may differ.
    """
    if jax.process_count() == 1:
        return
    mine = {name: repr(each) for name, each in values.items() if name not in _PER_PROCESS}
    first = agree(mine)
    differ = [
        f"{name} is {mine.get(name, 'absent')} and {first.get(name, 'absent')}"
        for name in sorted(mine.keys() | first.keys())
        if mine.get(name) != first.get(name)
    ]
    if (odd := greatest(jax.process_index() if differ else 0)) > 0:
        raise InputError(
            f"Process {odd} and process 0 have different configurations: "
            f"{', '.join(agree(differ, odd))}; expected the same in all."
        )


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


_DIRECT = "no_grpc_proxy"  # hosts that gRPC, which JAX uses, reaches without a proxy
_NEAR, _FAR = 15, 300  # seconds to wait


def _check(
    coordinator: str | None, processes: int | None, process: int | None, timeout: int | None
) -> None:
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [flag for flag, value in given.items() if value is None]
    if timeout is not None and timeout < 1:
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
