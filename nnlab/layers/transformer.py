r"""Blocks of transformers: a layer that mixes steps, one that works on each, and their residuals.

.. math:: y = x + \mathrm{mix}(\mathrm{norm}(x)), \qquad
          z = y + \mathrm{ff}(\mathrm{norm}(y))                       (1, pre-norm)

.. math:: y = \mathrm{norm}(x + \mathrm{mix}(x)), \qquad
          z = \mathrm{norm}(y + \mathrm{ff}(y))                       (2, post-norm)

The feed-forward layer is, with an activation a, and gated as in SwiGLU (a = SiLU) or in BitNet
b1.58 2B4T (a = squared ReLU),

.. math:: \mathrm{ff}(x) = W_d\, a(W_u x), \qquad
          \mathrm{ff}(x) = W_d\,\bigl(a(W_g x) \odot W_u x\bigr)       (3)

A sub-norm is one more normalisation right before W_d, or before the output's projection of an
attention (Wang et al., Foundation transformers, 2022, https://arxiv.org/abs/2210.06423).

References:
    Vaswani et al., Attention is all you need, 2017, https://arxiv.org/abs/1706.03762, for eq. 2;
    Radford et al., Language models are unsupervised multitask learners, 2019, for eq. 1; Shazeer,
    GLU variants improve transformer, 2020, https://arxiv.org/abs/2002.05202; So et al., Primer,
    2021, https://arxiv.org/abs/2109.08668, for the squared ReLU; Huang et al., Deep networks with
    stochastic depth, 2016, https://arxiv.org/abs/1603.09382.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from nnlab.layers.projections import Projection

Activation = Callable[[jax.Array], jax.Array]


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, exactly (BERT, ViT)."""
    return nn.gelu(x, approximate=False)


def tanh_gelu(x: jax.Array) -> jax.Array:
    """The approximation of `gelu` by a tanh that GPT-2 was trained with."""
    return nn.gelu(x, approximate=True)


def squared_relu(x: jax.Array) -> jax.Array:
    """The square of a ReLU."""
    return jnp.square(nn.relu(x))


class FeedForward(nn.Module):
    """Eq. 3 at each step, [..., m] to [..., m].

    Attributes:
        hidden: number of features in between.
        activation: a.
        gated: the second form of eq. 3.
        fused: whether W_g and W_u, in this order, are one layer `gate` of 2 hidden outputs.
        use_bias, dense, norm: as for `nnlab.layers.Attention`.
        down_dense: makes W_d; by default `dense`. After a ReLU, whose outputs are not negative, see
            `nnlab.arithmetics.Arithmetic.dense_after_relu`.
        sub_norm: makes the normalisation before the last projection, if there is one.
        kernel_init, output_init: how real weights of W_u and W_g, and of W_d, start.
        dtype: dtype of the computation.
    """

    hidden: int
    activation: Activation = gelu
    gated: bool = False
    fused: bool = False
    use_bias: bool = True
    dense: Callable[..., nn.Module] = nn.Dense
    down_dense: Callable[..., nn.Module] | None = None
    norm: bool = False
    sub_norm: Callable[..., nn.Module] | None = None
    kernel_init: Initializer | None = None
    output_init: Initializer | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts: Any = dict(
            dense=self.dense, use_bias=self.use_bias, norm=self.norm, dtype=self.dtype
        )

        def product(name: str, features: int) -> jax.Array:
            return Projection(features, kernel_init=self.kernel_init, name=name, **parts)(x)

        if not self.gated:
            y = self.activation(product("up", self.hidden))
        else:
            if self.fused:
                gate, y = jnp.split(product("gate", 2 * self.hidden), 2, axis=-1)
            else:
                gate, y = product("gate", self.hidden), product("up", self.hidden)
            y = self.activation(gate) * y
        if self.sub_norm is not None:
            y = self.sub_norm(dtype=self.dtype, name="sub_norm")(y)
        parts["dense"] = self.down_dense or self.dense
        return Projection(x.shape[-1], kernel_init=self.output_init, name="down", **parts)(y)


class Block(nn.Module):
    """Eq. 1 or 2, [batch, time, m] to [batch, time, m].

    Attributes:
        mixer: called as `mixer(x, train, lengths)`, such as `nnlab.layers.Attention`; further
            keywords of a call are for it.
        feed_forward: called as `feed_forward(x)`.
        norm: makes the normalisations, called as `norm(dtype=…, name=…)`.
        pre_norm: eq. 1, or eq. 2.
        dropout: rate of dropout on what both layers add.
        drop_path: how often a layer is left out for an example in training (stochastic depth).
        dtype: dtype of the computation.
    """

    mixer: nn.Module
    feed_forward: nn.Module
    norm: Callable[..., nn.Module] = nn.LayerNorm
    pre_norm: bool = True
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, lengths: jax.Array | None = None, **options: Any
    ) -> jax.Array:
        def mix(x: jax.Array) -> jax.Array:
            return self.mixer(x, train, lengths, **options)

        for name, layer in (("mixer", mix), ("feed_forward", self.feed_forward)):
            norm = self.norm(dtype=self.dtype, name=f"{name}_norm")
            y = layer(norm(x) if self.pre_norm else x)
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            y = nn.Dropout(self.drop_path, broadcast_dims=(1, 2), deterministic=not train)(y)
            x = x + y if self.pre_norm else norm(x + y)
        return x
