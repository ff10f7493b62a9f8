"""Damaged checkpoints: an older one with a warning, or one sentence; never other numbers."""

import collections
import json
import random
import re
import shutil
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from nnlab.errors import CheckpointError
from nnlab.runs.checkpoints import Checkpoints

FLIPS = 120
# TensorStore drops the reads that were still under way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def states():
    """The states at the start and of steps 1 and 2, all of whose arrays differ.

    One array is large: small ones lie in nodes of which TensorStore keeps a checksum of its own.
    """
    small_run = sys.modules["small_run"]
    start, _ = small_run.parts(small_run.Config("unused"))
    large = jax.random.normal(jax.random.key(1), (64, 32))
    start = start._replace(params=start.params | {"large": large})

    def after(step):
        def moved(leaf):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.fold_in(leaf, step)
            return leaf + step

        return jax.tree.map(moved, start)

    return {0: start, 1: after(1), 2: after(2)}


@pytest.fixture(scope="module")
def intact(states, tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, states[step], about={"step": step})
    return folder


@pytest.fixture
def outcome(states, intact, tmp_path):
    """`outcome(damage)` is what comes of reading after `damage(newest checkpoint)`, in words."""
    copy = tmp_path / "copy"
    sha256 = sys.modules["small_run"].sha256

    def call(damage):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(intact, copy)
        damage(copy / "step_2")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = Checkpoints(copy).newest(like=states[0])
        said = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        assert found is not None
        state, about = found
        assert sha256(state) == sha256(states[about["step"]])
        if about["step"] == 2:
            assert not said
            return "the same numbers"
        assert about == {"step": 1}
        assert (copy / "damaged_step_2").is_dir() and not (copy / "step_2").exists()
        (warning,) = said
        assert warning.startswith(f"{copy}/step_2 is damaged")
        assert warning.endswith(f"; going on from {copy}/step_1.") and "\n" not in warning
        named = re.search(r"is damaged: (\.\S+) is not what was saved", warning)
        return "older step, leaf named" if named else "older step, checkpoint named"

    return call


