"""Checkpoints: the same bits back, or one sentence that says why not."""

import errno
import os
import shutil
import subprocess
import sys
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import CheckpointError, InputError
from nnlab.runs import checkpoints
from nnlab.runs.checkpoints import Checkpoints


class State(NamedTuple):
    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array


OPTIMIZER = optax.chain(
    optax.clip(1.0), optax.masked(optax.adam(1e-2), {"dense": True, "scale": False})
)


def device(array, dtype=jnp.float32):
    """The array on the device, without a program that converts it."""
    return jnp.asarray(array.astype(dtype), dtype)


def initialised(seed):
    rng = np.random.default_rng(seed)
    params = {
        "dense": {"kernel": device(rng.normal(size=(3, 4))), "bias": device(np.zeros(4))},
        "scale": device(rng.normal(size=2), jnp.bfloat16),
    }
    stats = {
        **{"mean": device(np.full(4, -70)), "none": device(np.zeros((0, 3)))},
        "host": np.arange(3) + seed,
    }
    return State(jnp.int32(0), params, stats, OPTIMIZER.init(params), jax.random.key(seed))


@jax.jit
def step(params, opt_state, key, number):
    noise = jax.random.normal(jax.random.fold_in(key, number), (4,))

    def loss(params):
        y = jnp.ones(3) @ params["dense"]["kernel"] + params["dense"]["bias"] + noise
        return jnp.sum(y**2) + jnp.sum(params["scale"].astype(jnp.float32) ** 2)

    updates, opt_state = OPTIMIZER.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def trained(state, steps):
    for _ in range(steps):
        params, opt_state = step(state.params, state.opt_state, state.key, state.step)
        state = state._replace(step=state.step + 1, params=params, opt_state=opt_state)
    return state


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y) and x.dtype == y.dtype and x.shape == y.shape
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_training_state_comes_back_to_the_bit_and_resumes_to_the_bit(tmp_path, capfd):
    state = trained(initialised(0), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoints.save(tmp_path / "new" / "3", state)
        back = checkpoints.restore(tmp_path / "new" / "3", like=initialised(1))
    assert_same_bits(back, state)
    assert_same_bits(trained(back, 3), trained(initialised(0), 6))
    assert capfd.readouterr() == ("", "")


DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16, jnp.int8, jnp.uint8, jnp.int32, jnp.uint32]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), min_size=1
    ),
    st.sampled_from(["threefry2x32", "rbg"]),
    st.binary(min_size=108, max_size=108),
)
def test_any_arrays_come_back_to_the_bit(tmp_path_factory, arrays, impl, data):
    # Raw bytes make NaNs with payloads, infinities and negative zeros too.
    sizes = [int(np.prod(shape)) * jnp.dtype(dtype).itemsize for dtype, shape in arrays]
    leaves = [
        device(np.frombuffer(data[:size], dtype).reshape(shape), dtype)
        for size, (dtype, shape) in zip(sizes, arrays, strict=True)
    ]
    state = {"leaves": leaves, "a/b.c": {"keys": jax.random.split(jax.random.key(1, impl=impl))}}
    like = jax.tree.map(lambda leaf: leaf, state)
    like["a/b.c"]["keys"] = jax.random.split(jax.random.key(2, impl=impl))
    like["leaves"] = [device(np.zeros(shape), dtype) for dtype, shape in arrays]
    path = tmp_path_factory.mktemp("run") / "checkpoint"
    checkpoints.save(path, state)
    assert_same_bits(checkpoints.restore(path, like), state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s._replace(step=jnp.float32(0)), r"\.step is int32\[\] in it, not float32\[\]"),
        (
            lambda s: s._replace(params=s.params | {"dense": {"kernel": jnp.ones((3, 5))}}),
            r"\.params\['dense'\]\['bias'\] is float32\[4\] in it, not absent",
        ),
        (
            lambda s: s._replace(batch_stats=s.batch_stats | {"host": np.arange(4)}),
            r"\['host'\] is int64\[3\] in it, not int64\[4\]",
        ),
        (
            lambda s: s._replace(batch_stats=s.batch_stats | {"var": jnp.ones(4)}),
            r"\['var'\] is absent in it, not float32\[4\]",
        ),
        (lambda s: s._replace(key=jax.random.key(0, impl="rbg")), r"\.key is uint32\[2\] in it"),
    ],
)
def test_another_structure_is_refused_with_the_name_of_the_array(tmp_path, change, words):
    checkpoints.save(tmp_path / "c", initialised(0))
    with pytest.raises(InputError, match=words) as error:
        checkpoints.restore(tmp_path / "c", change(initialised(0)))
    assert str(tmp_path / "c") in str(error.value)


