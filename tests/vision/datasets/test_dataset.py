"""What may be trained on, and the sentence for everything that may not."""

import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision import check_arrays

IMAGES = np.zeros((3, 2, 2, 1), np.float32)
LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_good_arrays_pass(dtype, kind):
    check_arrays(kind(IMAGES.astype(dtype)), kind(LABELS), 3)


def with_pixel(value):
    images = IMAGES.copy()
    images[1, 0, 1, 0] = images[2, 1, 1, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            IMAGES.astype(np.uint8),
            LABELS,
            "images are uint8, expected floating point: normalise them first, "
            r"with nnlab\.vision\.to_float and nnlab\.vision\.standardize",
        ),
        (
            IMAGES[..., 0],
            LABELS,
            r"images have shape \(3, 2, 2\), expected \[n, height, width, channels\]",
        ),
        (
            IMAGES[:0],
            LABELS[:0],
            r"images have shape \(0, 2, 2, 1\), expected at least one image",
        ),
        (
            with_pixel(np.nan),
            LABELS,
            r"pixel \[1, 0, 1, 0\] of images is nan, expected it finite",
        ),
        (
            with_pixel(-np.inf),
            LABELS,
            r"pixel \[1, 0, 1, 0\] of images is -inf, expected it finite",
        ),
        (IMAGES, LABELS.astype(np.float32), "labels are float32, expected integers"),
        (IMAGES, LABELS[:2], r"labels have shape \(2,\), expected \(3,\), one an image"),
        (
            IMAGES,
            np.eye(3, dtype=int),
            r"labels have shape \(3, 3\), expected \(3,\), one an image; give labels.argmax\(-1\)",
        ),
        (IMAGES, LABELS + 1, "label 2 is 3, expected 0 to 2"),
        (IMAGES, LABELS - 1, "label 0 is -1, expected 0 to 2"),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_the_sentence(images, labels, message, kind):
    with pytest.raises(InputError, match=f"^{message}$"):
        check_arrays(kind(images), kind(labels), 3)