def files(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def group(file):
    """The file's name in the table; those of data have a random one."""
    return file.parent / "*" if re.fullmatch("[0-9a-f]{32}", file.name) else file


def print_table(counts, what):
    print(f"\n{sum(sum(c.values()) for c in counts.values())} {what}")
    for name, outcomes in sorted(counts.items()):
        print(f"  {name!s:38}", ", ".join(f"{n} {o}" for o, n in sorted(outcomes.items())))


@pytest.mark.slow
def test_a_flipped_bit_in_any_file(outcome, intact):
    rng, counts = random.Random(0), collections.defaultdict(collections.Counter)
    every = files(intact / "step_2")
    for number in range(FLIPS):
        file = every[number % len(every)]

        def flip(checkpoint, file=file):
            data = bytearray((checkpoint / file).read_bytes())
            bit = rng.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            (checkpoint / file).write_bytes(data)

        counts[group(file)][outcome(flip)] += 1
    print_table(counts, "flipped bits")
    # One of the files is for the most part the large array, where only its digest tells.
    assert sum(c["older step, leaf named"] for c in counts.values()) > FLIPS / len(every) / 2
    assert counts[Path("about/metadata")].keys() == {"older step, checkpoint named"}


@pytest.mark.slow
def test_a_file_cut_off_or_removed(outcome, intact):
    counts = collections.defaultdict(collections.Counter)
    for file in files(intact / "step_2"):
        size = (intact / "step_2" / file).stat().st_size
        for length in (0, size // 2, size - 1):

            def cut(checkpoint, file=file, length=length):
                with (checkpoint / file).open("r+b") as opened:
                    opened.truncate(length)

            counts[group(file)]["cut: " + outcome(cut)] += 1
        counts[group(file)][
            "removed: " + outcome(lambda checkpoint, file=file: (checkpoint / file).unlink())
        ] += 1
    print_table(counts, "files cut off or removed")


def rewrite(checkpoint, change):
    """Has Orbax write the arrays again after `change`; their digests stay."""
    with ocp.StandardCheckpointer() as checkpointer:
        arrays = change(checkpointer.restore(checkpoint / "state"))
        shutil.rmtree(checkpoint / "state")
        checkpointer.save(checkpoint / "state", arrays)


def arrays_of(state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def test_two_leaves_exchanged(states, intact, tmp_path):
    shutil.copytree(intact, tmp_path / "copy")
    one, other = ".params['BatchNorm_0']['scale']", ".params['BatchNorm_1']['bias']"
    arrays = arrays_of(states[2])
    assert arrays[one].shape == arrays[other].shape and (arrays[one] != arrays[other]).any()
    rewrite(
        tmp_path / "copy" / "step_2",
        lambda arrays: arrays | {one: arrays[other], other: arrays[one]},
    )
    words = rf"step_2 is damaged: {re.escape(one)} is not what was saved; going on from .*step_1\.$"
    with pytest.warns(UserWarning, match=words):
        found = Checkpoints(tmp_path / "copy").newest(like=states[0])
    assert found is not None and found[1] == {"step": 1}


@pytest.mark.slow
def test_each_leaf_is_named_when_one_number_of_it_changes(states, outcome):
    names = list(arrays_of(states[2]))
    for name in names:

        def change(arrays, name=name):
            array = np.array(arrays[name])
            array.reshape(-1).view(np.uint8)[0] ^= 1
            return arrays | {name: array}

        said = outcome(lambda checkpoint, change=change: rewrite(checkpoint, change))
        assert said == "older step, leaf named"
    print(f"\n{len(names)} leaves, each changed by one bit and each named")


def test_what_is_saved_is_what_there_was_at_that_moment(tmp_path):
    """Though the history grows and arrays are overwritten while Orbax still writes."""
    history, host = {"loss": [0.5]}, np.ones(3)
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, {"host": host}, about=history)
            history["loss"].append(float(step))
            host += 1
    found = Checkpoints(tmp_path).newest(like={"host": np.zeros(3)})
    assert found is not None
    assert found[0]["host"].tolist() == [5.0] * 3
    assert found[1] == {"loss": [0.5, 1.0, 2.0, 3.0, 4.0]}


def test_a_changed_history_is_noticed(outcome):
    def change(checkpoint):
        path = checkpoint / "about" / "metadata"
        stored = json.loads(path.read_text())
        path.write_text(json.dumps(stored | {"about": {"step": 3}}))

    assert outcome(change) == "older step, checkpoint named"


@pytest.mark.slow
def test_a_script_says_one_sentence_of_a_damaged_checkpoint(start, assert_as_whole, tmp_path):
    """And nothing of what Orbax and TensorStore print."""
    folder = tmp_path / "run"
    start("--out", folder, "--checkpoint-steps", 1, "--stop-after", 2).status()
    (node,) = (folder / "checkpoints" / "small" / "step_2" / "state" / "d").iterdir()
    node.write_bytes(node.read_bytes()[:-1])
    warns = ("env", "PYTHONWARNINGS=ignore")  # the warning has been looked at above
    assert_as_whole(start("--out", folder, "--resume", under=warns), folder)


def test_no_checkpoint_is_whole(states, intact, tmp_path):
    shutil.copytree(intact, tmp_path / "copy")
    for step in (1, 2):
        (tmp_path / "copy" / f"step_{step}" / "about" / "metadata").write_text("")
    with pytest.raises(CheckpointError) as error:
        Checkpoints(tmp_path / "copy").newest(like=states[0])
    message = str(error.value)
    assert f"{tmp_path}/copy/step_2 is damaged" in message
    assert message.endswith(", and no older one is whole.") and "\n" not in message
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == ["step_1", "step_2"]
