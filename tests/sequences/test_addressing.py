"""Addressing: what stays true of a weighting, loops in float64, gradients, and a case by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nnlab.sequences import addressing

EPS = 2.0**-23  # of float32
compiled = types.SimpleNamespace(
    **{name: jax.jit(function) for name, function in vars(addressing).items() if callable(function)}
)


def single(values):
    return np.asarray(values, np.float32)


def double(values):
    return np.asarray(values, np.float64)


def drawn(seed, batch, heads, locations, size, reach):
    """Random arguments of `address`, float32."""
    rng = np.random.default_rng(seed)

    def weightings(n):
        return rng.dirichlet(np.ones(n), (batch, heads)).astype(np.float32)

    return {
        "memory": rng.normal(size=(batch, locations, size)).astype(np.float32),
        "previous": weightings(locations),
        "keys": rng.normal(size=(batch, heads, size)).astype(np.float32),
        "strengths": rng.exponential(2.0, (batch, heads)).astype(np.float32),
        "gates": rng.uniform(size=(batch, heads)).astype(np.float32),
        "shifts": weightings(2 * reach + 1),
        "sharpness": (1 + rng.exponential(1.0, (batch, heads))).astype(np.float32),
    }


def by_loops(memory, previous, keys, strengths, gates, shifts, sharpness):
    """The paper's equations for one example and head after the other, float64."""
    batch, heads, locations = previous.shape
    reach = shifts.shape[-1] // 2
    found = np.zeros(previous.shape)
    for b in range(batch):
        for h in range(heads):
            key = double(keys[b, h])
            scores = np.zeros(locations)
            for i in range(locations):
                word = double(memory[b, i])
                norms = (key @ key + 1e-8) * (word @ word + 1e-8)
                scores[i] = strengths[b, h] * (key @ word) / np.sqrt(norms)
            content = np.exp(scores - scores.max())
            content /= content.sum()
            gate = double(gates[b, h])
            gated = gate * content + (1 - gate) * previous[b, h]
            shifted = np.zeros(locations)
            for i in range(locations):
                for offset in range(-reach, reach + 1):
                    share = double(shifts[b, h, offset + reach])
                    shifted[i] += gated[(i - offset) % locations] * share
            sharp = shifted ** double(sharpness[b, h])
            found[b, h] = sharp / sharp.sum()
    return found


@jax.jit
def stages(memory, previous, keys, strengths, gates, shifts, sharpness):
    content = compiled.content_weighting(keys, strengths, memory)
    gated = compiled.interpolate(content, previous, gates)
    shifted = compiled.circular_shift(gated, shifts)
    return content, gated, shifted, compiled.sharpen(shifted, sharpness)


@pytest.mark.parametrize("sizes", [(3, 2, 9, 6, 3), (1, 3, 1, 1, 1), (2, 1, 4, 3, 0)])
def test_any_size_gives_weightings_and_what_the_loops_give(sizes):
    args = drawn(0, *sizes)
    *others, sharp = map(np.asarray, stages(**args))
    for weighting in (*others, sharp):
        assert weighting.dtype == np.float32 and (weighting >= 0).all()
        np.testing.assert_allclose(weighting.sum(-1), 1, rtol=0, atol=16 * EPS)
    # A relative error of a few roundings in a weight comes out as gamma (below 10) times that.
    np.testing.assert_allclose(sharp, by_loops(**args), rtol=500 * EPS, atol=1e-7)


def test_worked_by_hand():
    # Three locations of one number, 1, -1 and 0, and the key 2: K = 1, -1, 0. With strength ln 2
    # the content weighting is (2, 1/2, 1) / 3.5 = (4, 1, 2) / 7. Half of it and half of (0, 0, 1)
    # is (4, 1, 9) / 14. All weight on the offset +1 moves it to (9, 4, 1) / 14, and the power 2
    # makes it (81, 16, 1) / 98.
    memory, key = single([[1], [-1], [0]]), single([[2]])
    strength = single([np.log(2)])
    content = compiled.content_weighting(key, strength, memory)
    np.testing.assert_allclose(content, [np.array([4, 1, 2]) / 7], rtol=4 * EPS)
    weighting = compiled.address(
        memory,
        single([[0, 0, 1]]),
        key,
        strength,
        gates=single([0.5]),
        shifts=single([[0, 0, 1]]),
        sharpness=single([2]),
    )
    np.testing.assert_allclose(weighting, [np.array([81, 16, 1]) / 98], rtol=8 * EPS)
    # Read: (81 - 16) / 98. Written with erase 1/2 and add 7 by the weighting (0, 1, 0): -1/2 + 7.
    np.testing.assert_allclose(compiled.read(memory, weighting), [[65 / 98]], rtol=8 * EPS)
    one = single([[0, 1, 0]])
    written = compiled.write(memory, one, single([[0.5]]), single([[7]]))
    np.testing.assert_array_equal(written, [[1], [6.5], [0]])


