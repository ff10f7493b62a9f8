"""The linear attention of ShiftAddViT as a layer: `nnlab.ops.shift_attention` with its filters."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.ops.attention import Window
from nnlab.ops.shift_attention import MeanOver, shift_attention


class ShiftAttention(nn.Module):
    """Linear attention of an encoder by bits of queries and keys.

    Attributes:
        taps: tokens that a filter along time sees, an odd number; one filter a head, which starts
            uniform as in PyTorch.
        mean_over: see `nnlab.ops.shift_attention`.
    """

    taps: int = 9
    mean_over: MeanOver = "token"

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        *,
        mask: jax.Array | None = None,
        is_causal: bool = False,
        local_window_size: Window = None,
        scale: float | None = None,
    ) -> jax.Array:
        """Attend; see `nnlab.ops.shift_attention.shift_attention`.

        Raises:
            InputError: it is asked for what a linear attention does not do: a causal order, a
                window, or a scale.
        """
        if is_causal or local_window_size is not None or scale is not None:
            raise InputError(
                "ShiftAttention sees all tokens, without a scale; expected is_causal=False, "
                f"local_window_size=None and scale=None, not {is_causal}, {local_window_size} "
                f"and {scale}."
            )
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        shape = (self.taps, 1, query.shape[2])
        filters = self.param("filters", uniform, shape, jnp.float32)[:, 0]
        return shift_attention(query, key, value, filters, mask=mask, mean_over=self.mean_over)
