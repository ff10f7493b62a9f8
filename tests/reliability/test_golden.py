"""A checkpoint of version 0.1.0 is read by this one."""

import importlib.util
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from nnlab.runs import restore

GOLDEN = Path(__file__).parent / "golden_checkpoint_0.1.0"
SHA256 = "7bb19dbc67708f4fdc524d68202b87ec535dacef0f5ff8a78c159809a7c6f359"


@pytest.fixture(scope="module")
def expected():
    path = Path(__file__).with_name("golden.py")
    spec = importlib.util.spec_from_file_location("golden", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.state()


def test_the_golden_checkpoint_comes_back_to_the_bit(expected):
    def other(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.zeros_like(leaf)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = restore(GOLDEN, like=jax.tree.map(other, expected))
    sha256 = sys.modules["small_run"].sha256
    assert sha256(state) == sha256(expected) == SHA256
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(state)}
    assert dtypes == {"float32", "bfloat16", "int32", "uint32", "key<fry>"}
