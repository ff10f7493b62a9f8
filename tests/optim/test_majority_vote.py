"""The vote of 1, 2, 4 and 8 simulated devices against NumPy, and what travels for it."""

import os
import subprocess
import sys

import pytest

SETUP = """
import functools, re
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import PartitionSpec
from nnlab.optim import majority_vote
from nnlab.training import init, leaf_name, parallel, train_step

assert jax.device_count() == 8
SHAPES = {"a": (3, 5), "b": {"c": (100,), "d": ()}, "e": (2, 2, 7)}

def is_shape(node):
    return isinstance(node, tuple)

def expected(parts, devices):
    # Signs +1 where a number is >= 0, in the order of the leaves; a tie goes to the device in
    # whose slice of whole words the number lies.
    flat = np.concatenate([np.asarray(leaf).reshape(devices, -1) for leaf in parts], axis=1)
    signs = np.where(flat >= 0, 1, -1)
    words = -(-flat.shape[1] // 32)
    owner = np.arange(flat.shape[1]) // 32 // -(-words // devices)
    total = signs.sum(0)
    return np.where(total == 0, signs[owner, np.arange(flat.shape[1])], np.sign(total))

def flattened(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])

def shard_mapped(devices, check=True):
    mesh = parallel.data_mesh(jax.devices()[:devices])
    specs = PartitionSpec("data"), PartitionSpec() if check else PartitionSpec("data")
    def vote(parts):
        result = majority_vote(jax.tree.map(lambda leaf: leaf[0], parts), "data")
        return result if check else jax.tree.map(lambda leaf: leaf[None], result)
    return jax.jit(
        jax.shard_map(vote, mesh=mesh, in_specs=specs[:1], out_specs=specs[1], check_vma=check)
    )

def moved(text):  # (operation, dtype, elements) of all arrays that travel
    form = r"= (.*?) (all-[a-z-]+|collective-permute|reduce-scatter)(?:-start)?[(]"
    for shapes, op in re.findall(form, text):
        for dtype, shape in re.findall(r"(\\\\w+)\\\\[([\\\\d,]*)\\\\]", shapes):
            yield op, dtype, int(np.prod([int(size) for size in shape.split(",") if size]))
""".replace("\\\\", "\\")

VOTES = """
rng = np.random.default_rng(0)
for devices in (1, 2, 4, 8):
    for dtype in (jnp.float32, jnp.bfloat16):
        # Small integers, so that zeros and ties happen.
        parts = jax.tree.map(
            lambda shape: jnp.asarray(rng.integers(-2, 3, (devices, *shape)), dtype),
            SHAPES, is_leaf=is_shape,
        )
        right = expected(jax.tree.leaves(parts), devices)
        got = shard_mapped(devices)(parts)
        assert jax.tree.structure(got) == jax.tree.structure(parts)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got))
        np.testing.assert_array_equal(flattened(got), right)
        mapped = jax.pmap(
            functools.partial(majority_vote, axis_name="data"), "data",
            devices=jax.devices()[:devices],
        )(parts)
        each = shard_mapped(devices, check=False)(parts)
        for tree in (mapped, each):  # every device's own copy
            for device in range(devices):
                own = flattened(jax.tree.map(lambda leaf: leaf[device], tree))
                np.testing.assert_array_equal(own, right)
    one = jax.tree.map(lambda leaf: leaf[:1].repeat(devices, 0), parts)
    np.testing.assert_array_equal(flattened(shard_mapped(devices)(one)),
        np.where(flattened(jax.tree.map(lambda leaf: leaf[0], one)) >= 0, 1, -1))
    # Noise moves no weight on average, ties or not: five standard errors of 1000 signs.
    noise = {"w": jnp.asarray(rng.normal(size=(devices, 1000)), jnp.float32)}
    assert abs(np.asarray(shard_mapped(devices)(noise)["w"]).sum()) < 5 * 1000**0.5
    # Golden: of one number for each device, the sign of most.
    single = {"w": jnp.where(jnp.arange(devices) <= devices / 2, -1.0, 5.0)[:, None]}
    assert shard_mapped(devices)(single)["w"].tolist() == [-1]
# What is not finite on one device is seen by all, leaf by leaf.
for bad in (np.nan, np.inf):
    parts["e"] = parts["e"].astype(jnp.float32).at[3, 1, 0, 2].set(bad)
    got = shard_mapped(8)(parts)
    assert np.isnan(np.asarray(got.pop("e"))).all() and np.isfinite(flattened(got)).all()
"""

