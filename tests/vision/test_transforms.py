"""Scaling, whitening and padding, against float64 on the host."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from nnlab.errors import InputError
from nnlab.vision import (
    Dataset,
    Split,
    channel_statistics,
    decorrelate,
    fit_whitening,
    pad_to,
    pca_whiten,
    record_statistics,
    standardize,
    standardized,
    standardizer,
    to_float,
    zca_whiten,
)
from nnlab.vision.datasets.cifar import CifarRecords

decorrelate, fit_whitening, pca_whiten, zca_whiten = map(
    jax.jit, (decorrelate, fit_whitening, pca_whiten, zca_whiten)
)
UINT8_IMAGES = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5))


def test_to_float_by_hand():
    scaled = jax.jit(to_float)(np.array([0, 51, 255], np.uint8))
    assert scaled.dtype == jnp.float32
    np.testing.assert_allclose(scaled, [0, 0.2, 1], rtol=1e-7)


def test_to_float_refuses_what_may_be_scaled_already():
    with pytest.raises(InputError, match=r"^images are float32, expected uint8$"):
        to_float(np.zeros(3, np.float32))


@settings(deadline=None)
@given(UINT8_IMAGES)
def test_statistics_are_those_of_float64(images):
    expected = images.astype(np.float64) / 255
    if (images.min((0, 1, 2)) == images.max((0, 1, 2))).any():
        with pytest.raises(InputError, match="of images is constant, expected it to vary"):
            channel_statistics(images)
        return
    mean, std = channel_statistics(images)
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, expected.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, expected.std(axis=(0, 1, 2)), rtol=1e-6)


def test_statistics_of_records_are_those_of_the_array(tmp_path):
    content = np.random.default_rng(0).integers(0, 10, (30, 3073), np.uint8)
    content.tofile(tmp_path / "some.bin")
    source = CifarRecords((tmp_path / "some.bin",))
    for one, other in zip(
        record_statistics(source), channel_statistics(source.gather(range(30)).images), strict=True
    ):
        assert one.dtype == np.float32 and one.tolist() == other.tolist()


def test_statistics_of_no_records():
    with pytest.raises(InputError, match=r"^there are no records, expected at least one$"):
        record_statistics(CifarRecords(()))


@pytest.mark.parametrize("seed", range(5))
def test_standardizer_is_the_same_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(0.1, 0.9, (2, 3)).astype(np.float32)
    images = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (2, 256, 3)).copy()
    on_host = standardizer(mean, std)(images)
    assert on_host.dtype == np.float32
    with jax.default_device(jax.devices("cpu")[0]):
        on_device = np.asarray(standardize(to_float(images), mean, std))
    np.testing.assert_array_equal(on_host.view(np.int32), on_device.view(np.int32))
    fused = jax.jit(lambda x: standardize(to_float(x), mean, std))(images)
    exact = (images / 255 - mean.astype(np.float64)) / std
    for rounded in (on_host, np.asarray(fused)):
        assert (abs(rounded - exact) * std).max() <= 5 * 2.0**-24  # half of 10 u / std
    assert pickle.loads(pickle.dumps(standardizer(mean, std)))(images).tolist() == on_host.tolist()


def test_standardizer_refuses_what_may_be_scaled_already():
    with pytest.raises(InputError, match=r"^images are float32, expected uint8$"):
        standardizer(np.zeros(3), np.ones(3))(np.zeros((1, 2, 2, 3), np.float32))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 3, 3), "uint8"), ((0, 3, 3, 1), "uint8"), ((2, 3, 3, 1), "float32")]
)
def test_statistics_name_what_they_cannot_use(shape, dtype):
    with pytest.raises(InputError, match=f"^images are {dtype} of shape .*, expected uint8 "):
        channel_statistics(np.ones(shape, dtype))


def test_standardized_channels_have_mean_0_and_variance_1():
    images = np.random.default_rng(0).integers(0, [50, 256, 9], (20, 6, 5, 3)).astype(np.uint8)
    mean, std = channel_statistics(images)
    result = np.asarray(jax.jit(standardize)(to_float(images), mean, std), np.float64)
    np.testing.assert_allclose(result.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std(axis=(0, 1, 2)), 1, rtol=1e-5)


def test_standardized_uses_the_training_statistics_for_both_splits():
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 2)).astype(np.uint8)
    labels = np.arange(9, dtype=np.int32) % 3
    dataset = Dataset("toy", Split(images[:6], labels[:6]), Split(images[6:], labels[6:]), 3)
    train, test = standardized(dataset)
    mean, std = channel_statistics(images[:6])
    for (x, y), split in ((train, dataset.train), (test, dataset.test)):
        np.testing.assert_allclose(x, (split.images / 255 - mean) / std, atol=1e-5)
        np.testing.assert_array_equal(y, split.labels)
    with pytest.raises(InputError, match=r"^label 2 is 2, expected 0 to 1$"):
        standardized(dataset._replace(classes=2))


def correlated(n=400, shape=(3, 2, 2), dtype: Any = np.float32) -> Any:
    random = np.random.default_rng(1)
    d = int(np.prod(shape))
    x = (random.normal(size=(n, d)) @ random.normal(size=(d, d)) + 5).reshape(n, *shape)
    return x.astype(dtype)


def covariance(x):
    return np.cov(np.asarray(x, np.float64).reshape(len(x), -1), rowvar=False)


def test_whitened_covariance_is_the_identity():
    x = correlated()
    fit = fit_whitening(x, 0.0)
    spread = np.diag(fit.variance)
    np.testing.assert_allclose(covariance(decorrelate(x, fit)), spread, atol=1e-4 * spread.max())
    np.testing.assert_allclose(covariance(pca_whiten(x, fit)), np.eye(12), atol=2e-3)
    np.testing.assert_allclose(covariance(zca_whiten(x, fit)), np.eye(12), atol=2e-3)
    assert zca_whiten(x, fit).shape == x.shape
    assert (np.diff(fit.variance) <= 0).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_zca_is_the_symmetric_inverse_root(epsilon):
    x = correlated(dtype=np.float64)
    flat = x.reshape(len(x), -1)
    variance, basis = np.linalg.eigh(covariance(x) + epsilon * np.eye(12))
    expected = (flat - flat.mean(axis=0)) @ basis @ np.diag(variance**-0.5) @ basis.T
    fit = fit_whitening(x.astype(np.float32), epsilon)
    result = zca_whiten(x.astype(np.float32), fit)
    np.testing.assert_allclose(np.reshape(result, flat.shape), expected, atol=5e-3)


def test_whitening_by_hand():
    # Covariance diag(8, 2) with n - 1 = 1 ... the two images (2, 0), (-2, 0) have variance 8 in x.
    x: Any = np.array([[2, 1], [-2, 1]], np.float32)
    fit = fit_whitening(x, 1.0)
    np.testing.assert_allclose(fit.variance, [8, 0], atol=1e-6)
    # 2 / sqrt(8 + 1) and, where there is no variance, 0 / sqrt(0 + 1).
    np.testing.assert_allclose(zca_whiten(x, fit), [[2 / 3, 0], [-2 / 3, 0]], atol=1e-6)
    np.testing.assert_allclose(np.abs(decorrelate(x, fit)), [[2, 0], [2, 0]], atol=1e-6)


def test_fewer_images_than_pixels_stay_finite():
    x = correlated(n=5)
    assert np.isfinite(zca_whiten(x, fit_whitening(x))).all()


def test_whitening_accumulates_low_precision_in_float32():
    x = correlated(dtype=jnp.bfloat16)
    fit = fit_whitening(x, 1e-5)
    assert fit.basis.dtype == jnp.float32
    np.testing.assert_allclose(covariance(zca_whiten(x, fit)), np.eye(12), atol=5e-3)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 4), "float32"), ((4,), "float32"), ((9, 4), "uint8")]
)
def test_fit_names_what_it_cannot_use(shape, dtype):
    with pytest.raises(InputError, match=f"^images are {dtype} of shape .*, expected floating"):
        fit_whitening(jnp.zeros(shape, dtype))


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (4, 4), (1, 2), (3, 0)])
def test_pad_to_surrounds_with_zeros(rows, columns):
    images = np.random.default_rng(0).integers(1, 256, (2, 5, 3, 2), np.uint8)
    _, height, width, _ = images.shape
    padded = np.asarray(pad_to(images, height + rows, width + columns))
    top, left = rows // 2, columns // 2
    assert padded.dtype == jnp.uint8
    assert padded.shape[1:3] == (height + rows, width + columns)
    np.testing.assert_array_equal(padded[:, top : top + height, left : left + width], images)
    assert int(padded.astype(int).sum()) == int(images.astype(int).sum())


def test_pad_to_of_one_image_under_jit():
    padded = jax.jit(pad_to, static_argnums=(1, 2))(np.ones((28, 28, 1), np.float32), 32, 32)
    padded = np.asarray(padded)
    assert padded.shape == (32, 32, 1) and padded[2:30, 2:30].all() and padded.sum() == 28 * 28


def test_pad_to_does_not_crop():
    with pytest.raises(
        InputError, match=r"^images are 28 by 28 pixels, expected at most 32 by 20$"
    ):
        pad_to(np.zeros((1, 28, 28, 1)), 32, 20)
