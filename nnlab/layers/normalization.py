"""The normalisation that follows every layer of this kit's models."""

import flax.linen as nn
from flax.typing import Dtype


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
