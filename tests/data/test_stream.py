"""The order, the workers and the processes of a stream; batches on devices."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.data import Stream, to_device
from nnlab.errors import InputError
from nnlab.training import steps_per_epoch
from nnlab.vision import pad_to, standardizer
from nnlab.vision.datasets.cifar import CifarRecords


@dataclasses.dataclass(frozen=True)
class Numbered:
    """A source of one's own: image i is i in two bytes, and so is its label."""

    n: int
    classes: int = 2**16

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return np.array(divmod(index, 256), np.uint8).reshape(1, 2, 1), index


def take(stream, count, first_step=0):
    with contextlib.closing(stream.batches(first_step)) as batches:
        return list(itertools.islice(batches, count))


def order(stream, count, first_step=0):
    """The records of each of `count` batches, by the images and by the labels."""
    batches = take(stream, count, first_step)
    for images, labels in batches:
        pixels = images.astype(int)
        np.testing.assert_array_equal(pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 1, 0], labels)
    return np.array([labels for _, labels in batches])


@pytest.fixture
def records(tmp_path):
    """Five files of 40 records whose pixels are random."""
    rng = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{i}.bin" for i in range(5))
    for path in paths:
        content = rng.integers(0, 256, (40, 3073), np.uint8)
        content[:, 0] %= 10
        path.write_bytes(content.tobytes())
    return CifarRecords(paths)


@pytest.mark.parametrize(
    ("n", "batch", "processes", "first_step", "seed"),
    [
        (1, 1, 1, 0, 0),
        (9, 9, 3, 1, 1),
        (40, 9, 1, 5, 2**32 - 1),
        (23, 4, 4, 7, 2**31),
        (10, 6, 2, 1, 5),
    ],
)
def test_every_step_has_its_batch(n, batch, processes, first_step, seed):
    stream = Stream(Numbered(n), batch, seed)
    steps = stream.steps_per_epoch
    whole = order(stream, 2 * steps)
    for epoch in (whole[:steps], whole[steps:]):
        chosen = epoch.ravel().tolist()
        assert len(set(chosen)) == steps * batch and set(chosen) <= set(range(n))
    start = first_step % (2 * steps)
    np.testing.assert_array_equal(order(stream, 2 * steps - start, start), whole[start:])
    parts = [
        order(dataclasses.replace(stream, process=p, processes=processes), 2, start)
        for p in range(processes)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), order(stream, 2, start))


class Trees:
    """Records that are trees: inputs of two dtypes, a label that is a number and a mask."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        mask = np.arange(3) < index
        return {"ids": np.full(3, index, np.int16), "mask": mask}, (index, mask)


def test_trees_keep_their_structure_and_their_dtypes():
    def transform(inputs):
        return inputs | {"sum": inputs["ids"].sum(1)}

    ((inputs, (number, mask)),) = take(Stream(Trees(), 7, seed=0, transform=transform), 1)
    assert sorted(number.tolist()) == list(range(7))
    for i in range(7):
        expected, (_, expected_mask) = Trees()[int(number[i])]
        np.testing.assert_array_equal(inputs["ids"][i], expected["ids"])
        np.testing.assert_array_equal(inputs["mask"][i], expected["mask"])
        np.testing.assert_array_equal(mask[i], expected_mask)
    assert inputs["sum"].tolist() == (3 * number).tolist()
    dtypes = [leaf.dtype for leaf in (inputs["ids"], inputs["mask"], number, mask)]
    assert dtypes == [np.int16, bool, np.int32, bool]


def test_each_epoch_and_each_seed_has_its_own_order():
    orders = [
        tuple(order(Stream(Numbered(200), 200, seed), 1, epoch)[0].tolist())
        for seed in (0, 1)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 6
    # A uniform permutation leaves 1 in place on average, and 10 or more once in 10^7 times; two
    # have as many places in common.
    for one, other in itertools.combinations([tuple(range(200)), *orders], 2):
        assert np.equal(one, other).sum() < 10


def test_records_left_out_differ_from_epoch_to_epoch():
    stream = Stream(Numbered(4), 3, seed=0)
    left = [frozenset(range(4)) - set(batch) for batch in order(stream, 20).tolist()]
    assert frozenset.union(*left) == set(range(4))


def test_far_steps_are_reached_at_once():
    start = time.perf_counter()
    assert order(Stream(Numbered(50_000), 128, 0), 1, 10**9).shape == (1, 128)
    assert time.perf_counter() - start < 10  # that many steps would take days


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_change_no_bit_and_end_at_once_when_closed(records, workers):
    """Although nobody takes the batches that they have read, too large for a pipe."""
    transform = standardizer(np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    alone = Stream(records, 48, seed=3, transform=transform)
    expected = take(alone, 9, first_step=2)  # four steps an epoch
    assert expected[0][0].dtype == np.float32 and expected[0][1].dtype == np.int32
    batches = to_device(dataclasses.replace(alone, workers=workers).batches(2))
    for images, labels in expected:
        batch = next(batches)
        np.testing.assert_array_equal(batch[0], images)
        np.testing.assert_array_equal(batch[1], labels)
    assert len(multiprocessing.active_children()) == workers
    start = time.perf_counter()
    batches.close()
    assert time.perf_counter() - start < 10  # grain's own workers take 25 s
    assert multiprocessing.active_children() == []


KILLED = """
import multiprocessing, sys, time
from pathlib import Path
from nnlab.data import Stream
from nnlab.vision.datasets.cifar import CifarRecords

