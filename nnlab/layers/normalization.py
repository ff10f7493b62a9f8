"""The normalisation that stands behind every layer of this kit's models."""

import flax.linen as nn


def batch_norm(train: bool) -> nn.BatchNorm:
    """Batch normalisation over all axes but the last, epsilon 1e-5.

    Running statistics move by a tenth a step. Flax's default of a hundredth is too slow for adder
    layers, whose outputs start near minus the number of terms rather than near 0.
    """
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
