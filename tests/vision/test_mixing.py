"""Mixup and CutMix against loops with the same draws, and what their labels teach."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.errors import InputError
from nnlab.vision import cutmix, mixup

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 8, 5, 2)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])

mixes = {
    mix: jax.jit(functools.partial(mix, classes=3, probability=0.75)) for mix in (mixup, cutmix)
}


@jax.jit
def drawn(key, alpha):
    """The order, lambda, and row and column of the box."""
    order, share, use, box = jax.random.split(key, 4)
    share = jnp.where(jax.random.bernoulli(use, 0.75), jax.random.beta(share, alpha, alpha), 1.0)
    middle = jax.random.randint(box, (2,), 0, jnp.array([8, 5]))
    return jax.random.permutation(order, 6), share, middle


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_the_blend_of_two(alpha):
    for key in jax.random.split(KEY, 8):
        images, labels = mixes[mixup](key, IMAGES, LABELS, alpha=alpha)
        order, share, _ = map(np.asarray, drawn(key, alpha))
        np.testing.assert_allclose(
            images, share * IMAGES + (1 - share) * IMAGES[order], rtol=1e-5, atol=1e-6
        )
        one_hot = np.eye(3)[LABELS]
        np.testing.assert_allclose(labels, share * one_hot + (1 - share) * one_hot[order], 1e-5)


def test_cutmix_is_a_box_of_another():
    """With the words of the authors' `rand_bbox`."""
    boxes = []
    for key in jax.random.split(KEY, 12):
        images, labels = mixes[cutmix](key, IMAGES, LABELS, alpha=1.0)
        order, share, (row, column) = map(np.asarray, drawn(key, 1.0))
        height, width = IMAGES.shape[1:3]
        ratio = np.sqrt(np.float32(1 - share))
        high, wide = int(height * ratio), int(width * ratio)
        top, bottom = (int(np.clip(row + s * (high // 2), 0, height)) for s in (-1, 1))
        left, right = (int(np.clip(column + s * (wide // 2), 0, width)) for s in (-1, 1))
        expected = IMAGES.copy()
        expected[:, top:bottom, left:right] = IMAGES[order, top:bottom, left:right]
        np.testing.assert_array_equal(images, expected)
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        one_hot = np.eye(3)[LABELS]
        np.testing.assert_allclose(
            labels, kept * one_hot + (1 - kept) * one_hot[order], rtol=1e-5, atol=1e-6
        )
        boxes.append(kept)
    assert len(set(boxes)) > 3 and min(boxes) < 0.7


def test_soft_labels_and_labels_that_are_none():
    once = mixes[mixup](KEY, IMAGES, LABELS, alpha=1.0)
    twice = mixes[cutmix](KEY, *once, alpha=1.0)
    np.testing.assert_allclose(twice[1].sum(axis=-1), 1, rtol=1e-6)
    _, labels = mixes[mixup](KEY, IMAGES, LABELS + 1, alpha=1.0)
    assert np.isnan(labels).any()  # and the loss with them, which `fit` names


@pytest.mark.parametrize(
    ("images", "labels", "options", "said"),
    [
        (IMAGES[0], LABELS, {}, r"^images have shape \(8, 5, 2\), expected"),
        (IMAGES.astype(np.uint8), LABELS, {}, "images to blend are uint8, expected floats"),
        (IMAGES, LABELS.astype(np.float32), {}, r"labels are float32 of shape \[6\], expected int"),
        (IMAGES, LABELS > 1, {}, "labels are bool, expected integers"),
        (IMAGES, LABELS, {"alpha": 0.0}, r"alpha must be a positive number, not 0\.0"),
        (IMAGES, LABELS, {"probability": 1.5}, r"probability must be from 0 to 1, not 1\.5"),
    ],
)
def test_bad_input(images, labels, options, said):
    with pytest.raises(InputError, match=said):
        mixup(KEY, jnp.asarray(images), jnp.asarray(labels), **({"classes": 3} | options))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x.reshape(len(x), -1))


def test_a_step_trains_on_the_mixed_batch():
    """Its loss, accuracy and update are those of the mixed images with their soft labels."""

    def swap(key, images, labels):  # a mixture that needs no draw
        shares = training.soft_labels(labels, 3)
        return images[::-1], 0.75 * shares[::-1] + 0.25 * shares

    sgd = optax.sgd(0.5)
    state = training.init(KEY, Net(), sgd, IMAGES)
    step = training.train_step(Net(), sgd, mix=swap)
    after, metrics = jax.jit(step)(state, (IMAGES, LABELS))
    weights = jax.tree.map(np.asarray, state.params["Dense_0"])
    logits = IMAGES[::-1].reshape(6, -1) @ weights["kernel"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    soft = 0.75 * np.eye(3)[LABELS][::-1] + 0.25 * np.eye(3)[LABELS]
    assert float(metrics["loss"]) == pytest.approx(-(soft * np.log(shares)).sum(1).mean(), rel=1e-5)
    right = soft[np.arange(6), logits.argmax(axis=1)].mean()
    assert float(metrics["accuracy"]) == pytest.approx(right, rel=1e-6)
    np.testing.assert_allclose(
        after.params["Dense_0"]["bias"], -0.5 * (shares - soft).mean(axis=0), atol=1e-6
    )
    assert not getattr(step, "diagnose")(  # noqa: B009
        {"params": state.params, "batch_stats": {}}, (IMAGES, LABELS), steps=10
    )
