"""Batches of a data set too large for memory, read while the training computes.

`Stream` shuffles the records with grain, anew in each epoch, and reads whole batches, in worker
processes if asked. The batch of a step depends on the seed and the step alone, not on the number of
workers or on the step from which a run resumes. `to_device` transfers batches to the accelerators
while they compute.

    source = record_source("cifar10")
    transform = standardizer(*record_statistics(source))
    stream = Stream(source, 128, seed=0, workers=2, transform=transform)
    with contextlib.closing(to_device(stream.batches(int(state.step)))) as batches:
        for images, labels in batches:
            ...

Without a transform images travel as bytes, a quarter of the traffic; `to_float` and `standardize`
then belong in the jitted step. A script that uses workers needs `if __name__ == "__main__":`, since
each worker imports the script.

References:
    https://google-grain.readthedocs.io/en/latest/tutorials/dataset_basic_tutorial.html.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterable
from typing import Any

import jax
import numpy as np

from nnlab.data import readers
from nnlab.data.access import RandomAccess
from nnlab.errors import InputError, check_count, needs

HostBatches = Generator[tuple[Any, Any], None, None]  # inputs and labels, trees of NumPy arrays
DeviceBatches = Generator[tuple[Any, Any], None, None]  # the same, of JAX arrays


@dataclasses.dataclass(frozen=True)
class Stream:
    """A data set, the order in which to read it, and the processes that read.

    Attributes:
        source: the records, pairs of an input and its label, each an array or a tree of arrays. A
            source of your own needs only `len(source)` and `source[i]`, as grain's random access
            data sources have them; `source.gather(indices)`, which reads a batch, is faster.
        batch_size: records per step, of all processes together.
        seed: seed of the order, in [0, 2^32). Every epoch has an order of its own.
        workers: number of processes that read and transform; with 0, a thread of this process does.
        transform: applied by the reader to the inputs of each batch, such as images [rows, height,
            width, channels] or a tree of arrays [rows, ...]; a pure function that cloudpickle can
            serialise.
        process, processes: this process's number and their count; each reads an equal part of the
            rows of every batch, in order.

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
            check_count(name, getattr(self, name), least)
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
        """The number of records of the source."""
        return len(self.source)

    @property
    def steps_per_epoch(self) -> int:
        """The number of full batches per epoch; the records left out differ between epochs.

        Raises:
            InputError: the source does not fill one batch.
        """
        if self.batch_size > self.images:
            raise InputError(
                f"batch_size must be at most the {self.images} examples, not {self.batch_size}."
            )
        return self.images // self.batch_size

    def batches(self, first_step: int = 0) -> HostBatches:
        """Yield this process's rows of the batches of all steps from `first_step` on, endlessly.

        Closing the generator ends the workers, and so does garbage collection.

        Yields:
            Inputs and labels, trees of NumPy arrays [batch_size / processes, ...] with the
            structure of a record. Inputs have the dtype of the records, such as uint8, or what the
            transform returns. Integer labels become int32, and so does a label that is a single
            boolean; all else keeps its dtype.

        Raises:
            InputError: the source does not fill one batch, or `first_step` is negative; or, while
                reading, a record cannot be read, or a worker has ended.
        """
        with needs("data"):
            import grain

        if first_step < 0:
            raise InputError(f"first_step is {first_step}, expected at least 0")
        _ = self.steps_per_epoch  # raises if no batch is full, which grain would repeat for ever
        rows = self.batch_size // self.processes
        mine = slice(self.process * rows, (self.process + 1) * rows)
        order = grain.MapDataset.range(self.images).seed(self.seed).shuffle()
        steps = order.batch(self.batch_size, drop_remainder=True).repeat()
        read = functools.partial(_read, self.source, self.transform, mine)
        dataset = steps.map(read)
        if self.workers:
            return readers.read(dataset, first_step, self.workers)
        return _by_thread(dataset, first_step)


def to_device(
    batches: Iterable[tuple[Any, Any]],
    sharding: jax.sharding.NamedSharding | None = None,
    buffer: int = 2,
) -> DeviceBatches:
    """Yield batches, pairs of trees of arrays, on the device, transferring them in advance.

    Args:
        batches: batches such as those of `Stream.batches`, closed together with the result.
        sharding: where the rows of inputs and labels go, such as `P("data")` on a mesh; the rows of
            all processes make one global array. None is the default device.
        buffer: the number of batches on the device at once, including the one last yielded.

    Raises:
        InputError: `buffer` is below 1.
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
    """Yield the elements of a grain dataset, which a thread reads in advance."""
    import grain

    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=readers.READ_AHEAD)
    iterator = iter(dataset[first_step:].to_iter_dataset(ahead))
    try:
        yield from iterator
    finally:
        iterator.close()


def _read(
    source: RandomAccess,
    transform: Callable[[Any], Any] | None,
    rows: slice,
    indices: np.ndarray,
) -> tuple[Any, Any]:
    """Read `rows` of the batch that consists of the records `indices` [batch_size]."""
    gather = getattr(source, "gather", None)
    if gather is not None:
        inputs, labels = gather(indices[rows])
    else:
        records = [source[int(i)] for i in indices[rows]]
        inputs, labels = zip(*records, strict=True)
        inputs = jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)
        # A boolean that is the whole label is a class; a mask in a tree stays a mask.
        integers = "iub" if jax.tree_util.all_leaves(labels) else "iu"

        def join(*leaves):
            stacked = np.stack(leaves)
            return np.array(leaves, np.int32) if stacked.dtype.kind in integers else stacked

        labels = jax.tree.map(join, *labels)
    return inputs if transform is None else transform(inputs), labels