if __name__ == "__main__":
    batches = Stream(CifarRecords((Path(sys.argv[1]),)), 4, seed=0, workers=1).batches()
    next(batches)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_killed_parent(records, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(records.paths[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        (worker,) = map(int, process.stdout.readline().split())
        os.kill(worker, 0)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if state(worker) == "Z":
            return  # ended, and whoever adopted it has not looked yet
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail(f"worker {worker} outlived its parent")


def state(pid):
    """The letter that Linux gives a process's state, Z where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_where_records_are_read_is_the_error_here(records, workers):
    stream = Stream(
        records, 4, seed=0, workers=workers, transform=lambda x: np.asarray(pad_to(x, 8, 8))
    )
    with pytest.raises(InputError, match=r"^images are 32 by 32 pixels, expected at most 8 by 8"):
        take(stream, 1)
    assert multiprocessing.active_children() == []


def test_memory_does_not_hold_the_records(tmp_path):
    path = tmp_path / "large.bin"
    with open(path, "wb") as file:
        file.truncate(6_000 * 3073)  # 18 MB of zeros that take no room on the disk
    take(Stream(Numbered(1), 1, seed=0), 1)  # imports grain
    tracemalloc.start()
    stream = Stream(CifarRecords((path,)), 100, seed=0)
    with contextlib.closing(stream.batches()) as batches:
        for _ in range(60):
            next(batches)
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A batch is 0.3 MB. Those read ahead, the one in work with its copy and the one handed out.
    assert peak < 3e6


def test_pickles_without_the_records(records):
    stream = Stream(records, 20, seed=1)
    expected = take(stream, 2)
    copy = pickle.dumps(stream)
    assert len(copy) < 2000
    for (images, labels), batch in zip(expected, take(pickle.loads(copy), 2), strict=True):
        np.testing.assert_array_equal(images, batch[0])
        np.testing.assert_array_equal(labels, batch[1])


def test_one_sentence_for_too_few_images():
    stream = Stream(Numbered(5), 6, seed=0)
    with pytest.raises(InputError) as expected:
        steps_per_epoch((jnp.empty((5, 1)), jnp.empty(5)), 6)
    for call in (lambda: stream.steps_per_epoch, stream.batches):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value) == str(expected.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0."),
        ({"seed": -1}, "seed must be an integer of at least 0, not -1."),
        ({"seed": 2**32}, "seed is 4294967296, expected at most 4294967295"),
        ({"workers": -1}, "workers must be an integer of at least 0, not -1."),
        ({"processes": 0}, "processes must be an integer of at least 1, not 0."),
        ({"process": 2, "processes": 2}, "process is 2, expected 0 to 1"),
        ({"process": -1}, "process is -1, expected 0 to 0"),
        ({"processes": 3}, "batch_size is 4, expected a multiple of the 3 processes"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        Stream(Numbered(5), **({"batch_size": 4, "seed": 0} | fields))


def test_bad_step_and_buffer():
    with pytest.raises(InputError, match=r"^first_step is -1, expected at least 0$"):
        Stream(Numbered(5), 4, seed=0).batches(-1)
    with pytest.raises(InputError, match=r"^buffer is 0, expected at least 1$"):
        to_device([], buffer=0)


@pytest.mark.parametrize("buffer", [1, 2, 3])
def test_transfers_run_ahead_and_lose_nothing(buffer):
    read = []

    def batches():
        for i in range(5):
            read.append(i)
            yield np.full((2, 1), i), np.full(2, i)

    got = to_device(batches(), buffer=buffer)
    for i in range(5):
        images, labels = next(got)
        assert isinstance(images, jax.Array) and images.tolist() == [[i], [i]]
        assert labels.tolist() == [i, i]
        assert len(read) == min(5, i + buffer)
    assert list(got) == []


@pytest.mark.slow
def test_importing_needs_no_grain():
    code = "import sys, nnlab.data.stream; sys.exit('grain' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_readers_ignore_a_signal_to_the_group_and_one_that_is_killed_ends_the_stream(records):
    """A scheduler signals all processes of a job; the kernel kills one where memory is short."""
    stream = Stream(records, 48, seed=3, workers=2)
    with contextlib.closing(stream.batches()) as batches:
        for number in (signal.SIGTERM, signal.SIGINT):  # the first one while they start
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, number)
            next(batches)
        victim, *_ = multiprocessing.active_children()
        victim.kill()
        victim.join()
        with pytest.raises(InputError, match="reads the stream was ended by SIGKILL"):
            for _ in range(10):
                next(batches)
    assert multiprocessing.active_children() == []
