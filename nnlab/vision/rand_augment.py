"""RandAugment: a few of fourteen changes of colour and shape, drawn for each image.

The changes are those of Pillow, with the strengths that torchvision's `RandAugment` gives them. At
magnitude M of 30, and with either sign where there are two directions:

=====================  =============================================================
Identity               nothing
ShearX, ShearY         a shift by 0.3 M / 30 pixels for each pixel down or right
TranslateX, Y          by 150 / 331 M / 30 of the width or height
Rotate                 by 30 M / 30 degrees around the middle
Brightness             away from black or towards it, by 0.9 M / 30
Color                  the same for the grey image
Contrast               the same for its mean grey
Sharpness              the same for the image smoothed over 3 x 3 pixels
Posterize              8 - round(M / 7.5) bits a channel
Solarize               inverts levels of 255 (1 - M / 30) and more
AutoContrast           spreads each channel's levels over 0 to 255
Equalize               makes each channel's levels equally frequent
=====================  =============================================================

Every one of them is an affine map of the places, a blend with another image, or a table of the 256
levels. So one layer is one map, one blend and one table for every image of the batch, most of them
the identity, and no image waits for another one's branch.

References:
    Cubuk et al., RandAugment, CVPR Workshops 2020, https://arxiv.org/abs/1909.13719, section 3;
    two layers of magnitude 9 for ResNet-50 on ImageNet.
    Cubuk et al., AutoAugment, CVPR 2019, https://arxiv.org/abs/1805.09501, table 6: the changes.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key
from nnlab.vision.augment import check_rank

CHANGES = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
    *("Posterize", "Solarize", "AutoContrast", "Equalize"),
)
_NUMBER = {name: number for number, name in enumerate(CHANGES)}


def rand_augment(
    key: jax.Array,
    images: jax.Array,
    *,
    layers: int = 2,
    magnitude: float = 9.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    fill: int = 128,
) -> jax.Array:
    """Apply `layers` changes, drawn for each image, one after the other.

    Args:
        key: `jax.random.split(key, layers)` gives each layer its own; in `jax.random.split` of that
            the first draws the changes, `jax.random.randint(…, (n,), 0, 14)` in the order of
            `CHANGES`, the second the negative signs, `jax.random.bernoulli(…, shape=(n,))`.
        images: levels, uint8 [n, height, width, channels], or floats, which are standardised
            levels; 1 or 3 channels.
        layers: the number of changes of each image.
        magnitude: their strength, from 0 to 30.
        mean, std: of each channel, where images are floats, on the scale of 0 to 1: those of
            `nnlab.vision.Preparation`. By default 0 and 1, for images in [0, 1].
        fill: level of pixels from outside of the image; 128 in the authors' code.

    Returns:
        Images of the same shape and dtype; floats have been rounded to the nearest level.

    Raises:
        InputError: the images are of another rank, dtype or number of channels, or a number is out
            of its range.
    """
    check_key(key)
    check_rank(images)
    check_count("layers", layers, least=0)
    if not isinstance(magnitude, Tracer) and not 0 <= magnitude <= 30:
        raise InputError(f"magnitude must be from 0 to 30, not {magnitude}.")
    if images.shape[-1] not in (1, 3):
        raise InputError(f"images have {images.shape[-1]} channels, expected 1 or 3.")
    if (mean is None) != (std is None):
        raise InputError("mean and std belong together, expected both or none.")
    offset, scale = (
        jnp.asarray(0.0 if mean is None else mean),
        jnp.asarray(1.0 if std is None else std),
    )
    if images.dtype == jnp.uint8:
        levels = images.astype(jnp.int32)
    elif jnp.issubdtype(images.dtype, jnp.floating):
        levels = jnp.round(255 * (images.astype(jnp.float32) * scale + offset))
        levels = jnp.clip(levels, 0, 255).astype(jnp.int32)
    else:
        raise InputError(f"images are {images.dtype}, expected uint8 or floats.")
    for one in jax.random.split(key, layers):
        change_key, sign_key = jax.random.split(one)
        change = jax.random.randint(change_key, (len(images),), 0, len(CHANGES))
        negative = jax.random.bernoulli(sign_key, shape=(len(images),))
        strength = jnp.where(negative, -1.0, 1.0) * magnitude / 30
        # Fused into the gathers that follow, a stage would be computed again for each pixel.
        levels = lax.optimization_barrier(_moved(levels, change, strength, fill))
        levels = lax.optimization_barrier(_blended(levels, change, strength))
        levels = lax.optimization_barrier(_looked_up(levels, change, magnitude / 30))
    if images.dtype == jnp.uint8:
        return levels.astype(jnp.uint8)
    return ((levels.astype(jnp.float32) / 255 - offset) / scale).astype(images.dtype)


def _moved(levels: jax.Array, change: jax.Array, strength: jax.Array, fill: int) -> jax.Array:
    """Take each pixel from the place that the affine map of its image says, int32 [n, h, w, c]."""
    n, height, width, channels = levels.shape

    def only(name: str, value: jax.Array, otherwise: float = 0.0) -> jax.Array:
        return jnp.where(change == _NUMBER[name], value, otherwise)[:, None, None]

    angle = only("Rotate", math.radians(30) * strength)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    shear_x, shear_y = only("ShearX", 0.3 * strength), only("ShearY", 0.3 * strength)
    shift_x = only("TranslateX", jnp.trunc(150 / 331 * width * strength))
    shift_y = only("TranslateY", jnp.trunc(150 / 331 * height * strength))
    x, y = jnp.arange(width)[None, None] + 0.5, jnp.arange(height)[None, :, None] + 0.5
    far, low = x - width / 2, y - height / 2
    # Only one of the three does not leave a place where it is.
    from_x = width / 2 + cosine * far - sine * low + shear_x * y + shift_x
    from_y = height / 2 + sine * far + cosine * low + shear_y * x + shift_y
    column, row = (jnp.floor(place).astype(jnp.int32) for place in (from_x, from_y))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = jnp.where(inside, row * width + column, 0).reshape(n, height * width, 1)
    taken = jnp.take_along_axis(levels.reshape(n, height * width, channels), place, axis=1)
    return jnp.where(inside[..., None], taken.reshape(levels.shape), fill)


def _blended(levels: jax.Array, change: jax.Array, strength: jax.Array) -> jax.Array:
    """Blend with black, grey, its mean or the smooth image, as Pillow's `ImageEnhance` does."""
    grey = levels
    if levels.shape[-1] == 3:
        weights = jnp.array([19595, 38470, 7471])  # ITU-R 601-2, of 2^16
        grey = ((levels * weights).sum(axis=-1, keepdims=True) + 2**15) >> 16
    count = levels.shape[1] * levels.shape[2]
    mean = (2 * grey.sum(axis=(1, 2, 3), keepdims=True) + count) // (2 * count)
    others = {"Brightness": 0, "Color": grey, "Contrast": mean, "Sharpness": _smooth(levels)}
    chosen = change[:, None, None, None]
    other = levels
    for name, image in others.items():
        other = jnp.where(chosen == _NUMBER[name], image, other)
    factor = (1 + 0.9 * strength)[:, None, None, None]
    mixed = other + factor * (levels - other).astype(jnp.float32)
    return jnp.where(other == levels, levels, jnp.floor(jnp.clip(mixed, 0, 255)).astype(jnp.int32))


