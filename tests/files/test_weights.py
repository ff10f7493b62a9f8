"""Weights alone: safetensors reads them, and only a model of these shapes takes them."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from nnlab.errors import InputError
from nnlab.files import load_weights, save_weights

VARIABLES = {
    "params": {
        "Dense_0": {"kernel": jnp.arange(6.0).reshape(2, 3).T, "bias": jnp.ones(2, jnp.bfloat16)}
    },
    "batch_stats": {"norm": {"mean": jnp.float32(3)}},
}


def test_they_come_back_by_their_paths(tmp_path):
    path = tmp_path / "made" / "weights.safetensors"
    save_weights(path, VARIABLES)
    found = safetensors.numpy.load_file(path)
    assert np.array_equal(found["params/Dense_0/kernel"], [[0, 3], [1, 4], [2, 5]])
    assert sorted(found) == [
        "batch_stats/norm/mean",
        "params/Dense_0/bias",
        "params/Dense_0/kernel",
    ]
    shapes = jax.eval_shape(lambda: VARIABLES)
    loaded = load_weights(path, shapes)
    chex.assert_trees_all_equal(loaded, VARIABLES)
    chex.assert_trees_all_equal_dtypes(loaded, VARIABLES)
    with pytest.raises(InputError, match="already exists"):
        save_weights(path, VARIABLES)


def test_a_misfit_is_one_sentence(tmp_path):
    path = tmp_path / "weights.safetensors"
    x = jnp.ones((1, 3))
    save_weights(path, nn.Dense(2).init(jax.random.key(0), x))
    for model, words in (
        (nn.Dense(4), r"has params/bias of shape \[2\], expected \[4\]"),
        (nn.Dense(2, use_bias=False), "has too many: params/bias; expected"),
        (nn.BatchNorm(True), "lacks batch_stats/mean, .* and has too many: params/kernel;"),
    ):
        with pytest.raises(InputError, match=words):
            load_weights(path, jax.eval_shape(model.init, jax.random.key(0), x))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        load_weights(path, VARIABLES)


def test_only_arrays_are_weights(tmp_path):
    with pytest.raises(InputError, match="params/a is a str"):
        save_weights(tmp_path / "x", {"params": {"a": "text"}})
    assert not (tmp_path / "x").exists()