@pytest.mark.parametrize(("locations", "reach"), [(1, 1), (5, 2), (4, 4), (9, 0)])
def test_a_shift_by_one_offset_rotates_exactly_and_shifts_compose(locations, reach):
    rng = np.random.default_rng(0)
    weighting = rng.dirichlet(np.ones(locations), (2, 1)).astype(np.float32)
    for offset in range(-reach, reach + 1):
        one = np.eye(2 * reach + 1, dtype=np.float32)[[[offset + reach]] * 2]
        moved = compiled.circular_shift(weighting, one)
        np.testing.assert_array_equal(moved, np.roll(weighting, offset, axis=-1))
    first, second = rng.dirichlet(np.ones(2 * reach + 1), (2, 2, 1)).astype(np.float32)
    twice = compiled.circular_shift(compiled.circular_shift(weighting, first), second)
    if 2 * reach <= locations:
        both = [[np.convolve(f[0], s[0])] for f, s in zip(first, second, strict=True)]
        once = compiled.circular_shift(weighting, single(both))
        np.testing.assert_allclose(twice, once, rtol=0, atol=16 * EPS)


def test_a_great_strength_picks_the_nearest_and_none_picks_all():
    args = drawn(0, 2, 3, 6, 4, 1)
    keys, memory = args["keys"], args["memory"]
    similar = np.asarray(compiled.cosine_similarity(keys, memory))
    for strength in (1e6, 1e30):  # not compiled, where beyond 1e7 fused operations can give NaN
        found = addressing.content_weighting(keys, np.full((2, 3), strength, np.float32), memory)
        np.testing.assert_array_equal(found, np.eye(6)[similar.argmax(-1)])
    found = addressing.content_weighting(keys, np.zeros((2, 3), np.float32), memory)
    np.testing.assert_allclose(found, 1 / 6, rtol=2 * EPS)


def test_gates_and_sharpness_at_their_ends():
    args = drawn(1, 2, 3, 6, 4, 1)
    content = compiled.content_weighting(args["keys"], args["strengths"], args["memory"])
    previous, ones = args["previous"], np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(compiled.interpolate(content, previous, ones), content)
    np.testing.assert_array_equal(compiled.interpolate(content, previous, 0 * ones), previous)
    np.testing.assert_allclose(compiled.sharpen(previous, ones), previous, rtol=32 * EPS)
    sharpest = compiled.sharpen(previous, 1e6 * ones)
    np.testing.assert_array_equal(sharpest, np.eye(6)[previous.argmax(-1)])
    # 100 to the power of 30 is beyond float32, and so is its inverse.
    small = compiled.sharpen(single([[0.01] * 100]), single([30]))
    np.testing.assert_allclose(small, 0.01, rtol=16 * EPS)


def test_writing_nothing_and_reading_what_was_written():
    args = drawn(2, 2, 2, 5, 4, 1)
    memory, nothing = args["memory"], np.zeros((2, 2, 4), np.float32)
    same = compiled.write(memory, args["previous"], nothing, nothing)
    np.testing.assert_array_equal(same, memory)
    places = np.eye(5, dtype=np.float32)[np.array([[3, 0], [1, 4]])]
    words = args["keys"]
    written = compiled.write(memory, places, np.ones_like(words), words)
    np.testing.assert_array_equal(compiled.read(written, places), words)
    untouched = places.sum(1) == 0
    np.testing.assert_array_equal(np.asarray(written)[untouched], memory[untouched])


