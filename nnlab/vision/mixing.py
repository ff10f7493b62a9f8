r"""Augmentation that mixes images of a batch, and their labels with them.

Image i meets image :math:`\pi(i)` of a random order of the same batch; both give their part:

.. math:: \tilde x_i = \lambda x_i + (1 - \lambda) x_{\pi(i)}                             (1)
.. math:: \tilde y_i = \lambda y_i + (1 - \lambda) y_{\pi(i)}, \quad
          \lambda \sim \mathrm{Beta}(\alpha, \alpha)                                      (2)

CutMix puts a box of the one image into the other in place of (1), and lambda in (2) is the part of
the pixels that stay. One lambda, and one box, are drawn for each batch, as in the authors' code.

    step = train_step(model, optimizer, augment=vision.random_crop_and_flip,
                      mix=functools.partial(vision.mixup, classes=10))

Labels become soft, the share of each class; `nnlab.training.cross_entropy` and `accuracy` take
them so.

References:
    Zhang et al., mixup: beyond empirical risk minimization, ICLR 2018,
    https://arxiv.org/abs/1710.09412, section 2; alpha 1 for CIFAR-10, 0.2 for ImageNet.
    Yun et al., CutMix, ICCV 2019, https://arxiv.org/abs/1905.04899, eqs. 1 and 2; alpha 1, with
    probability 0.5 for CIFAR and 1 for ImageNet in the authors' code.
"""

import jax
import jax.numpy as jnp
from jax.core import Tracer

from nnlab.errors import InputError
from nnlab.ops.keys import check_key
from nnlab.training.losses import soft_labels
from nnlab.vision.augment import check_rank


def mixup(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    classes: int,
    alpha: float = 1.0,
    probability: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Blend each image with another of its batch by (1), and their labels by (2).

    Args:
        key: of the order and lambda.
        images: floats [n, height, width, channels].
        labels: integers [n], or soft labels [n, classes].
        classes: their number.
        alpha: of the beta distribution; near 0 one image prevails, at 1 every lambda is as likely.
        probability: of mixing a batch at all.

    Returns:
        Images of the same shape and dtype, and soft labels, float32 [n, classes].

    Raises:
        InputError: images or labels are of another shape or dtype, `alpha` is not positive, or the
            probability not from 0 to 1.
    """
    check_key(key)
    _check(images, alpha, probability)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images to blend are {images.dtype}, expected floats.")
    soft = soft_labels(labels, classes)
    order, share, _ = _drawn(key, images, alpha, probability)
    share = share.astype(images.dtype)
    blended = share * images + (1 - share) * images[order]  # (1)
    return blended, _mixed(soft, order, share)


def cutmix(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    classes: int,
    alpha: float = 1.0,
    probability: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Put a box of another image of the batch into each image, and mix their labels by (2).

    The box has sqrt(1 - lambda) of the image's height and width, rounded down to even numbers,
    around a pixel that is drawn; what would lie outside of the image is cut off, and lambda made
    that of the rest.

    Args:
        key: of the order, lambda and the box.
        images: [n, height, width, channels], of any dtype.
        labels, classes, alpha, probability: as for `mixup`.

    Returns:
        Images of the same shape and dtype, and soft labels, float32 [n, classes].

    Raises:
        InputError: as for `mixup`, but for the dtype of images.
    """
    check_key(key)
    _check(images, alpha, probability)
    soft = soft_labels(labels, classes)
    order, share, box_key = _drawn(key, images, alpha, probability)
    size = images.shape[1:3]
    centre = jax.random.randint(box_key, (2,), 0, jnp.array(size))
    inside = [
        _within(n, middle, jnp.floor(n * jnp.sqrt(1 - share)).astype(jnp.int32))
        for n, middle in zip(size, centre, strict=True)
    ]
    box = inside[0][:, None] & inside[1]
    share = 1 - box.mean(dtype=jnp.float32)
    return jnp.where(box[..., None], images[order], images), _mixed(soft, order, share)


def _within(size: int, middle: jax.Array, length: jax.Array) -> jax.Array:
    """Return which places of an axis lie in the box, bool [size]."""
    place, half = jnp.arange(size), length // 2
    return (place >= middle - half) & (place < middle + half)


def _drawn(
    key: jax.Array, images: jax.Array, alpha: float, probability: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw the order [n] and lambda, and return a key for more."""
    order_key, share_key, use_key, box_key = jax.random.split(key, 4)
    order = jax.random.permutation(order_key, len(images))
    share = jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32)
    share = jnp.where(jax.random.bernoulli(use_key, probability), share, 1.0)
    return order, share, box_key


def _mixed(soft: jax.Array, order: jax.Array, share: jax.Array) -> jax.Array:
    return share * soft + (1 - share) * soft[order]  # (2)


def _check(images: jax.Array, alpha: float, probability: float) -> None:
    check_rank(images)
    if not isinstance(alpha, Tracer) and not 0 < alpha < float("inf"):
        raise InputError(f"alpha must be a positive number, not {alpha}.")
    if not isinstance(probability, Tracer) and not 0 <= probability <= 1:
        raise InputError(f"probability must be from 0 to 1, not {probability}.")
