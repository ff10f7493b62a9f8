"""GPT-2: a decoder of pre-norm blocks with learnt positions.

All products in the blocks are in `arithmetic`; the embeddings, which are also the last product, and
the normalisations stay float.

=====================  ========  ======  =====  =============
published              features  layers  heads  parameters
=====================  ========  ======  =====  =============
GPT-2 (`GPT2`)         768       12      12     124,439,808
medium                 1024      24      16     354,823,168
large                  1280      36      20     774,030,080
XL                     1600      48      25     1,557,611,200
=====================  ========  ======  =====  =============

with 50,257 symbols and 1024 positions. `nano_gpt` is nanoGPT's network for a CPU: on 65 characters
804,096 parameters.

References:
    Radford et al., Language models are unsupervised multitask learners, 2019;
    https://github.com/karpathy/nanoGPT (model.py, config/train_shakespeare_char.py), whose start of
    the weights this is; for names huggingface/transformers.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.files.borrowing import Part, Place, names_of
from nnlab.layers.attention import Attention, next_positions
from nnlab.layers.transformer import Activation, Block, FeedForward, gelu, tanh_gelu
from nnlab.networks import Network
from nnlab.sequences.tokens import last_step, tokens_of


class GPT2(Network):
    """Map symbols [batch, time], or `Tokens`, to logits [batch, time, symbols] of the next one.

    It has a cache of keys and values, `nnlab.layers.attention`.

    Attributes:
        symbols: size of the vocabulary.
        positions: most symbols of a text.
        features, layers, heads: size of the network.
        hidden: features within a feed-forward layer; by default 4 × features.
        activation: of the feed-forward layers.
        use_bias: whether layers and normalisations have biases.
        epsilon: of all normalisations.
        dropout, attention_dropout: rates of dropout on embeddings and on what layers add, and of
            attention weights (of `jax.nn.dot_product_attention` only).
        arithmetic: arithmetic of all products in the blocks.
        dtype: dtype of the computation; logits are float32 at least.

    Raises:
        InputError: on the call, for texts that are no integers, longer than `positions` or, where
            known, of symbols that there are not.
    """

    symbols: int = 50_257
    positions: int = 1024
    features: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int | None = None
    activation: Activation = tanh_gelu
    use_bias: bool = True
    epsilon: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
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
        symbols, lengths, _ = tokens_of(inputs, lengths, self.symbols, self.positions)
        embed = functools.partial(
            nn.Embed, embedding_init=nn.initializers.normal(0.02), dtype=self.dtype
        )
        word = embed(self.symbols, self.features, name="word_embedding")
        position = embed(self.positions, self.features, name="position_embedding")
        x = word(symbols) + position(next_positions(self, symbols, lengths))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        norm = functools.partial(
            nn.LayerNorm, epsilon=self.epsilon, use_bias=self.use_bias, use_fast_variance=False
        )
        for number in range(self.layers):
            x = self._block(norm, f"layer_{number}")(x, train, lengths)
        x = norm(dtype=self.dtype, name="norm")(x)
        self.sow("intermediates", "features", x)
        if last_only:
            x = last_step(x, lengths)
        y = word.attend(x)
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    def _block(self, norm: Any, name: str) -> Block:
        products: Any = dict(
            use_bias=self.use_bias,
            dense=self.arithmetic.dense,
            norm=self.arithmetic.needs_norm,
            kernel_init=nn.initializers.normal(0.02),
            output_init=nn.initializers.normal(0.02 / (2 * self.layers) ** 0.5),
            dtype=self.dtype,
            parent=None,
        )
        mixer = Attention(
            self.heads,
            causal=True,
            attention=self.arithmetic.attention,
            dropout=self.attention_dropout,
            **products,
        )
        feed_forward = FeedForward(self.hidden or 4 * self.features, self.activation, **products)
        return Block(mixer, feed_forward, norm, dropout=self.dropout, dtype=self.dtype, name=name)


nano_gpt = functools.partial(
    GPT2,
    symbols=65,
    positions=64,
    features=128,
    layers=4,
    heads=4,
    activation=gelu,
    use_bias=False,
)


@names_of(GPT2)
def torch_names(model: GPT2, prefix: str = "transformer.") -> dict[str, Place]:
    """Return the names that Hugging Face has for every layer, for `nnlab.files.borrow`.

    Dense layers are `Conv1D`s there, [in, out] as here, and queries, keys and values are one.

    Args:
        model: the network.
        prefix: of all names, "" in the first published files.
    """
    names: dict[str, Place] = {
        "word_embedding": f"{prefix}wte",
        "position_embedding": f"{prefix}wpe",
        "norm": f"{prefix}ln_f",
    }
    for number in range(model.layers):
        here, there = f"layer_{number}", f"{prefix}h.{number}"
        for index, part in enumerate(("query", "key", "value")):
            names[f"{here}/mixer/{part}"] = Part(f"{there}.attn.c_attn", index, 3, conv1d=True)
        for layer, name in {
            "mixer/output": "attn.c_proj",
            "feed_forward/up": "mlp.c_fc",
            "feed_forward/down": "mlp.c_proj",
        }.items():
            names[f"{here}/{layer}"] = Part(f"{there}.{name}", conv1d=True)
        names[f"{here}/mixer_norm"] = f"{there}.ln_1"
        names[f"{here}/feed_forward_norm"] = f"{there}.ln_2"
    return names
