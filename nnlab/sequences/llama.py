"""Llama: a decoder of pre-norm blocks with rotary positions, grouped queries and gates.

All products in the blocks are in `arithmetic`; the embedding, the last product and the
normalisations stay float. With `sub_norms` there is an RMSNorm before each second product of a
block, as in the networks of BitNet b1.58, whose products then need no normalisation of their own.

=================  ==============================  =============  ==============
published          features/hidden/heads/layers    parameters     with sub-norms
=================  ==============================  =============  ==============
BitNet b1.58 700M  1536 / 4096 / 24 / 24           777,856,512    777,991,680
1.3B               2048 / 5460 / 32 / 24           1,338,935,296  1,339,115,488
3B                 3200 / 8640 / 32 / 26           3,426,473,600  3,426,781,440
3.9B               3200 / 12800 / 32 / 26          4,464,809,600  4,465,225,600
2B4T               2560 / 6912 / 20 (5) / 30                      2,412,820,480
=================  ==============================  =============  ==============

2B4T is `bitnet_2b4t`, with 128,256 symbols, tied embeddings and 5 heads of keys; the others have
32,000 symbols.

References:
    Touvron et al., LLaMA, 2023, https://arxiv.org/abs/2302.13971; Ma et al., The era of 1-bit LLMs,
    2024, https://arxiv.org/abs/2402.17764; Ma et al., BitNet b1.58 2B4T, 2025,
    https://arxiv.org/abs/2504.12285; for names huggingface/transformers.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.files.borrowing import names_of
from nnlab.layers.attention import Attention
from nnlab.layers.rotary import Scaling
from nnlab.layers.transformer import Activation, Block, FeedForward, squared_relu
from nnlab.networks import Network
from nnlab.sequences.tokens import last_step, tokens_of


class Llama(Network):
    """Map symbols [batch, time], or `Tokens`, to logits [batch, time, symbols] of the next one.

    It has a cache of keys and values, `nnlab.layers.attention`. The defaults are those of BitNet
    b1.58 700M without sub-norms.

    Attributes:
        symbols: size of the vocabulary.
        features, layers, heads: size of the network.
        hidden: features within a feed-forward layer.
        key_heads: number of heads of keys and values; by default as many as of queries.
        activation: of the gates.
        local_window_size: how many earlier symbols each one sees; all if None.
        rotary_theta: base of the rotary positions.
        rotary_scaling: changes their rates for longer texts (`nnlab.layers.rotary`).
        epsilon: of all normalisations.
        tied: whether the embeddings are also the last product.
        sub_norms: whether products of second layers are normalised before.
        arithmetic: arithmetic of all products in the blocks.
        dtype: dtype of the computation; logits are float32 at least.

    Raises:
        InputError: on the call, for texts that are no integers or, where known, of symbols that
            there are not, and an odd head size.
    """

    symbols: int = 32_000
    features: int = 1536
    layers: int = 24
    heads: int = 24
    hidden: int = 4096
    key_heads: int | None = None
    activation: Activation = nn.silu
    local_window_size: int | None = None
    rotary_theta: float = 10_000.0
    rotary_scaling: Scaling | None = None
    epsilon: float = 1e-5
    tied: bool = False
    sub_norms: bool = False
    arithmetic: Arithmetic = FLOAT
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        inputs: Any,
        train: bool = False,
        lengths: jax.Array | None = None,
        last_only: bool = False,
    ) -> jax.Array:
        """Predict at every step, or at the last one of each text: [batch, 1, symbols]."""
        symbols, lengths, _ = tokens_of(inputs, lengths, self.symbols)
        init = nn.initializers.normal(0.02)
        embed = nn.Embed(
            self.symbols, self.features, embedding_init=init, dtype=self.dtype, name="embedding"
        )
        x = embed(symbols)
        norm = functools.partial(nn.RMSNorm, epsilon=self.epsilon)
        for number in range(self.layers):
            x = self._block(norm, init, f"layer_{number}")(x, train, lengths)
        x = norm(dtype=self.dtype, name="norm")(x)
        self.sow("intermediates", "features", x)
        if last_only:
            x = last_step(x, lengths)
        head = functools.partial(
            nn.Dense, use_bias=False, kernel_init=init, dtype=self.dtype, name="head"
        )
        y = embed.attend(x) if self.tied else head(self.symbols)(x)
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    def _block(self, norm: Any, init: Any, name: str) -> Block:
        products: Any = dict(
            use_bias=False,
            dense=self.arithmetic.dense,
            norm=self.arithmetic.needs_norm,
            sub_norm=norm if self.sub_norms else None,
            kernel_init=init,
            output_init=init,
            dtype=self.dtype,
            parent=None,
        )
        mixer = Attention(
            self.heads,
            self.key_heads,
            causal=True,
            local_window_size=self.local_window_size,
            rotary_theta=self.rotary_theta,
            rotary_scaling=self.rotary_scaling,
            attention=self.arithmetic.attention,
            **products,
        )
        feed_forward = FeedForward(self.hidden, self.activation, gated=True, **products)
        return Block(mixer, feed_forward, norm, dtype=self.dtype, name=name)


bitnet_2b4t = functools.partial(
    Llama,
    symbols=128_256,
    features=2560,
    layers=30,
    heads=20,
    hidden=6912,
    key_heads=5,
    activation=squared_relu,
    rotary_theta=500_000.0,
    tied=True,
    sub_norms=True,
)


@names_of(Llama)
def torch_names(model: Llama) -> dict[str, str]:
    """Return the names that Hugging Face has for every layer, for `nnlab.files.borrow`."""
    names = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    for number in range(model.layers):
        here, there = f"layer_{number}", f"model.layers.{number}"
        for part, letter in zip(("query", "key", "value", "output"), "qkvo", strict=True):
            names[f"{here}/mixer/{part}"] = f"{there}.self_attn.{letter}_proj"
        for part in ("gate", "up", "down"):
            names[f"{here}/feed_forward/{part}"] = f"{there}.mlp.{part}_proj"
        names[f"{here}/mixer/sub_norm"] = f"{there}.self_attn.attn_sub_norm"
        names[f"{here}/feed_forward/sub_norm"] = f"{there}.mlp.ffn_sub_norm"
        names[f"{here}/mixer_norm"] = f"{there}.input_layernorm"
        names[f"{here}/feed_forward_norm"] = f"{there}.post_attention_layernorm"
    return names
