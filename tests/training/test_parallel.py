"""A step on several devices: on a mesh it is the step on one, under pmap one for each."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import chex, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from nnlab.arithmetics import ADDER
from nnlab.models import SmallCNN
from nnlab.optim import adder_recipe
from nnlab.training import init, train_step

assert jax.device_count() == 2
rng = np.random.default_rng(0)
batch = rng.normal(size=(8, 4, 4, 1)).astype(np.float32), np.arange(8, dtype=np.int32)
model, optimizer = SmallCNN(arithmetic=ADDER, widths=(4, 4, 4)), adder_recipe(10)
state = init(jax.random.key(0), model, optimizer, batch[0])
step = train_step(model, optimizer)

def assert_close(a, b):
    (a, metrics), (b, expected) = a, b
    # Sums in two parts round otherwise. A variance is a difference of squares near 36^2, the sums
    # of 36 distances, so it is off by a few 2^-24 36^2 in about 10; so is relatively what follows.
    # A step moves an adder weight by 0.02.
    chex.assert_trees_all_close(a.params, b.params, rtol=0, atol=0.02 * 1e-3)
    chex.assert_trees_all_close((a.batch_stats, metrics), (b.batch_stats, expected), rtol=1e-3)
    assert (a.step, a.key) == (b.step, b.key)

one = jax.jit(step)
mesh = jax.make_mesh((2,), ("data",))
everywhere = NamedSharding(mesh, PartitionSpec())
split = NamedSharding(mesh, PartitionSpec("data"))
sharded = jax.jit(step, in_shardings=(everywhere, split), out_shardings=everywhere)
# Statistics, gradients and the norms of the adder rate are those of the whole batch.
assert_close(sharded(state, batch), one(state, batch))

halves = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), batch)
states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
results = jax.pmap(step)(states, halves)
for device in range(2):
    mine, half = jax.tree.map(lambda a: a[device], (results, halves))
    assert_close(mine, one(state, half))
"""


@pytest.mark.slow
def test_on_two_simulated_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | flags, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