def test_several_writers_against_loops_in_any_order():
    args = drawn(3, 2, 3, 5, 4, 1)
    rng = np.random.default_rng(3)
    erase = rng.uniform(size=(2, 3, 4)).astype(np.float32)
    add = rng.normal(size=(2, 3, 4)).astype(np.float32)
    weightings, memory = args["previous"], args["memory"]
    expected = memory.astype(np.float64)
    for b, h, i, j in np.ndindex(2, 3, 5, 4):
        expected[b, i, j] *= 1 - double(weightings[b, h, i]) * erase[b, h, j]
    for b, h, i, j in np.ndindex(2, 3, 5, 4):
        expected[b, i, j] += double(weightings[b, h, i]) * add[b, h, j]
    for order in ([0, 1, 2], [2, 0, 1]):
        found = compiled.write(memory, weightings[:, order], erase[:, order], add[:, order])
        np.testing.assert_allclose(found, expected, rtol=0, atol=16 * EPS)
    words = np.einsum("bhn,bnw->bhw", weightings.astype(np.float64), memory)
    np.testing.assert_allclose(compiled.read(memory, weightings), words, rtol=0, atol=8 * EPS)


def test_gradients():
    with jax.enable_x64(True):
        args = {name: double(each) for name, each in drawn(4, 1, 2, 4, 3, 1).items()}
        check_grads(compiled.address, tuple(args.values()), 1, ["rev"])
        erase = np.random.default_rng(4).uniform(size=(1, 2, 3))
        written = args["memory"], args["previous"], erase, args["keys"]
        check_grads(compiled.write, written, 1, ["rev"])
        check_grads(compiled.read, written[:2], 1, ["rev"])


def test_zeros_have_values_and_gradients():
    zeros, ones = np.zeros((1, 3), np.float32), np.ones((4, 3), np.float32)
    similar = compiled.cosine_similarity
    assert not np.any(similar(zeros, ones)) and not np.any(similar(zeros, 0 * ones))
    gradients = jax.jit(jax.grad(lambda k, m: similar(k, m).sum(), (0, 1)))
    for key, memory in ((zeros, ones), (zeros + 1, 0 * ones)):
        of_key, of_memory = map(np.asarray, gradients(key, memory))
        assert np.isfinite(of_key).all() and np.isfinite(of_memory).all()
        # At a vector of zeros 1 / sqrt(epsilon) times the other one's direction, (1, 1, 1) / √3.
        steep = of_key[0] / 4 if not key.any() else of_memory[0]
        np.testing.assert_allclose(steep, 1e4 / np.sqrt(3), rtol=1e-6)

    @jax.jit
    def sharpened(weighting, power):
        sharp, pull = jax.vjp(compiled.sharpen, weighting, power)
        return sharp, *pull(np.array([[1, 2, 3, 4]], np.float32))

    weighting = single([[0, 0.25, 0.75, 0]])
    for power in (1.0, 2.5):
        results = sharpened(weighting, single([power]))
        sharp, of_weighting, of_power = map(np.asarray, results)
        assert (sharp[0, ::3] == 0).all()
        # Of p = 1 / (1 + 3^γ), the weight of the first of the two: d(2 p + 3 (1 - p)) / dγ is
        # p (1 - p) ln 3, and with respect to the weights -γ p (1 - p) / w and γ p (1 - p) / w.
        p = 1 / (1 + 3**power)
        np.testing.assert_allclose(of_power, p * (1 - p) * np.log(3), rtol=1e-5)
        slopes = power * p * (1 - p) / np.array([-0.25, 0.75])
        np.testing.assert_allclose(of_weighting[0], [0, *slopes, 0], rtol=1e-5, atol=1e-7)


def test_narrow_numbers_are_widened():
    args = {name: each.astype(jnp.bfloat16) for name, each in drawn(5, 1, 1, 4, 3, 1).items()}
    found = compiled.address(**args)
    wide = {name: np.asarray(each, np.float32) for name, each in args.items()}
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, compiled.address(**wide))


def test_errors_name_the_sizes():
    with pytest.raises(ValueError, match=r"keys of 3 numbers .* locations of 4"):
        compiled.cosine_similarity(np.zeros((1, 3)), np.zeros((5, 4)))
    for taps in (2, 9):
        with pytest.raises(ValueError, match=rf"over {taps} offsets .* 3 locations.* at most 7"):
            compiled.circular_shift(np.zeros((1, 3)), np.zeros((1, taps)))
