import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.vision.detection.losses import FOCAL_BIAS, box_loss, centerness, smooth_l1

A, B = np.array([10, 20, 50, 80], np.float32), np.array([30, 10, 70, 60], np.float32)


@pytest.fixture(scope="module")
def losses():
    @jax.jit
    def run(x, logits, a, b):
        focal = [
            optax.sigmoid_focal_loss(logits, jnp.full(3, float(target)), alpha=0.25)
            for target in (1, 0)
        ]
        return {
            "ninth": smooth_l1(x, 1 / 9),
            "one": smooth_l1(x),
            "none": smooth_l1(-x, 0),
            "focal": jnp.stack(focal),
            "boxes": jnp.stack([box_loss(a, b), box_loss(a, b, "log_iou")]),
            "center": centerness(jnp.array([[10.0, 20, 30, 40], [-1, 2, 3, 4]])),
            "slope": jax.grad(centerness)(jnp.zeros(4)),
        }

    x, logits = np.array([[0.05, 0.5, 2], [0, 2, FOCAL_BIAS]], np.float32)
    return jax.device_get(run(x, logits, A, B))


def test_golden_losses(losses):
    np.testing.assert_allclose(losses["ninth"], [0.01125, 0.4444444, 1.9444444], rtol=1e-5)
    np.testing.assert_allclose(losses["one"], [0.00125, 0.125, 1.5], rtol=1e-5)
    np.testing.assert_allclose(losses["none"], [0.05, 0.5, 2], rtol=1e-6)
    golden = [[0.0433217, 0.000450891, 1.1283818], [0.1299651, 1.2375586, 7.5377e-7]]
    np.testing.assert_allclose(losses["focal"], golden, rtol=2e-5)


def test_losses_of_boxes(losses):
    """For the logarithm I = 20 · 40 and U = 2400 + 2000 − 800."""
    np.testing.assert_allclose(losses["boxes"], [1 - 0.0793651, -np.log(801 / 3601)], rtol=1e-6)
    with pytest.raises(InputError, match="kind is 'l1'"):
        box_loss(A, B, "l1")  # pyright: ignore[reportArgumentType]


def test_centerness(losses):
    np.testing.assert_allclose(losses["center"], [0.4082483, 0], atol=1e-7)
    assert np.isfinite(losses["slope"]).all()
