"""The loss of pixels: cross-entropy without those that are ignored, with weights of classes."""

import jax
import jax.numpy as jnp
import optax
from numpy.typing import ArrayLike

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.vision.segmentation.measures import IGNORE


def pixel_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    ignore: int = IGNORE,
) -> jax.Array:
    """Return the mean cross-entropy of pixels, a float32 number.

    Args:
        logits: [..., classes].
        labels: numbers of classes, integers [...].
        weights: of the classes, [classes], such as `median_frequency_weights`; the mean is then
            that of pixels by the weights of their classes.
        ignore: the label of pixels that do not count. A batch of these alone has a loss of 0.

    Raises:
        InputError: there is not one label for each pixel of the logits, labels are no integers, or
            there is not one weight a class.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    check_shape("labels", labels, logits.shape[:-1])
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(f"labels are {labels.dtype}, expected integers, the numbers of classes.")
    counted = labels != ignore
    classes = jnp.where(counted, labels, 0).astype(jnp.int32)
    each = counted.astype(jnp.float32)
    if weights is not None:
        weights = jnp.asarray(weights, jnp.float32)
        check_shape("weights of classes", weights, logits.shape[-1:])
        each = each * weights[classes]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), classes)
    return jnp.sum(each * losses) / jnp.maximum(each.sum(), jnp.finfo(jnp.float32).tiny)
