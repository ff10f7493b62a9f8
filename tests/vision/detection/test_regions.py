import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.vision.detection.regions import pyramid_level, roi_align, roi_pool

MAP = np.arange(64, dtype=np.float32).reshape(8, 8, 1)
MAPS, SCALES = [MAP, MAP[:4, :4] + 100, MAP[:2, :3]], [0.25, 0.125, 0.0625]
REGIONS = np.array([[4, 4, 24, 20], [-8, -8, 8, 8], [8, 8, 8, 8]], np.float32)
SIDES = np.array([10, 111, 112, 223, 224, 447, 448, 1000], np.float32)
LEVEL = np.array([1, 0, 2])


@pytest.fixture(scope="module")
def found():
    """Everything in one compiled program."""

    def flat(*arguments, **options):
        return roi_align(*arguments, **options)[..., 0].reshape(-1, 4)

    @jax.jit
    def run(x, boxes):
        return {
            "corner": flat(x, boxes, 2, 0.25, outside="border"),
            "middle": flat(x, boxes, 2, 0.25, aligned=True, outside="border"),
            "zero": flat(x, boxes, 2, 0.25),
            "pool": roi_pool(x, boxes, 2, 0.25)[..., 0].reshape(-1, 4),
            "levels": pyramid_level(jnp.pad(SIDES[:, None] * jnp.ones((1, 2)), ((0, 0), (2, 0)))),
            "pyramid": flat(MAPS, boxes, 2, SCALES, level=LEVEL, samples=1),
            "alone": jnp.concatenate(
                [
                    flat(jnp.asarray(MAPS[at]), boxes[i : i + 1], 2, SCALES[at], samples=1)
                    for i, at in enumerate(LEVEL)
                ]
            ),
        }

    return jax.device_get(run(MAP, REGIONS))


def test_golden_roi_align(found):
    first = np.array([18.25, 20.75, 34.25, 36.75])
    golden = np.array([first, [0, 1, 8, 9], [20.25, 20.75, 24.25, 24.75]])
    np.testing.assert_allclose(found["corner"], golden, rtol=1e-6)
    np.testing.assert_allclose(
        found["middle"][[0, 2]], np.array([first - 4.5, [13.5] * 4]), rtol=1e-6
    )
    # One and a half pixels outside: the compiled bodies of torchvision count 0 there.
    np.testing.assert_allclose(
        found["zero"], np.array([first, [0, 0.5, 4, 9], golden[2]]), rtol=1e-6
    )


def test_golden_roi_pool(found):
    assert found["pool"][0].tolist() == [27, 30, 43, 46]


@pytest.mark.slow
def test_gradients():
    """RoIAlign is linear in the map: its gradient is the adjoint. RoI pooling picks maxima."""

    @jax.jit
    def run(x, y):
        out, pull = jax.vjp(lambda x: roi_align(x, REGIONS, 2, 0.25, aligned=True), x)
        pushed = roi_align(y, REGIONS, 2, 0.25, aligned=True).sum()
        slope = jax.grad(lambda x: roi_pool(x, REGIONS[:1], 2, 0.25).sum())(x)
        return (pull(jnp.ones_like(out))[0] * y).sum(), pushed, slope

    other = np.random.default_rng(0).normal(size=MAP.shape).astype(np.float32)
    pulled, pushed, slope = jax.device_get(run(MAP, other))
    assert pulled == pytest.approx(pushed, rel=1e-5)
    assert np.flatnonzero(slope).tolist() == [27, 30, 43, 46]


def test_levels_of_a_pyramid(found):
    assert found["levels"].tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    np.testing.assert_allclose(found["pyramid"], found["alone"], rtol=1e-6)


def test_no_regions_and_bad_input():
    for pool in (roi_align, roi_pool):
        assert jax.eval_shape(lambda x, pool=pool: pool(x, REGIONS[:0], 2), MAP).shape == (
            0,
            2,
            2,
            1,
        )
    with pytest.raises(InputError, match="3 maps and 1 scales"):
        roi_align(MAPS, REGIONS, 2, level=LEVEL)
    with pytest.raises(InputError, match="outside is 'edge'"):
        roi_align(MAP, REGIONS[:0], 2, outside="edge")  # pyright: ignore[reportArgumentType]
