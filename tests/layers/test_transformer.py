"""Blocks against PyTorch's encoder layers, and each form of the feed-forward layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.files import borrow
from nnlab.files.borrowing import Part
from nnlab.layers import Attention, Block, FeedForward
from nnlab.layers.transformer import gelu, squared_relu, tanh_gelu

X: Any = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)
LENGTHS: Any = np.array([3, 5], np.int32)
NAMES = {
    **{
        f"mixer/{n}": Part("self_attn.in_proj", i, 3)
        for i, n in enumerate(("query", "key", "value"))
    },
    "mixer/output": "self_attn.out_proj",
    "mixer_norm": "norm1",
    "feed_forward/up": "linear1",
    "feed_forward/down": "linear2",
    "feed_forward_norm": "norm2",
}


@pytest.mark.parametrize("pre_norm", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pytorch_gives_the_same(pre_norm):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, "gelu", batch_first=True, norm_first=pre_norm
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    padding = torch.arange(5)[None] >= torch.from_numpy(LENGTHS)[:, None]
    x = torch.from_numpy(X)
    with torch.no_grad():
        expected = theirs(x, src_key_padding_mask=padding).numpy()
    arrays = {
        name.replace("in_proj_", "in_proj."): array.detach().numpy()
        for name, array in theirs.named_parameters()
    }
    norm = lambda **options: nn.LayerNorm(epsilon=1e-5, **options)  # noqa: E731
    ours = Block(Attention(3), FeedForward(20), norm, pre_norm)
    variables = borrow(jax.eval_shape(ours.init, jax.random.key(0), X), arrays, NAMES)
    apply = jax.jit(ours.apply)
    y = np.asarray(apply(variables, X, lengths=LENGTHS))
    real = ~padding.numpy()
    np.testing.assert_allclose(y[real], expected[real], atol=1e-5)

    # Padding changes nothing, whatever stands there.
    other = np.where(real[..., None], X, np.float32(7))
    z = np.asarray(apply(variables, other, lengths=LENGTHS))
    np.testing.assert_allclose(z[real], y[real], atol=1e-6)


@pytest.mark.parametrize("form", ["gated", "fused", "sub_norm"])
def test_gates_and_sub_norms_in_float64(form):
    options: dict[str, Any] = {"gated": True, "fused": form == "fused", "use_bias": False}
    if form == "sub_norm":
        options["sub_norm"] = nn.RMSNorm
    layer = FeedForward(8, squared_relu, **options)
    rng, shapes = np.random.default_rng(1), jax.eval_shape(layer.init, jax.random.key(0), X)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    w: Any = jax.tree.map(np.float64, variables["params"])
    if form == "fused":
        gate, up = np.split(X @ w["gate"]["kernel"], 2, -1)
    else:
        gate, up = X @ w["gate"]["kernel"], X @ w["up"]["kernel"]
    y = np.maximum(gate, 0) ** 2 * up
    if form == "sub_norm":
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * w["sub_norm"]["scale"]
    y = y @ w["down"]["kernel"]
    np.testing.assert_allclose(jax.jit(layer.apply)(variables, X), y, rtol=1e-4, atol=1e-4)


def test_the_two_gelus():
    torch = pytest.importorskip("torch")
    x: Any = np.linspace(-4, 4, 33, dtype=np.float32)
    for ours, kind in ((gelu, "none"), (tanh_gelu, "tanh")):
        theirs = torch.nn.functional.gelu(torch.from_numpy(x), approximate=kind)
        np.testing.assert_allclose(ours(jnp.asarray(x)), theirs, atol=1e-6)
    assert float(jnp.max(jnp.abs(gelu(x) - tanh_gelu(x)))) > 1e-4


@pytest.mark.slow
def test_a_left_out_layer_leaves_the_input():
    block: Any = Block(Attention(3), FeedForward(8), drop_path=0.5)
    variables = block.init(jax.random.key(0), X)
    x = np.tile(X[:1], (64, 1, 1))
    y = block.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})
    kinds = np.unique(np.round(np.asarray(y)[:, 0, 0], 4))
    assert len(kinds) == 4 and np.round(x[0, 0, 0], 4) in kinds  # neither, either or both
    np.testing.assert_array_equal(
        block.apply(variables, x), block.clone(drop_path=0.0).apply(variables, x)
    )


def test_the_rms_norm_of_flax():
    norm: Any = nn.RMSNorm(epsilon=1e-6)
    y = norm.apply({"params": {"scale": np.ones(4)}}, jnp.arange(1.0, 5))
    np.testing.assert_allclose(y, [0.365148, 0.730297, 1.095445, 1.460593], atol=1e-6)