def test_a_missing_checkpoint_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(InputError, match=f"^There is no checkpoint at {path}\\.$"):
            checkpoints.restore(path, initialised(0))


# TensorStore drops the reads that were still under way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_one_sentence_or_harmless(tmp_path):
    """Each file of a checkpoint is removed and cut in half in turn."""
    state, copy = initialised(0), tmp_path / "copy"
    checkpoints.save(tmp_path / "whole", state)
    whole = tmp_path / "whole"
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    refused = 0
    for file in files:
        for damage in ("removed", "cut"):
            shutil.copytree(whole, copy)
            (copy / file).unlink()
            if damage == "cut":
                data = (whole / file).read_bytes()
                (copy / file).write_bytes(data[: len(data) // 2])
            try:
                assert_same_bits(checkpoints.restore(copy, initialised(1)), state)
            except CheckpointError as error:
                refused += 1
                assert str(error).startswith(f"{copy} is damaged")
                assert "\n" not in str(error)
            shutil.rmtree(copy)
    assert refused >= 6


def test_an_existing_path_is_not_overwritten(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    checkpoints.save(tmp_path / "c", initialised(0))
    for path in (tmp_path / "folder", tmp_path / "c", tmp_path / "folder" / "thesis.tex"):
        with pytest.raises(InputError, match=f"^{path} already exists"):
            checkpoints.save(path, initialised(1))
    with pytest.raises(CheckpointError, match=r"thesis\.tex/c cannot be written"):
        checkpoints.save(tmp_path / "folder" / "thesis.tex" / "c", initialised(0))
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "years of work"
    assert_same_bits(checkpoints.restore(tmp_path / "c", initialised(2)), initialised(0))


def test_exchanged_arrays_are_named(tmp_path):
    """Both have one type and shape, so that Orbax has nothing to complain about."""
    a, b = jnp.arange(3.0), jnp.ones(3)
    checkpoints.save(tmp_path / "c", {"a": a, "b": b})
    checkpoints.save(tmp_path / "exchanged", {"a": b, "b": a})
    shutil.rmtree(tmp_path / "c" / "state")
    (tmp_path / "exchanged" / "state").rename(tmp_path / "c" / "state")
    with pytest.raises(CheckpointError, match=r"c is damaged: \['a'\] is not what was saved\.$"):
        checkpoints.restore(tmp_path / "c", {"a": a, "b": b})


def newest(saved, like):
    found = saved.newest(like)
    assert found is not None
    return found


def series(folder, steps, keep=2, best=None):
    state = initialised(0)
    with Checkpoints(folder, keep) as saved:
        for step in steps:
            saved.save(step, state._replace(step=jnp.int32(step)), {"at": step}, best)
    return state


def test_a_series_keeps_the_newest_and_the_best(tmp_path):
    state = series(tmp_path / "run", range(0, 70, 10), keep=2, best=20)
    with Checkpoints(tmp_path / "run") as saved:
        assert saved.steps() == [20, 50, 60]
        back, about = newest(saved, initialised(1))
        assert_same_bits(back, state._replace(step=jnp.int32(60)))
        assert about == {"at": 60}
        assert_same_bits(checkpoints.restore(saved.path(20), state).params, state.params)
        saved.save(70, state)  # in another process nothing is known of the best
        saved.wait()
        assert saved.steps() == [60, 70]


def test_nothing_to_find(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path, tmp_path / "file"):
        with Checkpoints(folder) as saved:
            assert saved.steps() == [] and saved.newest(like=initialised(0)) is None


def test_a_save_is_of_the_values_of_that_moment(tmp_path):
    """The caller's arrays may be donated, or changed in place, while Orbax still writes."""
    host = np.zeros(1000)
    give_away = jax.jit(lambda x: x + 1, donate_argnums=0)
    with Checkpoints(tmp_path) as saved:
        device = jnp.zeros(1000)
        saved.save(1, {"host": host, "device": device})
        host += 1
        give_away(device)
        saved.wait()
        back, _ = newest(saved, {"host": host, "device": jnp.ones(1000)})
    assert not back["host"].any() and not back["device"].any()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_one_is_named_set_aside_and_may_come_again(tmp_path):
    state = series(tmp_path, [10, 20, 30], keep=3)
    about = tmp_path / "step_30" / "about" / "metadata"
    about.write_text(about.read_text().replace('"at": 30', '"at": 31'))
    data = next((tmp_path / "step_20" / "state" / "d").iterdir())
    data.write_bytes(data.read_bytes()[:-1])
    with Checkpoints(tmp_path) as saved:
        with pytest.warns(UserWarning, match=f"going on from {saved.path(10)}") as warned:
            back, found = newest(saved, state)
        assert [str(w.message).partition(" ")[0] for w in warned] == [
            str(saved.path(30)),
            str(saved.path(20)),
        ]
        assert_same_bits(back, state._replace(step=jnp.int32(10)))
        assert found == {"at": 10} and saved.steps() == [10]
        saved.save(20, state, {"at": 20})
        saved.wait()
        assert saved.steps() == [10, 20]
    assert (tmp_path / "damaged_step_30").is_dir() and (tmp_path / "damaged_step_20").is_dir()


def test_one_that_may_not_be_read_is_no_damaged_one(tmp_path, monkeypatch):
    """It is neither renamed nor passed over for an older one, and neither is a closed folder."""
    state = series(tmp_path / "run", [10, 20])
    saved = Checkpoints(tmp_path / "run")

    def closed(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Path, "read_text", closed)
        with pytest.raises(CheckpointError, match="step_20 cannot be read: Permission denied"):
            saved.newest(like=state)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, "scandir", closed)
        with pytest.raises(CheckpointError, match="cannot be listed: Permission denied"):
            saved.newest(like=state)
    assert saved.steps() == [10, 20]


def test_what_is_no_checkpoint_is_in_nobodys_way(tmp_path):
    """Names that Orbax never gives, and a second damaged one of the same step."""
    state = series(tmp_path, [10, 20])
    (tmp_path / "step_30").touch()
    for name in ("step_040", "step_60.orbax-checkpoint-tmp", "damaged_step_20"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged_step_20" / "kept").touch()
    (tmp_path / "step_20" / "about" / "metadata").write_text("{}")
    with pytest.warns(UserWarning, match="step_20"):
        _, about = newest(Checkpoints(tmp_path), state)
    assert about == {"at": 10} and (tmp_path / "damaged_step_20_2").is_dir()


def test_where_none_is_whole_nothing_is_touched(tmp_path):
    state = series(tmp_path, [10, 20])
    for step in (10, 20):
        (tmp_path / f"step_{step}" / "about" / "metadata").write_text("{}")
    with Checkpoints(tmp_path) as saved:
        with pytest.raises(CheckpointError, match=r"step_20 is damaged.* no older one is whole"):
            saved.newest(like=state)
        assert saved.steps() == [10, 20]


def test_what_a_killed_write_left_is_in_nobodys_way(tmp_path):
    (tmp_path / "c.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "c.orbax-checkpoint-tmp" / "half").write_text("")
    checkpoints.save(tmp_path / "c", initialised(0))
    assert_same_bits(checkpoints.restore(tmp_path / "c", initialised(1)), initialised(0))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_leaf_that_is_not_an_array_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"its \['step'\] is a int"):
        checkpoints.save(tmp_path / "c", {"step": 3})


@pytest.mark.slow
def test_arrays_go_to_the_devices_of_the_given_state(tmp_path):
    code = f"""
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
jax.config.update("jax_num_cpu_devices", 2)
from nnlab.runs import checkpoints
mesh = jax.make_mesh((2,), ("data",))
checkpoints.save({str(tmp_path / "c")!r}, {{"w": jnp.arange(4.0)}})
sharding = NamedSharding(mesh, PartitionSpec("data"))
like = {{"w": jax.device_put(jnp.zeros(4), sharding)}}
w = checkpoints.restore({str(tmp_path / "c")!r}, like)["w"]
assert w.sharding == sharding and w.tolist() == [0.0, 1.0, 2.0, 3.0]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
