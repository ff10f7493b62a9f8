"""BERT: an encoder of text, with heads for classes and for masked words.

Embeddings of symbols, positions and types are added and normalised; `layers` post-norm blocks of
attention and a feed-forward layer follow (`nnlab.layers.transformer`, eq. 2), in which all products
are in `arithmetic`. Embeddings, pooler and heads stay float, as in TernaryBERT, BinaryBERT and BiT.

=====================  ========  ======  =====  ===========
published              features  layers  heads  parameters
=====================  ========  ======  =====  ===========
BERT-tiny              128       2       2      4,385,920
BERT-mini              256       4       4      11,170,560
BERT-small             512       4       8      28,763,648
BERT-medium            512       8       8      41,373,184
MiniLM-L6 (`MINILM`)   384       6       12     22,713,216
MiniLM-L12             384       12      12     33,360,000
BERT-base, uncased     768       12      12     109,482,240
=====================  ========  ======  =====  ===========

with the pooler and 30,522 symbols; a head of k classes has k (features + 1) more.

References:
    Devlin et al., BERT, 2018, https://arxiv.org/abs/1810.04805; Turc et al., 2019,
    https://arxiv.org/abs/1908.08962, for the small ones; Wang et al., MiniLM, 2020,
    https://arxiv.org/abs/2002.10957; for names and the epsilon huggingface/transformers.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.files.borrowing import names_of
from nnlab.layers.attention import Attention
from nnlab.layers.transformer import Activation, Block, FeedForward, gelu
from nnlab.networks import Network
from nnlab.sequences.tokens import tokens_of

MINILM: dict[str, Any] = {"features": 384, "layers": 6, "heads": 12}
_OF_FLAX = "parent", "name"  # fields of every module
_INIT = nn.initializers.normal(0.02)


class Encoded(NamedTuple):
    """What `Bert` gives.

    Attributes:
        hidden: [batch, time, features] of the last block.
        pooled: [batch, features], or None without a pooler.
    """

    hidden: jax.Array
    pooled: jax.Array | None


class Bert(Network):
    """Encode symbols [batch, time], or `Tokens`.

    A text begins with the class symbol, which the pooler looks at, and is padded at its end. What
    is padding, by `lengths` [batch], is attended to by nobody.

    Attributes:
        symbols: size of the vocabulary.
        positions: most symbols of a text.
        types: number of types of symbols.
        features, layers, heads: size of the network.
        hidden: features within a feed-forward layer; by default 4 × features.
        activation: of the feed-forward layers.
        epsilon: of all normalisations.
        dropout, attention_dropout: rates of dropout on embeddings and on what layers add, and of
            attention weights (of `jax.nn.dot_product_attention` only).
        pooler: whether there is a dense layer with tanh on the first symbol.
        arithmetic: arithmetic of all products in the blocks.
        dtype: dtype of the computation; outputs are float32 at least.

    Raises:
        InputError: on the call, for texts that are no integers, longer than `positions` or, where
            known, of symbols that there are not.
    """

    symbols: int = 30_522
    positions: int = 512
    types: int = 2
    features: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int | None = None
    activation: Activation = gelu
    epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    pooler: bool = True
    arithmetic: Arithmetic = FLOAT
    dtype: Dtype | None = None

    idle_parameters = ("type_embedding",)  # the words of most texts are of one type

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False, lengths: jax.Array | None = None) -> Any:
        symbols, lengths, types = tokens_of(inputs, lengths, self.symbols, self.positions)
        embed = functools.partial(nn.Embed, embedding_init=_INIT, dtype=self.dtype)
        word = embed(self.symbols, self.features, name="word_embedding")
        position = embed(self.positions, self.features, name="position_embedding")
        of_type = embed(self.types, self.features, name="type_embedding")
        x = word(symbols) + position(jnp.arange(symbols.shape[1])[None])
        x += of_type(jnp.zeros_like(symbols) if types is None else types)
        x = self._norm(dtype=self.dtype, name="embedding_norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for number in range(self.layers):
            x = self._block(f"layer_{number}")(x, train, lengths)
        pooled = None
        if self.pooler:
            dense = nn.Dense(self.features, kernel_init=_INIT, dtype=self.dtype, name="pooler")
            pooled = _wide(nn.tanh(dense(x[:, 0])))
        return Encoded(_wide(x), pooled)

    @property
    def _norm(self) -> Any:
        return functools.partial(nn.LayerNorm, epsilon=self.epsilon, use_fast_variance=False)

    def _block(self, name: str) -> Block:
        products: Any = dict(
            dense=self.arithmetic.dense,
            norm=self.arithmetic.needs_norm,
            kernel_init=_INIT,
            output_init=_INIT,
            dtype=self.dtype,
            parent=None,
        )
        mixer = Attention(
            self.heads,
            attention=self.arithmetic.attention,
            dropout=self.attention_dropout,
            **products,
        )
        after_relu = self.arithmetic.dense_after_relu if self.activation is nn.relu else None
        hidden = self.hidden or 4 * self.features
        feed_forward = FeedForward(hidden, self.activation, down_dense=after_relu, **products)
        options: Any = dict(pre_norm=False, dropout=self.dropout, dtype=self.dtype)
        return Block(mixer, feed_forward, self._norm, **options, name=name)


class BertClassifier(Bert):
    """Map texts as `Bert` takes them to logits [batch, classes], by the pooled class symbol.

    The other attributes are those of `Bert`, which is the part `bert`.
    """

    classes: int = 2

    @nn.compact
    def __call__(
        self, inputs: Any, train: bool = False, lengths: jax.Array | None = None
    ) -> jax.Array:
        x = _encoder(self, pooler=True)(inputs, train, lengths).pooled
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        dense = nn.Dense(self.classes, kernel_init=_INIT, dtype=self.dtype, name="classifier")
        return _wide(dense(x))


class BertMaskedLM(Bert):
    """Map texts as `Bert` takes them to logits [batch, time, symbols] of what each symbol was.

    The last product is with the embeddings of the symbols. The attributes are those of `Bert`,
    which is the part `bert` and has no pooler.
    """

    @nn.compact
    def __call__(
        self, inputs: Any, train: bool = False, lengths: jax.Array | None = None
    ) -> jax.Array:
        bert = _encoder(self, pooler=False)
        x = bert(inputs, train, lengths).hidden
        x = nn.Dense(self.features, kernel_init=_INIT, dtype=self.dtype, name="transform")(x)
        x = self._norm(dtype=self.dtype, name="transform_norm")(self.activation(x))
        bias = self.param("bias", nn.initializers.zeros, (self.symbols,), jnp.float32)
        words = bert.variables["params"]["word_embedding"]["embedding"]
        x, words, bias = promote_dtype(x, words, bias, dtype=self.dtype)
        return _wide(jnp.einsum("btm,sm->bts", x, words) + bias[None, None])


def _encoder(model: Bert, pooler: bool) -> Bert:
    fields = [field.name for field in dataclasses.fields(Bert)]
    options: Any = {name: getattr(model, name) for name in fields if name not in _OF_FLAX}
    return Bert(**options | {"pooler": pooler}, name="bert")


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@names_of(Bert)
def torch_names(model: Bert, prefix: str = "bert.") -> dict[str, str]:
    """Return the names that Hugging Face has for every layer, for `nnlab.files.borrow`.

    Args:
        model: a `Bert`, or one with a head.
        prefix: of the encoder's names beside a head's; those of a `Bert` alone have none.
    """
    names = {
        "word_embedding": "embeddings.word_embeddings",
        "position_embedding": "embeddings.position_embeddings",
        "type_embedding": "embeddings.token_type_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense",
    }
    for number in range(model.layers):
        here, there = f"layer_{number}", f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            names[f"{here}/mixer/{part}"] = f"{there}.attention.self.{part}"
        names[f"{here}/mixer/output"] = f"{there}.attention.output.dense"
        names[f"{here}/mixer_norm"] = f"{there}.attention.output.LayerNorm"
        names[f"{here}/feed_forward/up"] = f"{there}.intermediate.dense"
        names[f"{here}/feed_forward/down"] = f"{there}.output.dense"
        names[f"{here}/feed_forward_norm"] = f"{there}.output.LayerNorm"
    if type(model) is Bert:
        return names
    names = {f"bert/{here}": f"{prefix}{there}" for here, there in names.items()}
    heads = {"classifier": "classifier"}
    if isinstance(model, BertMaskedLM):
        heads = {
            "transform": "cls.predictions.transform.dense",
            "transform_norm": "cls.predictions.transform.LayerNorm",
            "": "cls.predictions",
        }
    return names | heads
