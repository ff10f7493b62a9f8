"""Recurrent cells whose matrix products are in any arithmetic: `nnlab.ops.recurrent` with weights.

They are cells as Flax has them, `cell(carry, x) -> (carry, y)`, and work wherever Flax's own do
(`flax.linen.RNN`, for example); Flax's work wherever these do, in `nnlab.layers.Recurrent`. In
float and with the same weights they compute what Flax's compute. They also take `dense`, the layer
that multiplies, such as `ADDER.dense`, and one product serves all gates.

=================  =======  ==================================
cell               gates    parameters in float
=================  =======  ==================================
`SimpleCell`       1        n (m + n + 1)
`GRUCell`          r z n    3 n (m + n + 1) + n
`LSTMCell`         i f g o  4 n (m + n + 1)
`GravesLSTMCell`   i f g o  4 n (m + n + 1) + 3 n
=================  =======  ==================================

for m inputs and n units. `norm` adds a LayerNorm without offset after each of the two products,
over all of its gates, and one before the tanh of an LSTM's output (Ba et al., Layer
normalization, 2016, https://arxiv.org/abs/1607.06450, eqs. 20 to 22). Adder products need it: they
lie near minus the number of their terms, where every gate is shut and flat.

References:
    Those of `nnlab.ops.recurrent`; for the start of the forget gate's bias Gers et al., Learning to
    forget, 2000, and Jozefowicz et al., ICML 2015.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax import lax

from nnlab.errors import check_maker
from nnlab.ops.recurrent import (
    Peepholes,
    gru_step,
    lstm_step,
    simple_step,
)


class Cell(nn.RNNCellBase):
    """What the cells share: the products of input and state, and their bias.

    A cell is called as `cell(carry, x, kept=None)`, x [..., m], and gives `(carry, y)`, y [..., n];
    `kept` [..., n] multiplies the state where it enters its product, for dropout.

    Attributes:
        features: number of units n.
        dense: makes the layer of each product, called as `dense(features, use_bias=…, dtype=…)`;
            by default Flax's.
        norm: whether a LayerNorm follows each product; see `Arithmetic.needs_norm`.
        kernel_init, recurrent_kernel_init: how the weights of input and state start; by default as
            `dense` has it, but for Flax's layer LeCun's and an orthogonal matrix for each gate.
        dtype: dtype of the computation, by default that of inputs and parameters together; the
            carry is float32 at least, because many small steps add up in it.
    """

    gates: ClassVar[int]

    features: int
    dense: Callable[..., nn.Module] = nn.Dense
    norm: bool = False
    kernel_init: Initializer | None = None
    recurrent_kernel_init: Initializer | None = None
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        check_maker("dense", self.dense, "nnlab.arithmetics.ADDER.dense")
        super().__post_init__()

    def setup(self):
        orthogonal = _a_gate(nn.initializers.orthogonal(), self.gates)
        self.input = self._product(self.kernel_init, nn.initializers.lecun_normal())
        self.recurrent = self._product(self.recurrent_kernel_init, orthogonal)
        self.bias = self.param("bias", self._bias_init, (self.gates * self.features,))
        if self.norm:
            self.input_norm, self.recurrent_norm = self._layer_norm(), self._layer_norm()

    def _product(self, given: Initializer | None, of_flax: Initializer) -> nn.Module:
        layer = self.dense(self.gates * self.features, use_bias=False, dtype=self.dtype)
        init = given or (of_flax if isinstance(layer, nn.Dense) else None)
        return layer.clone(kernel_init=init) if init else layer

    def _layer_norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(use_bias=False, use_fast_variance=False, dtype=self.dtype)

    def _bias_init(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros(shape, jnp.float32)

    def _products(
        self, x: jax.Array, h: jax.Array, kept: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return what input and state contribute to the gates, each [..., gates n].

        Both are computed step by step: all inputs in one product before the loop would be fewer
        calls, but write and read an array of [batch, time, gates n], which takes longer on a CPU.
        """
        x, s = self.input(x), self.recurrent(h if kept is None else h * kept.astype(h.dtype))
        if self.norm:
            x, s = self.input_norm(x), self.recurrent_norm(s)
        return x + lax.broadcast_to_rank(self.bias.astype(x.dtype), x.ndim), s

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> Any:
        """Return zeros for inputs [..., m]; `rng` is there because Flax's cells have it."""
        dtype = jnp.promote_types(self.dtype or jnp.float32, jnp.float32)
        return jnp.zeros((*input_shape[:-1], self.features), dtype)

    @property
    def num_feature_axes(self) -> int:
        return 1


class SimpleCell(Cell):
    """Elman's, eq. 1; the carry is the state h [batch, n]."""

    gates = 1

    def __call__(self, carry, inputs, kept=None):
        x, s = self._products(inputs, carry, kept)
        h = simple_step(x, s)
        return h.astype(carry.dtype), h.astype(x.dtype)


class GRUCell(Cell):
    """The gated recurrent unit, eqs. 2 and 3; the carry is the state h [batch, n]."""

    gates = 3

    def setup(self):
        super().setup()
        self.recurrent_bias = self.param("recurrent_bias", self._bias_init, (self.features,))

    def __call__(self, carry, inputs, kept=None):
        x, s = self._products(inputs, carry, kept)
        h = gru_step(carry, x, s, self.recurrent_bias.astype(x.dtype))
        return h.astype(carry.dtype), h.astype(x.dtype)


class LSTMCell(Cell):
    """Long short-term memory, eqs. 4 to 6; the carry is (c, h), each [batch, n].

    `forget_bias` is what the forget gate's bias starts at: 0 as in Flax, with 1 the cell remembers
    until it learns not to.
    """

    gates = 4
    forget_bias: float = 0.0

    def setup(self):
        super().setup()
        if self.norm:
            self.cell_norm = self._layer_norm()

    def _bias_init(self, key, shape):
        zeros = super()._bias_init(key, shape)
        return zeros.at[self.features : 2 * self.features].set(self.forget_bias)

    def _peepholes(self) -> Peepholes | None:
        return None

    def __call__(self, carry, inputs, kept=None):
        x, s = self._products(inputs, carry[1], kept)
        norm = {"norm": self.cell_norm} if self.norm else {}
        c, h = lstm_step(carry[0], x, s, self._peepholes(), **norm)
        return (c.astype(carry[0].dtype), h.astype(carry[1].dtype)), h.astype(x.dtype)

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        zeros = super().initialize_carry(rng, input_shape)
        return zeros, zeros


class GravesLSTMCell(LSTMCell):
    """The LSTM with diagonal peepholes [n] of eqs. 4 and 6, which start at zero."""

    def setup(self):
        super().setup()
        self.peepholes = [
            self.param(f"{gate}_peephole", nn.initializers.zeros, (self.features,), jnp.float32)
            for gate in Peepholes._fields
        ]

    def _peepholes(self):
        return Peepholes(*self.peepholes)


def _a_gate(init: Initializer, gates: int) -> Initializer:
    """`init` for each gate's part of a kernel [n, gates n]."""

    def of_all(key, shape, dtype=jnp.float32):
        keys = jax.random.split(key, gates)
        part = (shape[0], shape[1] // gates)
        return jnp.concatenate([init(key, part, dtype) for key in keys], axis=1)

    return of_all
