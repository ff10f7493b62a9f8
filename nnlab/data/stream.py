"""Batches of a data set that memory does not hold, read ahead of the training that eats them.

`Stream` draws the order of the records with grain, epoch by epoch, reads a whole batch at a time
and can do so in worker processes. The batch of a step depends on the seed and the step alone: not
on the number of workers, and not on the step that a resumed run starts from. `to_device` moves
batches to the accelerators while they compute.

    source = record_source("cifar10")
    transform = standardizer(*record_statistics(source))
    stream = Stream(source, 128, seed=0, workers=2, transform=transform)
    with contextlib.closing(to_device(stream.batches(int(state.step)))) as batches:
        for images, labels in batches:
            ...

Without a transform a batch travels as bytes, a quarter of the traffic; `to_float` and `standardize`
then belong in the jitted step. A script that uses workers needs `if __name__ == "__main__":`, for
they import it anew.

Reference:
    https://google-grain.readthedocs.io/en/latest/tutorials/dataset_basic_tutorial.html.
"""

import collections
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax
import numpy as np

from nnlab.data.access import RandomAccess
from nnlab.errors import InputError, needs

READ_AHEAD = 2  # batches, of each worker

_dataset: Any = None  # of a worker process, which has one

HostBatches = Generator[tuple[Any, Any], None, None]  # inputs and labels, trees of NumPy arrays
DeviceBatches = Generator[tuple[Any, Any], None, None]  # the same, of JAX arrays


