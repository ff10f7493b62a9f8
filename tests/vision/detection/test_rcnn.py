"""R-CNN and selective search: hand-worked cases, closed forms, and squares that are learnt."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.alexnet import original_alexnet
from nnlab.vision.detection.found import found, truth
from nnlab.vision.detection.rcnn import (
    box_features,
    detect_rcnn,
    fit_boxes,
    fit_rcnn,
    fit_svm,
    mine_svm,
    warped,
)
from nnlab.vision.detection.selective_search import segments, selective_search
from nnlab.vision.detection.voc_ap import voc_ap


def picture():
    """A bright square and a dark one on grey, 40 by 50 pixels."""
    image = np.full((40, 50, 3), 128, np.uint8)
    image[5:20, 8:24] = [250, 60, 20]
    image[22:36, 30:45] = [10, 20, 60]
    return image


def test_segments_and_boxes_of_two_squares():
    labels = segments(picture(), sigma=0.0)
    assert labels.shape == (40, 50) and labels.max() == 2
    counts = sorted(np.bincount(labels.ravel()).tolist())
    assert counts == [14 * 15, 15 * 16, 40 * 50 - 14 * 15 - 15 * 16]
    boxes = {tuple(map(int, box)) for box in selective_search(picture(), (100.0,), sigma=0.0)}
    assert boxes == {(8, 5, 24, 20), (30, 22, 45, 36), (0, 0, 50, 40)}
    with pytest.raises(InputError, match="expected \\[height, width, channels\\]"):
        segments(picture()[..., 0])


def test_warping_has_context_on_all_sides(quick_jit):
    """An image of x + 100 y is itself again; what is outside of it is filled."""
    y, x = np.mgrid[:20, :30].astype(np.float32)
    image = (x + 100 * y)[..., None]
    box = np.array([[6, 4, 18, 12], [0, 0, 12, 8]], np.float32)  # 12 by 8 in 8 pixels
    run = quick_jit(lambda image, box: warped(image, box, 12, 2, fill=-1.0))
    cut = np.asarray(run(image, box))[..., 0]
    across = 6 + (np.arange(12) - 2 + 0.5) * 1.5 - 0.5
    down = 4 + (np.arange(12) - 2 + 0.5) - 0.5
    np.testing.assert_allclose(cut[0], across + 100 * down[:, None], rtol=1e-4, atol=1e-2)
    assert (cut[1, :, 0] == -1).all() and (cut[1, 3:, 3:] >= 0).all()


def test_an_svm_is_where_its_gradient_is_zero():
    rng = np.random.default_rng(0)
    x, positive = rng.normal(size=(60, 5)), rng.random(60) < 0.4
    x[positive, 0] += 1
    svm = fit_svm(x, positive, 0.1)
    sign = np.where(positive, 1, -1)
    slack = np.maximum(1 - sign * svm(x), 0)
    np.testing.assert_allclose(svm.weights, 0.2 * (sign * slack) @ x, atol=1e-6)
    assert abs((sign * slack).sum()) < 1e-4
    few = mine_svm(x[positive], [x[~positive][::2], x[~positive][1::2]], 0.1, passes=8)
    np.testing.assert_allclose(few.weights, svm.weights, atol=1e-6)  # what is easy counts nothing
    with pytest.raises(InputError, match="all examples are of one kind"):
        fit_svm(x, np.ones(60, bool))


def test_ridge_regression_is_the_least_square_of_a_longer_table():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    long = np.concatenate([x - x.mean(0), np.sqrt(3.0) * np.eye(4)])
    wanted = np.concatenate([codes - codes.mean(0), np.zeros((4, 4))])
    weights = np.linalg.lstsq(long, wanted, rcond=None)[0]
    both = fit_boxes(x, codes, 3.0)
    np.testing.assert_allclose(both[:-1], weights, atol=1e-10)
    np.testing.assert_allclose(x.mean(0) @ weights + both[-1], codes.mean(0), atol=1e-10)


@pytest.mark.slow
def test_the_published_network_has_as_many_parameters():
    images = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    shapes: Any = jax.eval_shape(original_alexnet(21).init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 56_954_261


@pytest.mark.slow
def test_pictures_of_squares_are_learnt():
    """Squares of two colours in other places, by the pixels of warped boxes as features."""
    rng = np.random.default_rng(0)
    images, truths = [], []
    for _ in range(8):
        image, boxes = np.full((40, 60, 3), 128, np.uint8), []
        for number, colour in enumerate(([250, 60, 20], [10, 20, 90])):
            x, y = rng.integers(2, 12) + 28 * number, rng.integers(2, 20)
            wide, high = rng.integers(10, 17, 2)
            image[y : y + high, x : x + wide] = colour
            boxes.append([x, y, x + wide, y + high])
        images.append(image)
        truths.append(truth(boxes, [0, 1]))
    proposals = [selective_search(image, (100.0,), sigma=0.0) for image in images]
    noisy = [p + rng.uniform(-1, 1, p.shape).astype(np.float32) for p in proposals]
    floats = [image.astype(np.float32) / 128 - 1 for image in images]
    features = box_features(lambda crops: crops, size=12, context=2, batch_size=8)
    model = fit_rcnn(features, floats, noisy, truths, 2, cost=1.0, penalty=10.0)
    detections = [
        found(*map(np.asarray, detect_rcnn(model, features, image, boxes)))
        for image, boxes in zip(floats, noisy, strict=True)
    ]
    assert voc_ap(detections, truths, 2).mean >= 0.9