def _smooth(levels: jax.Array) -> jax.Array:
    """Return weights of 1, and of 5 in the middle, over 3 x 3 pixels; the edge stays."""
    _, height, width, _ = levels.shape
    if height < 3 or width < 3:
        return levels
    rows = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * levels[:, 1:-1, 1:-1]
    return levels.at[:, 1:-1, 1:-1].set((2 * sums + 13) // 26)


def _looked_up(levels: jax.Array, change: jax.Array, part: float | jax.Array) -> jax.Array:
    """Replace levels by those of a table of each image and channel."""
    n, height, width, channels = levels.shape
    flat = levels.reshape(n, height * width, channels)
    place = (jnp.arange(n)[:, None, None] * 256 + flat) * channels + jnp.arange(channels)
    counts = jnp.zeros(n * 256 * channels, jnp.int32).at[place.ravel()].add(1)
    counts = lax.optimization_barrier(counts).reshape(n, 256, channels)
    level = jnp.arange(256)[None, :, None]
    cut = 8 - jnp.round(4 * jnp.asarray(part)).astype(jnp.int32)
    tables = {
        "Posterize": level & ~((1 << (8 - cut)) - 1),
        "Solarize": jnp.where(level < 255 * (1 - part), level, 255 - level),
        "AutoContrast": _auto_contrast(counts, level),
        "Equalize": _equalize(counts, level),
    }
    table = jnp.broadcast_to(level, counts.shape)
    for name, other in tables.items():
        table = jnp.where((change == _NUMBER[name])[:, None, None], other, table)
    table = lax.optimization_barrier(table)
    return table.ravel()[place].reshape(levels.shape)


def _auto_contrast(counts: jax.Array, level: jax.Array) -> jax.Array:
    there = counts > 0
    low = there.argmax(axis=1, keepdims=True)
    high = 255 - there[:, ::-1].argmax(axis=1, keepdims=True)
    spread = jnp.clip((level - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, spread, level)


def _equalize(counts: jax.Array, level: jax.Array) -> jax.Array:
    there = counts > 0
    last = 255 - there[:, ::-1].argmax(axis=1, keepdims=True)
    of_last = jnp.take_along_axis(counts, last, axis=1)
    step = (counts.sum(axis=1, keepdims=True) - of_last) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    table = jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, table, level)
