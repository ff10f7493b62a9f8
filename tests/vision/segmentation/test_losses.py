"""The loss of pixels is PyTorch's, ignored pixels and weights included."""

import jax
import numpy as np
import pytest
import torch

from nnlab.errors import InputError
from nnlab.vision.segmentation import pixel_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 5, 4, 3)).astype(np.float32)
LABELS = RNG.choice([0, 1, 2, 255], (2, 5, 4)).astype(np.uint8)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_loss_and_gradient(weights):
    given = None if weights is None else torch.tensor(weights)
    x = torch.tensor(LOGITS, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        x.permute(0, 3, 1, 2), torch.tensor(LABELS).long(), given, ignore_index=255
    )
    expected.backward()
    assert x.grad is not None
    loss, gradient = jax.value_and_grad(pixel_cross_entropy)(LOGITS, LABELS, weights)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-7)
    assert (np.asarray(gradient)[LABELS == 255] == 0).all()


def test_a_batch_of_ignored_pixels_teaches_nothing():
    value, gradient = jax.value_and_grad(pixel_cross_entropy)(LOGITS, np.full_like(LABELS, 255))
    assert value == 0 and not np.asarray(gradient).any()


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(InputError, match=r"labels have shape \[2, 5\], expected \[2, 5, 4\]"):
        pixel_cross_entropy(LOGITS, LABELS[..., 0])
    with pytest.raises(InputError, match="labels are float32, expected integers"):
        pixel_cross_entropy(LOGITS, LABELS.astype(np.float32))
    with pytest.raises(InputError, match=r"weights of classes have shape \[2\]"):
        pixel_cross_entropy(LOGITS, LABELS, [1.0, 2.0])
