"""The vision transformer: pre-norm blocks of attention on patches of an image.

A convolution without overlap makes one token of each patch; a class token comes first, learnt
positions are added, and after `layers` blocks and a normalisation a dense layer looks at the class
token. All products in the blocks are in `arithmetic`, the patches' in `first`, the classifier's in
`classifier`.

================================  ========  =====  ======  ==========
published                         features  heads  layers  parameters
================================  ========  =====  ======  ==========
DeiT-Ti (`deit_tiny`)             192       3      12      5,717,416
DeiT-S (`deit_small`)             384       6      12      22,050,664
DeiT-B (`deit_base`)              768       12     12      86,567,656
================================  ========  =====  ======  ==========

for 1000 classes of 224×224 pixels in patches of 16. `cifar_deit_tiny` has patches of 4 for images
of 32×32 and 5,362,762 parameters.

With `distilled` a second token follows the class token, and a second classifier looks at it, which
learns from a teacher (`nnlab.training.token_distillation`); predictions are the mean of both. So
the three networks have 5,910,800, 22,436,432 and 87,338,192 parameters.

References:
    Dosovitskiy et al., An image is worth 16x16 words, 2020, https://arxiv.org/abs/2010.11929;
    Touvron et al., Training data-efficient image transformers, 2020,
    https://arxiv.org/abs/2012.12877; for names https://github.com/facebookresearch/deit, whose
    weights give the same logits here (`torch_names`).
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.files.borrowing import Part, Place, names_of
from nnlab.layers.attention import Attention
from nnlab.layers.projections import Projection
from nnlab.layers.transformer import Activation, Block, FeedForward, gelu
from nnlab.networks import Network

_INIT = nn.initializers.truncated_normal(0.02)


class TwoHeads(NamedTuple):
    """What a network with `distilled` gives in training.

    Attributes:
        logits, distilled: of the class token and of the distillation token [batch, classes].
    """

    logits: jax.Array
    distilled: jax.Array


class VisionTransformer(Network):
    """Map images [batch, height, width, channels] to logits [batch, classes].

    With `distilled` they are `TwoHeads` in training.

    Attributes:
        classes: number of classes.
        patch_size: height and width of a patch.
        features, layers, heads: size of the network.
        hidden: features within a feed-forward layer; by default 4 × features.
        activation: of the feed-forward layers.
        epsilon: of all normalisations.
        dropout: rate of dropout on tokens and on what layers add.
        drop_path: how often a layer is left out for an image in training, of the last block; those
            before have less, from 0 on in equal steps.
        distilled: whether there is a distillation token.
        arithmetic: arithmetic of all products in the blocks.
        first, classifier: arithmetics of the patches and of the last layer.
        dtype: dtype of the computation; logits are float32 at least.

    Raises:
        InputError: on the call, for images that are not whole patches.
    """

    classes: int = 1000
    patch_size: int = 16
    features: int = 192
    layers: int = 12
    heads: int = 3
    hidden: int | None = None
    activation: Activation = gelu
    epsilon: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    distilled: bool = False
    arithmetic: Arithmetic = FLOAT
    first: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Any:
        if x.ndim != 4 or any(size % self.patch_size for size in x.shape[1:3]):
            raise InputError(
                f"images must be [batch, height, width, channels] of whole patches of "
                f"{self.patch_size} pixels, not {list(x.shape)}."
            )
        patch = (self.patch_size, self.patch_size)
        options: Any = dict(strides=patch, padding="VALID", use_bias=True, dtype=self.dtype)
        x = self.first.conv(self.features, patch, **options, name="patches")(x)
        x = x.reshape(len(x), -1, self.features)
        for name in ("distillation_token",) * self.distilled + ("class_token",):
            one = self.param(name, _INIT, (1, 1, self.features), jnp.float32).astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(one, (len(x), 1, self.features)), x], 1)
        positions = self.param("positions", _INIT, (1, *x.shape[1:]), jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train)(x + positions.astype(x.dtype))
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, use_fast_variance=False)
        for number in range(self.layers):
            x = self._block(norm, number)(x, train)
        x = norm(dtype=self.dtype, name="norm")(x)
        self.sow("intermediates", "features", x[:, 0])

        def head(name: str, token: int) -> jax.Array:
            products = _products(self.classifier, self.dtype)
            y = Projection(self.classes, **products, name=name)(x[:, token])
            return y.astype(jnp.promote_types(y.dtype, jnp.float32))

        y = head("classifier", 0)
        if not self.distilled:
            return y
        both = TwoHeads(y, head("distilled_classifier", 1))
        return both if train else (both.logits + both.distilled) / 2

    def _block(self, norm: Any, number: int) -> Block:
        products: Any = dict(
            **_products(self.arithmetic, self.dtype), output_init=_INIT, parent=None
        )
        mixer = Attention(self.heads, attention=self.arithmetic.attention, **products)
        feed_forward = FeedForward(self.hidden or 4 * self.features, self.activation, **products)
        options: Any = dict(dropout=self.dropout, dtype=self.dtype, name=f"layer_{number}")
        drop_path = self.drop_path * number / max(self.layers - 1, 1)
        return Block(mixer, feed_forward, norm, drop_path=drop_path, **options)


def _products(arithmetic: Arithmetic, dtype: Dtype | None) -> dict[str, Any]:
    needs_norm = arithmetic.needs_norm
    return dict(dense=arithmetic.dense, norm=needs_norm, kernel_init=_INIT, dtype=dtype)


deit_tiny = functools.partial(VisionTransformer, features=192, heads=3)
deit_small = functools.partial(VisionTransformer, features=384, heads=6)
deit_base = functools.partial(VisionTransformer, features=768, heads=12)
cifar_deit_tiny = functools.partial(VisionTransformer, classes=10, patch_size=4)


@names_of(VisionTransformer)
def torch_names(model: VisionTransformer) -> dict[str, Place]:
    """Return the names that DeiT's code has for every layer, for `nnlab.files.borrow`."""
    names: dict[str, Place] = {
        "class_token": "cls_token",
        "positions": "pos_embed",
        "patches": "patch_embed.proj",
        "norm": "norm",
        "classifier": "head",
        "distillation_token": "dist_token",
        "distilled_classifier": "head_dist",
    }
    for number in range(model.layers):
        here, there = f"layer_{number}", f"blocks.{number}"
        for index, part in enumerate(("query", "key", "value")):
            names[f"{here}/mixer/{part}"] = Part(f"{there}.attn.qkv", index, 3)
        names[f"{here}/mixer/output"] = f"{there}.attn.proj"
        names[f"{here}/feed_forward/up"] = f"{there}.mlp.fc1"
        names[f"{here}/feed_forward/down"] = f"{there}.mlp.fc2"
        names[f"{here}/mixer_norm"] = f"{there}.norm1"
        names[f"{here}/feed_forward_norm"] = f"{there}.norm2"
    return names
