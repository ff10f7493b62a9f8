"""The checkpoint that every later version has to read, and how it was made.

    python tests/reliability/golden.py tests/reliability/golden_checkpoint_VERSION

writes it, for a version that changes the format. The old ones stay, with their tests.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab.runs import save
from nnlab.training import State


def state() -> State:
    """A training state of every dtype that there is in one, with numbers that need no library."""
    params = {
        "Dense_0": {"kernel": _numbers((16, 24), np.float32), "bias": _numbers((24,), np.float32)},
        "scale": _numbers((5,), jnp.bfloat16),
    }
    stats = {"BatchNorm_0": {"mean": _numbers((24,), np.float32), "none": jnp.zeros((0, 3))}}
    moments = jax.tree.map(lambda p: _numbers(p.shape, p.dtype)[::-1], params)
    adam = optax.ScaleByAdamState(jnp.int32(41), moments, jax.tree.map(jnp.square, moments))
    counts = jnp.asarray(np.arange(7, dtype=np.uint32) * 613_566_756)
    opt_state = (optax.EmptyState(), adam, {"counts": counts})
    return State(jnp.int32(42), params, stats, opt_state, jax.random.key(2026))


def _numbers(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Quarters from -16 to 15.75, which bfloat16 holds exactly, none after its neighbour."""
    count = int(np.prod(shape))
    return jnp.asarray(((np.arange(count) * 89 + 7) % 127 - 64) / 4, dtype).reshape(shape)


if __name__ == "__main__":
    save(sys.argv[1], state(), about={"history": {"test_accuracy": [0.5, 0.75]}})