BITS = """
# One bit a number each way, and one number a leaf.
shapes = {"a": (64, 32, 8), "b": (1024,)}
numbers = 64 * 32 * 8 + 1024
for devices in (4,):
    parts = {name: jnp.ones((devices, *shape)) for name, shape in shapes.items()}
    text = shard_mapped(devices).lower(parts).compile().as_text()
    travelling = sorted(moved(text))
    # XLA's CPU compiler writes an all-to-all as a tuple with an element for each device.
    words = {}
    for op, dtype, size in travelling:
        words[op, dtype] = words.get((op, dtype), 0) + size
    assert words == {
        ("all-gather", "u32"): numbers / 32,
        ("all-to-all", "u32"): numbers / 32,
        ("all-reduce", "s32"): 2,
    }, words
"""

TIES = """
# Golden: of two words of ties, each device decides the one that it counts.
parts = {"w": jnp.stack([jnp.ones(64), -jnp.ones(64)])}
assert shard_mapped(2)(parts)["w"].tolist() == 32 * [1] + 32 * [-1]
"""

TRAINING = """
class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6)(x.reshape(len(x), -1))
        x = nn.BatchNorm(not train, momentum=0.9)(x)
        return nn.Dense(4)(nn.tanh(x))

rng = np.random.default_rng(0)
BATCHES = [
    (rng.normal(size=(64, 6, 6, 2)).astype(np.float32), rng.integers(0, 4, 64).astype(np.int32))
    for _ in range(3)
]
OPTIMIZER = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(2.0**-6, 0.5))
START = init(jax.random.key(0), Net(), OPTIMIZER, BATCHES[0][0])
STEP = train_step(Net(), OPTIMIZER, axis_name="data", combine=majority_vote)

for devices in (1, 2, 8):
    mesh = parallel.data_mesh(jax.devices()[:devices])
    step = parallel.per_device(STEP, mesh)
    pmapped = parallel.pmapped(STEP, jax.devices()[:devices])
    state, other, expected_params = START, START, START.params
    opt_state = OPTIMIZER.init(START.params)
    for batch in BATCHES:
        parts = parallel.split(batch, devices)
        def gradient(images, labels):
            def loss(params):
                variables = {"params": params, "batch_stats": state.batch_stats}
                logits, _ = Net().apply(variables, images, train=True, mutable=["batch_stats"])
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return jax.grad(loss)(state.params)
        grads = [jax.jit(gradient)(*(a[i] for a in parts)) for i in range(devices)]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *grads)
        right = expected(jax.tree.leaves(stacked), devices)
        # Signs of sums near 0 may be either, by rounding: those are left out of the comparison.
        flat = np.concatenate([l.reshape(devices, -1) for l in jax.tree.leaves(stacked)], axis=1)
        clear = (np.abs(flat) > 1e-6).all(0)
        assert clear.mean() > 0.95  # a bias before BatchNorm has no gradient
        before = state
        state, metrics = step(state, batch)
        other, _ = pmapped(other, parts)
        assert metrics["nonfinite"] == -1 and metrics["loss"].shape == ()
        # The update is OPTIMIZER's of the votes: momentum buffer minus half of the last one.
        trace = lambda s: flattened(s.opt_state[1][0].trace)
        votes = trace(state) - 0.5 * trace(before) - 0.5 * flattened(before.params)
        assert np.abs(votes[clear] - right[clear]).max() < 1e-5
        assert np.abs(np.abs(votes) - 1).max() < 1e-5
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        first, *others = (np.asarray(piece.data).tobytes() for piece in leaf.addressable_shards)
        assert len(others) == devices - 1 and all(copy == first for copy in others)
        same = flattened(state.params) == flattened(other.params)
    assert same[clear].all()

# Gradients do not travel as numbers: only the vote's words, running statistics and metrics do.
compiled = jax.jit(jax.shard_map(STEP, mesh=mesh, in_specs=(parallel.EVERYWHERE, parallel.BY_IMAGE),
    out_specs=parallel.EVERYWHERE)).lower(START, BATCHES[0]).compile().as_text()
sums = [size for op, dtype, size in moved(compiled) if dtype[0] != "u"]
assert sums and max(sums) <= 6 < 72 * 6, sums
assert {op for op, dtype, _ in moved(compiled) if dtype == "u32"} == {"all-to-all", "all-gather"}

# A part with a number that is not finite: the step is not taken, and the leaf is named.
images, labels = BATCHES[0]
images = images.copy()
images[5, 0, 0, 0] = np.inf
after, metrics = step(START, (images, labels))
assert metrics["nonfinite"] >= 0
np.testing.assert_array_equal(flattened(after.params), flattened(START.params))
"""


def run(program):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program],
        env=os.environ | flags,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_vote_is_that_of_numpy():
    run(VOTES)


def test_one_bit_a_number_travels_each_way_and_ties_go_to_who_counts_them():
    run(BITS + TIES)


@pytest.mark.slow
def test_training_by_the_vote():
    run(TRAINING)
