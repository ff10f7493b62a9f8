"""Codes of adder filters, against distances of real numbers."""

from typing import Any

import numpy as np
import pytest

from nnlab.deployment.quantization import quantized_filters
from nnlab.errors import InputError


def distances(x, w):
    return -abs(x[:, :, None] - w).sum(axis=1)


def filters(seed=0, terms=6, out=8, spread=4.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(terms, out)) * np.linspace(0.1, 1, out) * spread


def computed(groups, x, out):
    """The real numbers that the groups' integers stand for."""
    y = np.full((len(x), out), np.nan)
    for g in groups:
        codes = np.clip(np.rint((x - g.low) / g.step), 0, g.top)
        assert g.codes.dtype == np.uint8 and (g.codes.astype(int) << g.shift).max() <= 255
        y[:, g.filters] = distances(codes, g.codes.astype(int) << g.shift) * g.step + g.bias
    return y


def test_golden():
    # r = 3 and 2 bits: codes of x to 3, of w to 1. The filter that reaches 4 has s = 3, steps of 1
    # and 2; its largest weight is 2, and it loses 2 above and 2 below 0: bias -4. The other filter
    # has s = 1.5, steps of 1/2 and 1: it loses 1/2 above, and 1/2 becomes 0, the even code.
    kernel = np.array([[4.0, 1.5], [-2.0, 0.5], [2.0, 0.0]])
    small, large = quantized_filters(kernel, 0.0, 3.0, 2, 2, "redistribution")
    assert large.filters.tolist() == [0] and large.codes.ravel().tolist() == [1, 0, 1]
    assert (large.step, large.top, large.bias.tolist()) == (1.0, 3, [-4.0])
    assert small.filters.tolist() == [1] and small.codes.ravel().tolist() == [1, 0, 0]
    assert (small.step, small.top, small.bias.tolist()) == (0.5, 3, [-0.5])


@pytest.mark.parametrize("low", [0.0, -1.5])
def test_the_clamp_is_lossless(low):
    """Weights outside the inputs' range, however far, and inputs on the grid: nothing is lost."""
    rng = np.random.default_rng(0)
    high = low + 2.55
    x = low + rng.integers(0, 255, (20, 6)) / 100  # up to the largest weight
    inside = low + 2 * rng.integers(0, 128, (6, 4)) / 100
    outside = np.where(rng.random((6, 4)) < 0.5, low, high) + 0.0
    outside += np.where(outside == low, -1, 1) * rng.exponential(5, (6, 4))
    kernel = np.where(rng.random((6, 4)) < 0.5, inside, outside)
    kernel[0] = high + 1  # so that each filter reaches beyond r
    (group,) = quantized_filters(kernel, low, high, 8, 4, "redistribution")
    y = computed([group], x, 4)
    np.testing.assert_allclose(y, distances(x, kernel), rtol=0, atol=1e-9)


@pytest.mark.parametrize("bits", [8, 6, 5, 4])
def test_errors_are_those_of_rounding(bits):
    kernel, high = filters(), 2.0
    x = np.random.default_rng(1).uniform(0, high, (50, 6))
    groups = quantized_filters(kernel, 0.0, high, bits, 4, "redistribution")
    assert sorted(np.concatenate([g.filters for g in groups])) == list(range(8))
    y, expected = computed(groups, x, 8), distances(x, kernel)
    for g in groups:
        # A term is off by half a step for x and a step, half of its own, for w. Where x is above
        # the largest weight, by up to a step, a weight above that as well adds twice as much.
        lost = np.maximum(x - g.top * g.step, 0).sum(axis=1, keepdims=True)  # where s < r
        error = abs(y - expected)[:, g.filters] - 2 * lost
        assert error.max() <= 6 * 3.5 * g.step + 1e-9


def test_groups_are_clusters_of_the_largest_weights():
    # Of six filters two have small, two middle and two large weights, r = 2 lies above the middle.
    kernel = np.array([[0.9, 5.9, 1.4, 0.91, 6.0, 1.5]])
    groups = quantized_filters(kernel, 0.0, 2.0, 8, 3, "redistribution")
    assert [g.filters.tolist() for g in groups] == [[0, 3], [2, 5], [1, 4]]
    np.testing.assert_allclose([g.step * 255 for g in groups], [0.91, 1.5, 2.0])
    (one,) = quantized_filters(kernel, 0.0, 2.0, 8, 1, "redistribution")
    assert one.filters.tolist() == list(range(6)) and one.step * 255 == 2.0


@pytest.mark.parametrize(("bits", "least"), [(2, 0.85), (4, 0.98), (8, 0.999)])
def test_filters_far_below_the_inputs_keep_what_the_sums_say(bits, least):
    rng = np.random.default_rng(0)
    x = np.minimum(abs(rng.normal(size=(200, 144))), 3.5)
    kernel = rng.normal(size=(144, 4)) * 0.02
    y = computed(quantized_filters(kernel, 0.0, 3.5, bits, 2, "redistribution"), x, 4)
    expected = distances(x, kernel)
    assert min(np.corrcoef(y[:, k], expected[:, k])[0, 1] for k in range(4)) > least
    saturated = distances(np.minimum(x, abs(kernel).max()), kernel)  # the paper's scale
    assert max(np.corrcoef(saturated[:, k], expected[:, k])[0, 1] for k in range(4)) < 0.5


def test_beside_a_huge_weight_clusters_may_be_empty():
    kernel = np.array([[0.1, 0.2, 0.3, 0.4, 1e30]])
    groups = quantized_filters(kernel, 0.0, 2.0, 8, 4, "redistribution")
    assert sorted(np.concatenate([g.filters for g in groups])) == list(range(5))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("low", [0.0, -2.0])
def test_shared_scale(bits, low):
    kernel = filters()
    most = 2 ** (bits - 1) - 1
    step = abs(kernel).max() / most
    x = np.random.default_rng(1).uniform(low, 2, (50, 6))
    groups = quantized_filters(kernel, low, 2.0, bits, 4, "shared")
    expected = distances(np.rint(x / step), np.rint(kernel / step)) * step
    np.testing.assert_allclose(computed(groups, x, 8), expected, rtol=0, atol=1e-9)


def test_all_weights_zero_or_inputs_zero_wide():
    (group,) = quantized_filters(np.zeros((3, 2)), 0.0, 1.0, 8, 4, "redistribution")
    assert group.step == 1 / 255 and not group.codes.any() and not group.bias.any()
    for kernel, high in ((np.ones((3, 2)), 0.0), (np.full((3, 2), np.nan), 1.0)):
        with pytest.raises(InputError, match=r"expected a range around 0 and finite weights\.$"):
            quantized_filters(kernel, 0.0, high, 8, 4, "redistribution")


def test_errors():
    wrong: list[tuple[Any, ...]] = [(9, 4, "shared"), (1, 4, "shared"), (8, 0, "shared")]
    for options in [*wrong, (8, 4, "none")]:
        with pytest.raises(InputError, match=r"takes 2 to 8 bits, .* not \d, \d and '\w+'\.$"):
            quantized_filters(np.ones((3, 2)), 0.0, 1.0, *options)
