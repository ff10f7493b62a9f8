"""Episodes decoded step by step and answered by plain Python, and scores by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.sequences import algorithmic_tasks as tasks
from nnlab.sequences.episode_scores import bits_per_sequence, wholly_right

KEY = jax.random.key(0)
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def single(values):
    return np.asarray(values, np.float32)


def double(values):
    return np.asarray(values, np.float64)


@functools.cache
def program(make, batch=24, **options):
    return jax.jit(functools.partial(make, batch=batch, **options), compiler_options=QUICK)


@functools.cache
def drawn(make, **options):
    """Episodes one by one, as drawn in a compiled program."""
    inputs, (targets, mask) = jax.tree.map(np.asarray, program(make, **options)(KEY))
    assert inputs.dtype == targets.dtype == mask.dtype == np.float32
    assert inputs.shape[:2] == targets.shape[:2] == mask.shape
    assert not targets[mask == 0].any() or make is tasks.ngrams
    return list(zip(inputs, targets, mask > 0, strict=True))


def counted(numbers, low, high):
    assert min(numbers) == low and max(numbers) == high and len(set(numbers)) == high - low + 1


def test_copy():
    lengths = []
    for inputs, targets, mask in drawn(tasks.copy, lengths=(2, 4), bits=3):
        (end,) = np.flatnonzero(inputs[:, 3])
        lengths.append(int(end))
        assert len(inputs) == 9 and not inputs[end:, :3].any()
        np.testing.assert_array_equal(np.flatnonzero(mask), np.arange(end + 1, 2 * end + 1))
        np.testing.assert_array_equal(targets[mask], inputs[:end, :3])
    counted(lengths, 2, 4)


def test_repeat_copy():
    lengths, numbers = [], set()
    for inputs, targets, mask in drawn(
        tasks.repeat_copy, batch=96, lengths=(1, 3), repeats=(1, 10), bits=3
    ):
        (end,) = np.flatnonzero(inputs[:, 3])
        lengths.append(int(end))
        numbers.add(float(inputs[end, 4]))
        repeats = round(float(inputs[end, 4] * np.sqrt(8.25) + 5.5))
        assert not np.delete(inputs[:, 4], end).any()
        last = end + 1 + end * repeats
        np.testing.assert_array_equal(np.flatnonzero(mask), np.arange(end + 1, last + 1))
        words = np.concatenate([inputs[:end, :3]] * repeats)
        np.testing.assert_array_equal(targets[mask][:-1, :3], words)
        np.testing.assert_array_equal(np.flatnonzero(targets[:, 3]), [last])
        assert not targets[last, :3].any() and len(inputs) == 3 + 2 + 30
    counted(lengths, 1, 3)
    shown = list(numbers)  # the numbers of repeats have mean 0 and variance 1
    assert len(shown) == 10 and abs(np.mean(shown)) < 1e-6 and abs(np.var(shown) - 1) < 1e-6


def test_associative_recall():
    counts, queries = [], []
    for inputs, targets, mask in drawn(tasks.associative_recall, items=(2, 4), bits=5):
        starts = np.flatnonzero(inputs[:, 5])
        assert starts.tolist() == list(range(0, 4 * len(starts), 4))
        items = [inputs[start + 1 : start + 4, :5] for start in starts]
        first, last = np.flatnonzero(inputs[:, 6])
        assert (first, last) == (4 * len(items), 4 * len(items) + 4)
        asked = inputs[first + 1 : last, :5]
        (query,) = [n for n, item in enumerate(items) if (item == asked).all()]
        np.testing.assert_array_equal(np.flatnonzero(mask), last + np.arange(1, 4))
        np.testing.assert_array_equal(targets[mask], items[query + 1])
        assert not inputs[last + 1 :].any() and len(inputs) == 24
        counts.append(len(items))
        queries.append(query)
    counted(counts, 2, 4)
    counted(queries, 0, 2)


def ngrams():
    return drawn(tasks.ngrams, batch=150, bits=400)


def test_ngrams_have_their_probabilities():
    shares = []
    for inputs, targets, mask in ngrams():
        np.testing.assert_array_equal(inputs[1:], targets[:-1])
        np.testing.assert_array_equal(mask, np.arange(399) >= 4)
        bits = np.append(inputs[:, 0], targets[-1, 0])
        windows = np.lib.stride_tricks.sliding_window_view(bits, 6)
        after = windows[(windows[:, :5] == [0, 1, 1, 0, 1]).all(axis=1), 5]
        if len(after) >= 10:
            shares.append(np.mean(after))
    # Of Beta(1/2, 1/2) a share of 2 / pi * arcsin(sqrt(0.1)) = 20 % lies below 0.1, and as much
    # above 0.9; of 50 or more draws at least a tenth do, at four standard deviations.
    assert len(shares) >= 50
    assert np.mean(np.array(shares) < 0.1) > 0.1 < np.mean(np.array(shares) > 0.9)


def test_the_estimates_of_ngrams():
    """One sequence by hand, two by counting; what comes later changes nothing."""
    # After 00000 a 1 comes in the sixth bit, then 0s; 00000 returns after five of these. The next
    # bit is then 1 with (1 + 1/2) / 2 = 3/4, and after one more 0 with (1 + 1/2) / 3 = 1/2.
    by_hand = np.zeros(120)
    by_hand[5] = 1
    sequences = single([by_hand, *(inputs[:120, 0] for inputs, _, _ in ngrams()[:2])])
    logits = jax.jit(tasks.ngram_estimates, compiler_options=QUICK)(sequences[..., None])
    found = 1 / (1 + np.exp(-double(logits)[..., 0]))
    np.testing.assert_allclose(found[0, :12], [0.5] * 10 + [3 / 4, 1 / 2], rtol=1e-6)
    for bits, estimates in zip(sequences[1:].astype(int).tolist(), found[1:], strict=True):
        for time in range(4, len(bits)):
            context = bits[time - 4 : time + 1]
            after = [bits[t] for t in range(5, time + 1) if bits[t - 5 : t] == context]
            share = (sum(after) + 0.5) / (len(after) + 1)
            np.testing.assert_allclose(estimates[time], share, rtol=1e-5)


def test_priority_sort():
    for inputs, targets, mask in drawn(tasks.priority_sort, words=6, kept=4, bits=5):
        assert inputs[6].tolist() == [0] * 5 + [1, 0] and not inputs[7:].any()
        words = [(float(row[6]), row[:5].tolist()) for row in inputs[:6]]
        assert all(-1 <= priority <= 1 for priority, _ in words)
        ranked = [word for _, word in sorted(words, key=lambda pair: -pair[0])]
        assert np.flatnonzero(mask).tolist() == [7, 8, 9, 10]
        assert targets[mask].tolist() == ranked[:4]


def test_binary_addition():
    lengths = []
    for inputs, targets, mask in drawn(tasks.binary_addition, lengths=(2, 5)):
        (end,) = np.flatnonzero(inputs[:, 2])
        lengths.append(int(end))
        powers = 2 ** np.arange(end + 1)
        first, second = (int(inputs[:end, n] @ powers[:end]) for n in (0, 1))
        assert np.flatnonzero(mask).tolist() == list(range(end + 1, 2 * end + 2))
        assert targets[mask][:, 0] @ powers == first + second and len(inputs) == 12
    counted(lengths, 2, 5)


def test_keys_make_the_episodes():
    draw = program(tasks.copy, lengths=(2, 4), bits=3)
    same, again, other = (np.asarray(draw(key)[0]) for key in (KEY, KEY, jax.random.key(1)))
    np.testing.assert_array_equal(same, again)
    assert (other != same).any() and (same[0] != same[1]).any()


bits_per_sequence, wholly_right = map(jax.jit, (bits_per_sequence, wholly_right))


def test_scores_by_hand():
    # Probability 3/4 on what is right costs log2(4/3) bits, on what is wrong log2(4) = 2.
    logit = np.log(3)
    logits = jnp.array([[[logit], [-logit]], [[logit], [logit]]])
    targets = jnp.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    labels = targets, jnp.ones((2, 2))
    expected = (3 * np.log2(4 / 3) + 2) / 2
    np.testing.assert_allclose(bits_per_sequence(logits, labels), expected, rtol=1e-6)
    assert wholly_right(logits, labels) == {"right": 0.5}
    masked = targets, jnp.array([[1.0, 1.0], [0.0, 1.0]])
    expected = 3 * np.log2(4 / 3) / 2
    np.testing.assert_allclose(bits_per_sequence(logits, masked), expected, rtol=1e-6)
    assert wholly_right(logits, masked) == {"right": 1.0}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (tasks.copy, {"lengths": (3, 2)}, r"lengths must be .* from 1 on in order, not \(3, 2\)\."),
        (tasks.copy, {"batch": 0}, r"batch must be at least 1, not 0\."),
        (tasks.repeat_copy, {"repeats": (0, 2)}, r"repeats must be .* not \(0, 2\)\."),
        (tasks.associative_recall, {"items": (1, 6)}, r"items must be .* from 2 .* \(1, 6\)\."),
        (tasks.ngrams, {"bits": 5}, r"n-grams need at least 6 bits, not 5\."),
        (tasks.priority_sort, {"words": 3}, r"kept and words must .* not \(16, 3\)\."),
        (tasks.binary_addition, {"lengths": (0, 3)}, r"lengths must be .* \(0, 3\)\."),
    ],
)
def test_errors(make, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make(**{"key": KEY, "batch": 2, **options})
