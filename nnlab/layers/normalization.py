"""The normalisation that follows every layer of this kit's models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax


def batch_norm(
    train: bool,
    dtype: Dtype | None = None,
    axis_name: str | None = None,
    *,
    epsilon: float = 1e-5,
    name: str | None = None,
) -> nn.BatchNorm:
    """Batch normalisation over all axes but the last.

    Running statistics move by a tenth a step. Flax's default of a hundredth is too slow for adder
    layers, whose outputs start near minus the number of terms rather than near 0. For the same
    reason the variance is the mean squared distance from the mean, and not Flax's faster difference
    of the mean square and the squared mean: over 4,608 adder terms that loses all but three digits.

    The running variance is that of the batches as they are, with the divisor n, as in Flax.
    PyTorch's has n - 1, though it normalises a training batch by n as well. Borrowed statistics
    serve as they are; a training that goes on moves them to n.

    Args:
        train: normalise by the batch and move the running statistics, which serve otherwise.
        dtype: of the output; by default that of input and parameters together, float32 at least.
            Parameters, statistics and what is computed from them are float32 in any case.
        axis_name: of `jax.pmap` or `jax.shard_map`; the batch is then that of all devices along
            it, not of each. Under `jax.jit` on a mesh it is that of all devices without a name.
        epsilon: added to the variance.
        name: of the module; by default Flax's.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name,
        use_fast_variance=False,
        name=name,
    )


class FrozenBatchNorm(nn.Module):
    """BatchNorm of x [..., features] that stays as it is, statistics, scale and bias.

    All four are in the collection "batch_stats", so that no optimiser sees them and no training
    moves them: what detectors make of the normalisation of a backbone that others have trained.

    Attributes:
        epsilon: added to the variance.
        dtype: of the output; by default that of the input, float32 at least.
    """

    epsilon: float = 1e-5
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def kept(name: str, value: float) -> jax.Array:
            shape = (x.shape[-1],)
            own = self.variable("batch_stats", name, jnp.full, shape, value, jnp.float32)
            return lax.broadcast_to_rank(lax.stop_gradient(own.value), x.ndim)

        mean, variance = kept("mean", 0.0), kept("var", 1.0)
        factor = lax.rsqrt(variance + self.epsilon) * kept("scale", 1.0)
        y = (x - mean) * factor + kept("bias", 0.0)
        return y.astype(self.dtype or jnp.promote_types(x.dtype, jnp.float32))


def group_norm(groups: int, dtype: Dtype | None = None, *, name: str | None = None) -> nn.GroupNorm:
    """Group normalisation of x [..., features], of each example and group of features by itself.

    As of `batch_norm`, the variance is the mean squared distance from the mean.

    Args:
        groups: how many, which divides the features.
        dtype, name: as for `batch_norm`.
    """
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name)
