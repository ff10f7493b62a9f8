r"""Scaling, whitening and padding of stored images before training.

With pixels x, and the mean and the standard deviation of each channel over the training images,

.. math:: z = (x - \mu) / \sigma.                                              (1)

Whitening does this jointly for all d pixels of an image. With the covariance of n training images,
estimated with n - 1, and its eigenvectors in the columns of U,

.. math::
    C &= U \,\mathrm{diag}(\lambda)\, U^T,                                     (2) \\
    \mathrm{decorrelated}(x) &= U^T (x - \mu),                                 (3) \\
    \mathrm{PCA}(x) &= \mathrm{diag}(\lambda + \epsilon)^{-1/2}\, U^T (x - \mu), (4) \\
    \mathrm{ZCA}(x) &= U \,\mathrm{diag}(\lambda + \epsilon)^{-1/2}\, U^T (x - \mu). (5)

The covariance of (3) is diagonal; that of (4) and (5) is the identity where epsilon is small beside
every eigenvalue. Of all whitening matrices that of (5) is the symmetric one, whose results still
look like images.

References:
    Krizhevsky, Learning multiple layers of features from tiny images, 2009, appendix: eq. (5)
    with epsilon = 0.
    Goodfellow et al., Maxout networks, ICML 2013, https://arxiv.org/abs/1302.4389, section 5.2:
    ZCA on CIFAR-10; their code (pylearn2) adds epsilon = 0.1, on images whose contrast it has
    first normalised to a standard deviation of about 1 a pixel.
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.data.access import RandomAccess
from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.vision.datasets.dataset import Dataset, Split, check_arrays


def to_float(images: jax.Array | np.ndarray) -> jax.Array:
    """Convert stored pixels 0 to 255, uint8 of any shape, to float32 in [0, 1].

    Raises:
        InputError: the images are not uint8, so they may have been scaled already.
    """
    if images.dtype != jnp.uint8:
        raise InputError(f"images are {images.dtype}, expected uint8")
    return jnp.asarray(images, jnp.float32) / 255


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of every channel, on the scale of `to_float`.

    Computed on the host in exact integers, without a floating-point copy of the images.

    Args:
        images: uint8 [n, height, width, channels], the training images.

    Returns:
        mean and std, float32 [channels].

    Raises:
        InputError: the images are not uint8 of rank 4, or a channel is constant, so that there is
            nothing to divide by.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise InputError(
            f"images are {images.dtype} of shape {images.shape}, "
            "expected uint8 [n, height, width, channels]"
        )
    return _statistics(images)


def record_statistics(records: RandomAccess) -> tuple[np.ndarray, np.ndarray]:
    """Return `channel_statistics` of images on disk, with one image in memory at a time.

    Raises:
        InputError: there are no records, a channel is constant, or a record cannot be read.
    """
    if not len(records):
        raise InputError("there are no records, expected at least one")
    return _statistics(records[i][0] for i in range(len(records)))


def _statistics(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    count, (total, squares) = 0, np.zeros((2, 1), np.int64)  # grows to one a channel
    for image in images:
        pixels = image.astype(np.int64)
        count += pixels.shape[0] * pixels.shape[1]
        total = total + pixels.sum(axis=(0, 1))
        squares = squares + (pixels * pixels).sum(axis=(0, 1))
    variance = np.array(
        [(count * int(q) - int(t) ** 2) / count**2 for t, q in zip(total, squares, strict=True)]
    )
    if not variance.all():
        channel = np.argmin(variance)
        raise InputError(f"channel {channel} of images is constant, expected it to vary")
    mean, std = total / count, np.sqrt(variance)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def standardize(
    images: jax.Array, mean: jax.Array | np.ndarray, std: jax.Array | np.ndarray
) -> jax.Array:
    """Apply (1) to images [..., channels], with the training images' mean and std [channels].

    Raises:
        InputError: images have another number of channels than mean or std.
    """
    for name, each in (("means", mean), ("deviations", std)):
        if np.size(each) > 1:  # one may serve all channels
            check_shape(name, each, images.shape[-1:])
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    mean, std = (lax.broadcast_to_rank(jnp.asarray(a, dtype), images.ndim) for a in (mean, std))
    return (images - mean) / std  # (1)


def standardizer(mean: np.ndarray, std: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function for the workers of a `Stream`: `to_float`, then (1), on the host.

    Its result equals `standardize(to_float(images), mean, std)` on a CPU to the bit, because it
    multiplies by reciprocals as XLA does. Inside a jitted function, where XLA may fuse, and on
    other platforms, the two differ by at most 10 u / std with u = 2^-24: each rounds numbers up to
    1 three times before it divides by std, and twice after.

    Args:
        mean, std: float32 [channels], in [0, 1], as `record_statistics` gives them.

    Returns:
        A function that pickles, from uint8 [..., channels] to float32 of the same shape; it raises
        `InputError` where images are not uint8.
    """
    scale = np.float32(1) / np.asarray(std, np.float32)
    return functools.partial(_standardize, mean=np.asarray(mean, np.float32), scale=scale)


