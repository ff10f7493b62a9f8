"""The vision transformer against PyTorch's layers, with the names of DeiT's code."""

from typing import Any

import jax
import numpy as np
import pytest
import torch

from nnlab.errors import InputError
from nnlab.files import lend
from nnlab.models import VisionTransformer, deit_base, deit_small, deit_tiny
from nnlab.vision.vision_transformer import torch_names

RNG = np.random.default_rng(0)
IMAGES: Any = RNG.normal(size=(2, 8, 12, 3)).astype(np.float32)
MODEL = VisionTransformer(5, 4, 12, 2, 3, 20)


@pytest.mark.parametrize("distilled", [False, True])
def test_pytorch_gives_the_same(distilled):
    model = MODEL.clone(distilled=distilled)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    variables = jax.tree.map(lambda s: 0.5 * RNG.normal(size=s.shape).astype(s.dtype), shapes)
    lent = lend(variables, torch_names(model))
    arrays = {name: torch.from_numpy(array) for name, array in lent.items()}
    assert arrays["blocks.1.attn.qkv.weight"].shape == (36, 12)
    places = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    with torch.no_grad():
        x = torch.nn.functional.conv2d(
            torch.from_numpy(IMAGES).permute(0, 3, 1, 2),
            *(arrays[f"patch_embed.proj.{k}"] for k in ("weight", "bias")),
            stride=4,
        )
        x = x.flatten(2).transpose(1, 2)
        tokens = ["cls_token", *["dist_token"] * distilled]
        x = torch.cat([*(arrays[token].expand(2, 1, 12) for token in tokens), x], 1)
        x = x + arrays["pos_embed"]
        for number in range(2):
            block = torch.nn.TransformerEncoderLayer(
                *(12, 3, 20, 0.0, "gelu", 1e-6), batch_first=True, norm_first=True
            ).eval()
            block.load_state_dict(
                {
                    f"{there}{kind}": arrays[f"blocks.{number}.{here}{kind}"]
                    for there, here in places.items()
                    for kind in ("weight", "bias")
                }
            )
            x = block(x)
        x = torch.nn.functional.layer_norm(
            *(x, (12,)), *(arrays[f"norm.{k}"] for k in ("weight", "bias")), eps=1e-6
        )
        expected = [
            x[:, at] @ arrays[f"{head}.weight"].T + arrays[f"{head}.bias"]
            for at, head in enumerate(["head", *["head_dist"] * distilled])
        ]
    logits = jax.jit(model.apply)(variables, IMAGES)
    np.testing.assert_allclose(logits, sum(expected) / len(expected), rtol=1e-4, atol=1e-5)


def test_images_are_whole_patches():
    with pytest.raises(InputError, match=r"whole patches of 4 pixels, not \[2, 6, 12, 3\]"):
        jax.eval_shape(MODEL.init, jax.random.key(0), IMAGES[:, :6])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "parameters"),
    [(deit_tiny, 5_910_800), (deit_small, 22_436_432), (deit_base, 87_338_192)],
)
def test_parameters_with_a_distillation_token(make, parameters):
    images = np.zeros((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(make(distilled=True).init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.slow
def test_parameters_of_another_published_network():
    """7 blocks of 384 features with as many in between, of 64 patches of an image of CIFAR-10."""
    model = VisionTransformer(10, 4, 384, 7, 12, 384)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 6_268_810
