"""Stacked recurrent layers with an output at every step, in any arithmetic.

A network has `layers` layers of `features` units in any cell, in both directions with
`bidirectional`, and a dense output layer with a bias. A `LanguageModel` begins with an embedding of
the symbols, which is what the first product would be for one-hot symbols.

An LSTM of L layers with m inputs, n units and k outputs has 4n (m + n + 1) + 4n (2n + 1) (L - 1) +
k (n + 1) parameters, and an embedding of s symbols s n more: 2 layers of 128 units on 65 characters
have 279,873.

References:
    Karpathy, The unreasonable effectiveness of recurrent neural networks, 2015, for 2×128 on
    characters; for the cells see `nnlab.ops.recurrent` and `nnlab.layers.sequences`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.files.borrowing import Gates, Place, names_of
from nnlab.layers.recurrent import Cell, GRUCell, LSTMCell
from nnlab.layers.sequences import Bidirectional, Recurrent, Stacked
from nnlab.networks import Network


class RecurrentNet(Network):
    """A network that maps [batch, time, m] to outputs [batch, time, k].

    `lengths` and the state from call to call are as in `nnlab.layers.sequences`.

    Attributes:
        outputs: k.
        features: units n a layer (and direction).
        layers: number of layers.
        cell: class of the cells, from `nnlab.layers`.
        arithmetic: arithmetic of the products in all cells.
        classifier: arithmetic of the output layer.
        norm: LayerNorm in the cells, which adders need (`nnlab.layers.recurrent`).
        bidirectional: each layer has a second cell, which runs from the end.
        dropout, recurrent_dropout: dropout rates on the inputs of all layers and on their states,
            drawn once a sequence.
        dtype: dtype of the computation; outputs are float32 at least.

    Raises:
        InputError: `layers` or `features` is below 1.
    """

    outputs: int
    features: int = 128
    layers: int = 2
    cell: type[Cell] = LSTMCell
    arithmetic: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    norm: bool = False
    bidirectional: bool = False
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, lengths: jax.Array | None = None
    ) -> jax.Array:
        stack = [self._layer(number) for number in range(1, self.layers + 1)]
        x = Stacked(stack, self.dropout, name="stack")(x, lengths, train)
        self.sow("intermediates", "features", x)
        dense = self.classifier.dense
        y = dense(self.outputs, use_bias=True, dtype=self.dtype, name="classifier")(x)
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    def _layer(self, number: int) -> nn.Module:
        dense = self.arithmetic.dense
        cell = functools.partial(self.cell, self.features, dense, self.norm, dtype=self.dtype)
        layer = functools.partial(Recurrent, dropout=self.recurrent_dropout)
        forward = layer(cell(name=f"cell{number}"), name=f"layer{number}")
        if not self.bidirectional:
            return forward
        back = layer(cell(name=f"back{number}"), reverse=True, name=f"layer{number}_back")
        return Bidirectional(forward, back, name=f"both{number}")


class LanguageModel(Network):
    """A network that maps symbols [batch, time] to logits [batch, time, symbols] of the next.

    A symbol is an integer below `symbols`. The other attributes are those of `RecurrentNet`; the
    embedding has `features` numbers.
    """

    symbols: int
    features: int = 128
    layers: int = 2
    cell: type[Cell] = LSTMCell
    arithmetic: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
    norm: bool = False
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, lengths: jax.Array | None = None
    ) -> jax.Array:
        x = nn.Embed(self.symbols, self.features, dtype=self.dtype, name="embedding")(x)
        names = "features layers cell arithmetic classifier norm dropout recurrent_dropout dtype"
        options = {name: getattr(self, name) for name in names.split()}
        return RecurrentNet(self.symbols, **options, name="network")(x, train, lengths)


@names_of(RecurrentNet, LanguageModel)
def torch_names(
    model: RecurrentNet | LanguageModel,
    recurrent: str = "lstm",
    classifier: str = "fc",
    embedding: str = "embedding",
) -> dict[str, Place]:
    """Return the names that a PyTorch module has for every layer, for `nnlab.files.borrow`.

    Args:
        model: of `LSTMCell`, `GRUCell` or `SimpleCell` without `norm`.
        recurrent: what the module calls its `torch.nn.LSTM`, `GRU` or `RNN` (with tanh).
        classifier, embedding: what it calls the `torch.nn.Linear` after it, and the
            `torch.nn.Embedding` before it.
    """
    names: dict[str, Place] = {"classifier": classifier}
    gru = issubclass(model.cell, GRUCell)
    for layer in range(model.layers):
        names[f"cell{layer + 1}"] = Gates(recurrent, f"_l{layer}", gru)
        names[f"back{layer + 1}"] = Gates(recurrent, f"_l{layer}_reverse", gru)
    if isinstance(model, RecurrentNet):
        return names
    return {f"network/{here}": there for here, there in names.items()} | {"embedding": embedding}
