"""Boxes and masks move with the pixels: what they mark is where it was drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.object_augment import (
    random_crop_with_masks,
    random_flip_with_boxes,
    random_flip_with_masks,
    random_resized_crop_with_boxes,
)

N, HEIGHT, WIDTH = 24, 32, 48
BOX = np.array([12, 8, 28, 20])  # bright in every image


@pytest.fixture(scope="module")
def images():
    images = np.zeros((N, HEIGHT, WIDTH, 1), np.float32)
    images[:, BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    return images


@pytest.fixture(scope="module")
def boxes():
    corners = np.zeros((N, 3, 4), np.float32)
    corners[:, 0] = BOX
    corners[:, 1] = [0, 0, 3, 3]
    mask = np.tile([True, True, False], (N, 1))
    return Boxes(corners, np.zeros((N, 3), np.int32), mask, np.zeros((N, 3), bool))


@pytest.fixture(scope="module")
def results(images, boxes):
    @jax.jit
    def run(key, images, boxes):
        masks = images[..., 0].astype(jnp.uint8)
        return {
            "flip": random_flip_with_boxes(key, images, boxes),
            "crop": random_resized_crop_with_boxes(key, images, boxes, (24, 24), scale=(0.2, 0.9)),
            "masks": random_flip_with_masks(key, images, masks, vertical=True),
            "part": random_crop_with_masks(key, images, masks, (20, 30)),
        }

    return jax.device_get(run(jax.random.key(0), images, boxes))


def _edges(image):
    rows, columns = np.flatnonzero(image.max(1) > 0.5), np.flatnonzero(image.max(0) > 0.5)
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_flipped_boxes_mark_the_same_pixels(images, results):
    flipped, moved = results["flip"]
    turned = (flipped != images).any(axis=(1, 2, 3))
    assert 4 < turned.sum() < N - 4
    for image, box in zip(flipped[..., 0], moved.boxes[:, 0], strict=True):
        assert _edges(image) == box.tolist()
    assert not moved.boxes[:, 2].any()  # padding stays 0


def test_cropped_boxes_mark_what_is_seen(results):
    cropped, moved = results["crop"]
    there, boxes = moved.mask, moved.boxes
    assert there[:, 0].any() and not there[:, 2].any() and not boxes[~there].any()
    for image, box, seen in zip(cropped[..., 0], boxes[:, 0], there[:, 0], strict=True):
        if seen:
            np.testing.assert_allclose(_edges(image), box, atol=1.01)
    sides = boxes[there][:, 2:] - boxes[there][:, :2]
    assert (sides >= 1).all() and (boxes >= 0).all() and (boxes <= 24).all()
    assert not there[:, 1].all()  # the corner is cut off in some


def test_masks_move_with_images(images, results):
    for name in ("masks", "part"):
        pictures, masks = results[name]
        np.testing.assert_array_equal(pictures[..., 0].astype(np.uint8), masks)
    assert results["part"][0].shape == (N, 20, 30, 1)
    flipped = results["masks"][1]
    assert len(np.unique(flipped, axis=0)) == 4  # of both axes


def test_bad_shapes(images, boxes):
    key = jax.random.key(0)
    with pytest.raises(InputError, match="boxes have shape"):
        random_flip_with_boxes(key, images[:2], boxes)
    with pytest.raises(InputError, match="size is 40 by 8, expected at most 32 by 48"):
        random_crop_with_masks(key, images, images[..., 0], (40, 8))
    with pytest.raises(InputError, match="masks have shape"):
        random_flip_with_masks(key, images, images)
