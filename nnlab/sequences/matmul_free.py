r"""The language model without products of matrices: MLGRU blocks in place of attention.

With projections i, f and g of the input of a block, the MLGRU is a recurrence without products of
states, so that all its steps can be computed at once:

.. math:: f_t = l + (1 - l)\,\sigma(W_f x_t)                                            (1)

.. math:: h_t = f_t \odot h_{t-1} + (1 - f_t) \odot \mathrm{SiLU}(W_i x_t)              (2)

.. math:: y_t = W_o\bigl(\mathrm{RMSNorm}(W_g x_t) \odot \mathrm{SiLU}(h_t)\bigr)       (3)

Eq. 3 is the published code; the paper writes :math:`\sigma(g) \odot h`. The lower bound l of the
forget gate is 0 in the first block and grows with depth, learnt for all blocks together:

.. math:: l_k = \sum_{j \le k} s_j - s_0, \qquad s = \mathrm{softmax}_k(\lambda)         (4)

The other half of a block is a SwiGLU layer of 256 ⌈⌊8 m / 3⌋ / 256⌉ features. As published, all
products are ternary with a normalisation before each, that of the vocabulary too:
`MatMulFreeLM(arithmetic=BITNET, classifier=BITNET)`. With 32,000 symbols the published networks of
24 × 1024, 24 × 2048 and 32 × 2560 then have 374,108,160, 1,364,779,008 and 2,702,357,504
parameters.

References:
    Zhu et al., Scalable MatMul-free language modeling, 2024, https://arxiv.org/abs/2406.02528, and
    https://github.com/ridgerchu/matmulfreellm; Qin et al., HGRN, 2023,
    https://arxiv.org/abs/2311.04823, for eq. 4; Blelloch, Prefix sums and their applications, 1990,
    for `linear_recurrence`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax import lax

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.kernels.selection import is_for_cpu
from nnlab.layers.projections import Projection
from nnlab.layers.sequences import check_sequence
from nnlab.layers.transformer import Block, FeedForward
from nnlab.networks import Network
from nnlab.sequences.tokens import last_step, tokens_of


def linear_recurrence(
    decay: jax.Array, added: jax.Array, start: jax.Array, *, parallel: bool | None = None
) -> jax.Array:
    """All h_t = decay_t ⊙ h_{t-1} + added_t, [batch, time, n], from h = start [batch, n].

    With `parallel` an associative scan computes them in about 2 log2(time) steps, else a loop of
    `time` steps; by default a loop in programs for a CPU. There the loop compiles ten times faster
    and runs two to ten times faster, because it reads and writes every number once.
    """

    def then(first: Any, second: Any) -> Any:
        return first[0] * second[0], second[0] * first[1] + second[1]

    def step(h: jax.Array, of_step: Any) -> tuple[jax.Array, jax.Array]:
        h = of_step[0] * h + of_step[1]
        return h, h

    if not (not is_for_cpu() if parallel is None else parallel):
        along_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (decay, added))
        return jnp.swapaxes(lax.scan(step, start, along_time)[1], 0, 1)
    decay = jnp.concatenate([jnp.ones_like(start)[:, None], decay], axis=1)
    added = jnp.concatenate([start[:, None], added], axis=1)
    return lax.associative_scan(then, (decay, added), axis=1)[1][:, 1:]


class MLGRU(nn.Module):
    """Eqs. 1 to 3, [batch, time, m] to [batch, time, m].

    The state h, float32 at least, goes from call to call in the collection "carry", as in
    `nnlab.layers.sequences`.

    Attributes:
        dense: makes the layer of each projection, called as `dense(features, use_bias=…, dtype=…)`.
        norm: whether a LayerNorm follows each; see `nnlab.arithmetics.Arithmetic.needs_norm`.
        epsilon: of the RMSNorm.
        kernel_init, output_init: how real weights of i, f and g, and of the output, start.
        dtype: dtype of the computation.

    Raises:
        InputError: on the call, for inputs that are not [batch, time, m], lengths that do not fit
            them or a state of other texts.
    """

    dense: Callable[..., nn.Module] = nn.Dense
    norm: bool = False
    epsilon: float = 1e-6
    kernel_init: Initializer | None = None
    output_init: Initializer | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        lengths: jax.Array | None = None,
        lower_bound: jax.Array | None = None,
    ) -> jax.Array:
        """Run the recurrence; `lower_bound` is l [m], by default 0."""
        check_sequence(x, lengths)
        parts: Any = dict(dense=self.dense, use_bias=False, norm=self.norm, dtype=self.dtype)
        project = functools.partial(Projection, x.shape[-1], **parts)
        i, f, g = (
            project(kernel_init=self.kernel_init, name=name)(x)
            for name in ("input", "forget", "gate")
        )
        wide = jnp.promote_types(x.dtype, jnp.float32)
        f, i = nn.sigmoid(f.astype(wide)), i.astype(wide)
        if lower_bound is not None:
            bound = lower_bound.astype(wide)[None, None]
            f = bound + (1 - bound) * f  # (1)
        added = (1 - f) * nn.silu(i)
        if lengths is not None:
            counts = (jnp.arange(x.shape[1])[None] < lengths[:, None])[..., None]
            f, added = jnp.where(counts, f, 1), jnp.where(counts, added, 0)
        h = linear_recurrence(f, added, self._start(x, wide))  # (2)
        if self.is_mutable_collection("carry") and not self.is_initializing():
            self.put_variable("carry", "state", h[:, -1])
        g = nn.RMSNorm(self.epsilon, dtype=self.dtype, name="gate_norm")(g)
        y = g * nn.silu(h).astype(g.dtype)
        return project(kernel_init=self.output_init, name="output")(y)  # (3)

    def _start(self, x: jax.Array, dtype: Any) -> jax.Array:
        shape = len(x), x.shape[-1]
        if not self.has_variable("carry", "state"):
            return jnp.zeros(shape, dtype)
        state = self.get_variable("carry", "state")
        if state.shape != shape:
            raise InputError(f"the carried state must be {list(shape)}, not {list(state.shape)}.")
        return state


class MatMulFreeLM(Network):
    """Map symbols [batch, time], or `Tokens`, to logits [batch, time, symbols] of the next one.

    Its state goes from call to call as in `nnlab.layers.sequences`.

    Attributes:
        symbols: size of the vocabulary.
        features, layers: size of the network.
        hidden: features within a SwiGLU layer; by default as above.
        epsilon: of all normalisations.
        arithmetic: arithmetic of all products in the blocks.
        classifier: that of the last product.
        dtype: dtype of the computation; logits are float32 at least.

    Raises:
        InputError: on the call, for texts that are no integers or, where known, of symbols that
            there are not.
    """

    symbols: int = 32_000
    features: int = 1024
    layers: int = 24
    hidden: int | None = None
    epsilon: float = 1e-6
    arithmetic: Arithmetic = FLOAT
    classifier: Arithmetic = FLOAT
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
        embed = functools.partial(nn.Embed, embedding_init=init, dtype=self.dtype)
        x = embed(self.symbols, self.features, name="embedding")(symbols)
        shape = self.layers, self.features
        weights = self.param("lower_bounds", nn.initializers.zeros, shape, jnp.float32)
        shares = nn.softmax(weights.astype(jnp.float32), axis=0)
        bounds = jnp.cumsum(shares, axis=0) - shares[:1]  # (4)
        norm = functools.partial(nn.RMSNorm, epsilon=self.epsilon)
        for number in range(self.layers):
            bound = bounds[number] if number else None
            x = self._block(norm, f"layer_{number}")(x, train, lengths, lower_bound=bound)
        x = norm(dtype=self.dtype, name="norm")(x)
        self.sow("intermediates", "features", x)
        if last_only:
            x = last_step(x, lengths)
        y = Projection(
            self.symbols,
            self.classifier.dense,
            use_bias=False,
            norm=self.classifier.needs_norm,
            kernel_init=init,
            dtype=self.dtype,
            name="head",
        )(x)
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    def _block(self, norm: Any, name: str) -> Block:
        products: Any = dict(
            dense=self.arithmetic.dense,
            norm=self.arithmetic.needs_norm,
            dtype=self.dtype,
            parent=None,
        )
        residuals = 2 * self.layers
        mixer = MLGRU(
            epsilon=self.epsilon,
            kernel_init=_xavier(2**-2.5),
            output_init=_xavier(2**-2.5 / residuals**0.5),
            **products,
        )
        feed_forward = FeedForward(
            self.hidden or 256 * -(-(8 * self.features // 3) // 256),
            nn.silu,
            gated=True,
            fused=True,
            use_bias=False,
            kernel_init=nn.initializers.normal(0.02),
            output_init=nn.initializers.normal(0.02 / residuals**0.5),
            **products,
        )
        return Block(mixer, feed_forward, norm, dtype=self.dtype, name=name)


def _xavier(gain: float) -> Initializer:
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")