@dataclasses.dataclass(frozen=True)
class Stream:
    """What to read, in which order, and who reads it.

    Attributes:
        source: the records, each an input and its label, arrays or trees of them. A source of your
            own needs only `len(source)` and `source[i]`, as any random access data source of grain;
            with `gather` it is faster.
        batch_size: records a step, of all processes together.
        seed: of the order, in [0, 2^32). Every epoch has an order of its own.
        workers: processes that read and transform; with 0 a thread of this one does.
        transform: applied to the inputs of a batch where they are read, such as images [rows,
            height, width, channels], or a tree of arrays [rows, ...]; a function of nothing else,
            that cloudpickle can send.
        process, processes: which rows of every batch this process reads: the p-th of equal parts.

    Raises:
        InputError: a number is out of range, or the processes cannot share a batch equally.
    """

    source: RandomAccess
    batch_size: int
    seed: int
    workers: int = 0
    transform: Callable[[Any], Any] | None = None
    process: int = dataclasses.field(default_factory=jax.process_index)
    processes: int = dataclasses.field(default_factory=jax.process_count)

    def __post_init__(self):
        for name, least in (("batch_size", 1), ("seed", 0), ("workers", 0), ("processes", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.seed >= 2**32:
            raise InputError(f"seed is {self.seed}, expected at most {2**32 - 1}")
        if not 0 <= self.process < self.processes:
            raise InputError(f"process is {self.process}, expected 0 to {self.processes - 1}")
        if self.batch_size % self.processes:
            raise InputError(
                f"batch_size is {self.batch_size}, expected a multiple of the {self.processes} "
                "processes"
            )

    @property
    def images(self) -> int:
        """How many records an epoch draws from."""
        return len(self.source)

    @property
    def steps_per_epoch(self) -> int:
        """How many full batches there are; the records left over differ from epoch to epoch.

        Raises:
            InputError: not one.
        """
        if self.batch_size > self.images:
            raise InputError(
                f"--batch-size must be at most the {self.images} examples, not {self.batch_size}."
            )
        return self.images // self.batch_size

    def batches(self, first_step: int = 0) -> HostBatches:
        """This process's rows of the batches of `first_step`, `first_step + 1` and so on, for ever.

        Closing the generator ends the workers; so does its last reference going away.

        Returns:
            Inputs [batch_size / processes, ...] in the dtype of the records, such as uint8 images,
            or what the transform makes of them, and labels [batch_size / processes, ...]; each has
            the structure of a record. Integers in labels become int32, and so do booleans if they
            are the whole label; all else keeps its dtype.

        Raises:
            InputError: there is not one full batch, the step is negative, or, once it runs, a
                record cannot be read.
        """
        with needs("data"):
            import grain

        if first_step < 0:
            raise InputError(f"first_step is {first_step}, expected at least 0")
        _ = self.steps_per_epoch  # or grain repeats nothing
        rows = self.batch_size // self.processes
        mine = slice(self.process * rows, (self.process + 1) * rows)
        order = grain.MapDataset.range(self.images).seed(self.seed).shuffle()
        steps = order.batch(self.batch_size, drop_remainder=True).repeat()
        read = functools.partial(_read, self.source, self.transform, mine)
        dataset = steps.map(read)
        if self.workers:
            return _by_processes(dataset, first_step, self.workers)
        return _by_thread(dataset, first_step)


def to_device(
    batches: Iterable[tuple[Any, Any]],
    sharding: jax.sharding.NamedSharding | None = None,
    buffer: int = 2,
) -> DeviceBatches:
    """Start the transfer of batches, any trees of arrays, before they are asked for.

    Args:
        batches: as from `Stream.batches`; closed with the result.
        sharding: where the rows of inputs and labels go: `P("data")` on the mesh. The rows
            of all processes make one global array. None puts them on the default device.
        buffer: batches on the device at once, the one handed out among them.

    Raises:
        InputError: the buffer is not at least 1.
    """
    if buffer < 1:
        raise InputError(f"buffer is {buffer}, expected at least 1")
    if sharding is None:
        return _ahead(batches, jax.device_put, buffer)
    return _ahead(
        batches, functools.partial(jax.make_array_from_process_local_data, sharding), buffer
    )


def _ahead(batches: Iterable, put: Callable[[np.ndarray], jax.Array], buffer: int) -> DeviceBatches:
    waiting = collections.deque()
    try:
        for inputs, labels in batches:
            waiting.append(jax.tree.map(put, (inputs, labels)))
            if len(waiting) == buffer:
                yield waiting.popleft()
        yield from waiting
    finally:
        if isinstance(batches, Generator):
            batches.close()


def _by_thread(dataset: Any, first_step: int) -> HostBatches:
    """The elements of a grain dataset, which a thread reads ahead."""
    import grain

    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=READ_AHEAD)
    iterator = iter(dataset[first_step:].to_iter_dataset(ahead))
    try:
        yield from iterator
    finally:
        iterator.close()


def _by_processes(dataset: Any, first_step: int, workers: int) -> HostBatches:
    """The elements of a grain dataset, which processes read ahead.

    Not by grain's `mp_prefetch`: its workers wait, when closed, for somebody to take a batch larger
    than a pipe, and whoever closes them waits 25 s for each.
    """
    with needs("data"):
        import cloudpickle

    executor = ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),  # jax does not survive a fork
        _start_worker,
        (cloudpickle.dumps(dataset),),
    )
    try:
        steps = itertools.count(first_step)
        ahead = collections.deque(
            executor.submit(_element, next(steps)) for _ in range(workers * READ_AHEAD)
        )
        while True:
            element = ahead.popleft().result()
            ahead.append(executor.submit(_element, next(steps)))
            yield element
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker(dataset: bytes) -> None:
    """Prepares this process, which ends with the one that started it, killed or not."""
    import cloudpickle

    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    global _dataset
    _dataset = cloudpickle.loads(dataset)


def _element(step: int) -> tuple[Any, Any]:
    return _dataset[step]


def _read(
    source: RandomAccess,
    transform: Callable[[Any], Any] | None,
    rows: slice,
    indices: np.ndarray,
) -> tuple[Any, Any]:
    """Read the rows of a batch whose records have these indices [batch_size]."""
    gather = getattr(source, "gather", None)
    if gather is not None:
        inputs, labels = gather(indices[rows])
    else:
        records = [source[int(i)] for i in indices[rows]]
        inputs, labels = zip(*records, strict=True)
        inputs = jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)
        # A boolean counts as a number if it is all of the label; a mask in a tree stays a mask.
        integers = "iub" if jax.tree_util.all_leaves(labels) else "iu"

        def joined(*leaves):
            stacked = np.stack(leaves)
            return np.array(leaves, np.int32) if stacked.dtype.kind in integers else stacked

        labels = jax.tree.map(joined, *labels)
    return inputs if transform is None else transform(inputs), labels