def _standardize(images: np.ndarray, *, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8:
        raise InputError(f"images are {images.dtype}, expected uint8")
    x = images.astype(np.float32)
    x *= np.float32(1) / np.float32(255)
    x -= mean
    x *= scale  # (1)
    return x


def standardized(
    dataset: Dataset,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Return (images, labels) of both splits, ready for training and test.

    Images are float32, by (1) with the statistics of the training images; labels are int32.

    Raises:
        InputError: as for `channel_statistics` and `check_arrays`.
    """
    mean, std = map(jnp.asarray, channel_statistics(dataset.train.images))

    def arrays(split: Split) -> tuple[jax.Array, jax.Array]:
        images, labels = standardize(to_float(split.images), mean, std), jnp.asarray(split.labels)
        check_arrays(images, labels, dataset.classes)
        return images, labels

    return arrays(dataset.train), arrays(dataset.test)


class Whitening(NamedTuple):
    """A fit to the training images, which the functions below apply.

    Attributes:
        mean: [d].
        basis: U, [d, d], one eigenvector in each column.
        variance: lambda, [d], in falling order.
        epsilon: added to every variance before it is divided by.
    """

    mean: jax.Array
    basis: jax.Array
    variance: jax.Array
    epsilon: jax.Array


def fit_whitening(images: jax.Array, epsilon: float | jax.Array = 1e-5) -> Whitening:
    """Estimate mean and covariance (2) of the training images.

    Args:
        images: floating point [n, ...] with n of at least 2; d is the product of the other sizes.
        epsilon: in squared units of a pixel. With fewer images than pixels some variances are
            zero, and only epsilon keeps (4) and (5) finite.

    Raises:
        InputError: there is one image or none, or they are integers.
    """
    if images.ndim < 2 or len(images) < 2 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images are {images.dtype} of shape {images.shape}, "
            "expected floating point [n, ...] with n of at least 2"
        )
    x = jnp.reshape(images, (len(images), -1)).astype(jnp.promote_types(images.dtype, jnp.float32))
    mean = x.mean(axis=0)
    centred = x - mean[None]
    covariance = jnp.matmul(centred.T, centred, precision="highest") / (len(x) - 1)
    variance, basis = jnp.linalg.eigh(covariance)  # (2)
    variance = jnp.maximum(variance, 0)  # rounding can take a zero below zero
    return Whitening(mean, basis[:, ::-1], variance[::-1], jnp.asarray(epsilon, x.dtype))


def decorrelate(images: jax.Array, fit: Whitening) -> jax.Array:
    """Apply (3): images [n, ...] in the basis of principal components, [n, d], largest first."""
    centred = images.reshape(len(images), -1) - fit.mean[None]
    return jnp.matmul(centred, fit.basis, precision="highest")  # (3)


def pca_whiten(images: jax.Array, fit: Whitening) -> jax.Array:
    """Apply (4): images [n, ...] as principal components of unit variance, [n, d]."""
    return decorrelate(images, fit) / jnp.sqrt(fit.variance + fit.epsilon)[None]  # (4)


def zca_whiten(images: jax.Array, fit: Whitening) -> jax.Array:
    """Apply (5): whitened images in the shape of the input."""
    whitened = jnp.matmul(pca_whiten(images, fit), fit.basis.T, precision="highest")  # (5)
    return whitened.reshape(images.shape)


def pad_to(images: jax.Array | np.ndarray, height: int, width: int) -> jax.Array:
    """Pad images [..., h, w, channels] with zeros to the given size.

    If an odd number of rows or columns is added, the bottom or right side gets one more. LeNet-5
    pads MNIST from 28 to 32.

    Raises:
        InputError: the images are larger than that.
    """
    return jnp.pad(images, margins(images.shape, height, width))


def margins(shape: tuple[int, ...], height: int, width: int) -> list[tuple[int, int]]:
    """Return what `pad_to` adds before and after each axis of images of this shape.

    Raises:
        InputError: they are larger than that.
    """
    rows, columns = height - shape[-3], width - shape[-2]
    if rows < 0 or columns < 0:
        raise InputError(
            f"images are {shape[-3]} by {shape[-2]} pixels, expected at most {height} by {width}"
        )
    added = [(rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)]
    return [(0, 0)] * (len(shape) - 3) + added
