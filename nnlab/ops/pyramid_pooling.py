"""Spatial pyramid pooling: images of any size to vectors of one length.

References:
    He et al., Spatial pyramid pooling in deep convolutional networks, ECCV 2014,
    https://arxiv.org/abs/1406.4729, section 2.2.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nnlab.errors import InputError
from nnlab.ops.adaptive_pooling import adaptive_max_pool


def spatial_pyramid_pool(x: jax.Array, bins: Sequence[int] = (4, 2, 1)) -> jax.Array:
    """Maxima of bins · bins parts of the image, for each of `bins`, one after the other.

    Args:
        x: images [batch, height, width, channels], floating, of at least one pixel.
        bins: of each level along height and along width. The paper has (4, 2, 1), 21 numbers a
            channel, and (6, 3, 2, 1), 50.

    Returns:
        [batch, channels · sum of bins²], dtype of `x`: level by level, row by row, the channels of
        a part side by side.

    Raises:
        ValueError: `x` has not four axes or no pixel, or `bins` is empty or has one not positive.
    """
    if len(bins) == 0:
        raise InputError("spatial_pyramid_pool needs one level of bins or more, not none.")
    levels = [adaptive_max_pool(x, level) for level in bins]
    return jnp.concatenate([level.reshape(x.shape[0], -1) for level in levels], axis=1)
