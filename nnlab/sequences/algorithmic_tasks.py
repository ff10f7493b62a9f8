r"""The five tasks of the Neural Turing Machine, and the addition of binary numbers.

Every task draws a batch of episodes from a key, inside a compiled program if wanted, as

    inputs, (targets, mask) = copy(key, 16)

inputs [batch, time, m], targets [batch, time, k] and mask [batch, time], float32; all but the
priority and the number of repeats are 0 or 1. The mask is 1 at the steps whose output counts, where
the inputs are 0 (except for n-grams). Episodes have different lengths; `time` is the longest, and
shorter ones are followed by zeros. `lengths`, `repeats` and `items` are pairs of the least and the
most, both included, and each number between them is equally likely.

===================  ====================================================  ====================  ===
task                 inputs                                                time                  k
===================  ====================================================  ====================  ===
copy                 bits, end of words                                    2 L + 1               8
repeat copy          bits, end of words, number of repeats                 L + 2 + L R           9
associative recall   bits, start of an item, start and end of the query    4 I + 8               6
n-grams              the bit                                               bits - 1              1
priority sort        bits, end of words, priority                          words + 1 + sorted    8
binary addition      a bit of each number, end of the numbers              2 L + 2               1
===================  ====================================================  ====================  ===

where L is the greatest length, R the most repeats and I the most items.

Reference:
    Graves, Wayne & Danihelka, Neural Turing Machines, 2014, https://arxiv.org/abs/1410.5401,
    sections 4.1 to 4.5; eq. 10 is the optimal estimator of n-grams.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.errors import InputError
from nnlab.ops.keys import check_key

Episodes = tuple[jax.Array, tuple[jax.Array, jax.Array]]
WORDS_OF_ITEM = 3
ORDER = 6  # bits of an n-gram, the last of which follows from the others


def copy(key: jax.Array, batch: int, lengths: tuple[int, int] = (1, 20), bits: int = 8) -> Episodes:
    """Draw random words, then the end, then the same words."""
    shortest, longest = _range("lengths", lengths)

    def episode(key):
        length_key, words_key = jax.random.split(key)
        length = jax.random.randint(length_key, (), shortest, longest + 1)
        words = _words(words_key, longest, bits, length)
        ends = (jnp.arange(longest + 1) == length).astype(jnp.float32)
        shown = jnp.column_stack([jnp.pad(words, ((0, 1), (0, 0))), ends])
        wanted = lax.dynamic_update_slice(
            jnp.zeros((2 * longest + 1, bits), jnp.float32), words, (length + 1, 0)
        )
        time = jnp.arange(2 * longest + 1)
        return _episode(shown, wanted, (time > length) & (time <= 2 * length))

    return _batch(episode, key, batch)


def repeat_copy(
    key: jax.Array,
    batch: int,
    lengths: tuple[int, int] = (1, 10),
    repeats: tuple[int, int] = (1, 10),
    bits: int = 8,
) -> Episodes:
    """Draw words to copy as many times as the input says after them, and then an end to output.

    The number is scaled to mean 0 and variance 1 over 1 to 10, whatever `repeats` is, so that one
    number always looks the same to a network.
    """
    shortest, longest = _range("lengths", lengths)
    fewest, most = _range("repeats", repeats)
    steps = longest + 2 + longest * most

    def episode(key):
        length_key, repeats_key, words_key = jax.random.split(key, 3)
        length = jax.random.randint(length_key, (), shortest, longest + 1)
        count = jax.random.randint(repeats_key, (), fewest, most + 1)
        words = _words(words_key, longest, bits, length)
        ends = (jnp.arange(longest + 1) == length).astype(jnp.float32)
        number = ends * (count.astype(jnp.float32) - 5.5) / jnp.sqrt(8.25)
        shown = jnp.column_stack([jnp.pad(words, ((0, 1), (0, 0))), ends, number])
        time = jnp.arange(steps)
        last = length + 1 + length * count
        copied = ((time > length) & (time < last)).astype(jnp.float32)
        again = words[(time - length - 1) % length] * copied[:, None]
        wanted = jnp.column_stack([again, (time == last).astype(jnp.float32)])
        return _episode(shown, wanted, (time > length) & (time <= last))

    return _batch(episode, key, batch)


def associative_recall(
    key: jax.Array, batch: int, items: tuple[int, int] = (2, 6), bits: int = 6
) -> Episodes:
    """Draw items of three words, then one of them (not the last) again, which asks for the next.

    Raises:
        InputError: there are less than 2 items.
    """
    fewest, most = _range("items", items, 2)
    block = 1 + WORDS_OF_ITEM

    def episode(key):
        count_key, query_key, words_key = jax.random.split(key, 3)
        count = jax.random.randint(count_key, (), fewest, most + 1)
        query = jax.random.randint(query_key, (), 0, count - 1)
        drawn = jax.random.bernoulli(words_key, shape=(most, WORDS_OF_ITEM, bits))
        words = drawn.astype(jnp.float32)
        shown = jnp.zeros((most, block, bits + 2), jnp.float32).at[:, 1:, :bits].set(words)
        given = (jnp.arange(most) < count).astype(jnp.float32)
        shown = shown.at[:, 0, bits].set(1) * given[:, None, None]
        asked = jnp.zeros((block + 1, bits + 2), jnp.float32).at[1:block, :bits].set(words[query])
        asked = asked.at[jnp.array([0, block]), bits + 1].set(1)
        shown = jnp.pad(shown.reshape(-1, bits + 2), ((0, 2 * block), (0, 0)))
        shown = lax.dynamic_update_slice(shown, asked, (block * count, 0))
        first = block * count + block + 1
        wanted = jnp.zeros((len(shown), bits), jnp.float32)
        wanted = lax.dynamic_update_slice(wanted, words[query + 1], (first, 0))
        time = jnp.arange(len(shown))
        return _episode(shown, wanted, (time >= first) & (time < first + WORDS_OF_ITEM))

    return _batch(episode, key, batch)


def ngrams(key: jax.Array, batch: int, bits: int = 200) -> Episodes:
    """Draw bits whose probabilities the five before them choose; the target is the next bit.

    The 32 probabilities of an episode are drawn from Beta(1/2, 1/2), the first five bits with
    probability 1/2; the first five are not among the targets.

    Raises:
        InputError: there are less than 6 bits.
    """
    if bits < ORDER:
        raise InputError(f"n-grams need at least {ORDER} bits, not {bits}.")
    contexts = 2 ** (ORDER - 1)

    def episode(key):
        table_key, first_key, bits_key = jax.random.split(key, 3)
        table = jax.random.beta(table_key, 0.5, 0.5, (contexts,))
        first = jax.random.randint(first_key, (), 0, contexts)  # five bits as a number

        def draw(context, uniform):
            bit = (uniform < table[context]).astype(jnp.int32)
            return (2 * context + bit) % contexts, bit

        rest = lax.scan(draw, first, jax.random.uniform(bits_key, (bits - ORDER + 1,)))[1]
        begin = (first >> jnp.arange(ORDER - 2, -1, -1)) & 1
        sequence = jnp.concatenate([begin, rest])[:, None]
        return _episode(sequence[:-1], sequence[1:], jnp.arange(1, bits) >= ORDER - 1)

    return _batch(episode, key, batch)


def ngram_estimates(inputs: jax.Array) -> jax.Array:
    """Compute the optimal logits [batch, time, 1] of the next bits of `ngrams`.

    If N1 ones and N0 zeros have followed the same five bits, the next is 1 with probability
    (N1 + 1/2) / (N0 + N1 + 1). Before the fifth bit the logits are 0.
    """
    contexts = 2 ** (ORDER - 1)

    def estimates(sequence):
        def look(carry, step):
            context, counts = carry
            time, bit = step
            known = time >= ORDER - 1  # there are five bits before this one
            counts = counts.at[context, bit].add(jnp.where(known, 1.0, 0.0))
            context = (2 * context + bit) % contexts
            zeros, ones = counts[context]
            estimate = jnp.log(ones + 0.5) - jnp.log(zeros + 0.5)
            return (context, counts), jnp.where(time >= ORDER - 2, estimate, 0.0)

        steps = jnp.arange(len(sequence)), sequence[:, 0].astype(jnp.int32)
        start = jnp.array(0), jnp.zeros((contexts, 2), jnp.float32)
        return lax.scan(look, start, steps)[1][:, None]

    return jax.vmap(estimates)(inputs)


def priority_sort(
    key: jax.Array, batch: int, words: int = 20, kept: int = 16, bits: int = 8
) -> Episodes:
    """Draw words with priorities from -1 to 1; targets are those of the highest, in order.

    Raises:
        InputError: `words` or `kept` is below 1, or more are kept than there are.
    """
    _range("kept and words", (kept, words))

    def episode(key):
        words_key, priority_key = jax.random.split(key)
        all_words = _words(words_key, words, bits, words)
        priorities = jax.random.uniform(priority_key, (words,), minval=-1, maxval=1)
        ends = (jnp.arange(words + 1) == words).astype(jnp.float32)
        shown = jnp.pad(all_words, ((0, 1), (0, 0)))
        shown = jnp.column_stack([shown, ends, jnp.pad(priorities, (0, 1))])
        order = jnp.argsort(-priorities)[:kept]
        wanted = jnp.pad(all_words[order], ((words + 1, 0), (0, 0)))
        return _episode(shown, wanted, jnp.arange(words + 1 + kept) > words)

    return _batch(episode, key, batch)


def binary_addition(key: jax.Array, batch: int, lengths: tuple[int, int] = (1, 8)) -> Episodes:
    """Draw two numbers, both bit by bit from the least; their sum, one bit longer, comes after."""
    shortest, longest = _range("lengths", lengths)

    def episode(key):
        length_key, bits_key = jax.random.split(key)
        length = jax.random.randint(length_key, (), shortest, longest + 1)
        numbers = _words(bits_key, longest, 2, length)

        def add(carry, pair):
            total = carry + pair.sum()
            return (total >= 2).astype(total.dtype), total % 2

        total = lax.scan(add, jnp.float32(0), jnp.pad(numbers, ((0, 1), (0, 0))))[1]
        ends = (jnp.arange(longest + 1) == length).astype(jnp.float32)
        shown = jnp.column_stack([jnp.pad(numbers, ((0, 1), (0, 0))), ends])
        wanted = jnp.zeros((2 * longest + 2, 1), jnp.float32)
        wanted = lax.dynamic_update_slice(wanted, total[:, None], (length + 1, 0))
        time = jnp.arange(2 * longest + 2)
        return _episode(shown, wanted, (time > length) & (time <= 2 * length + 1))

    return _batch(episode, key, batch)


def _range(name: str, limits: tuple[int, int], least: int = 1) -> tuple[int, int]:
    low, high = limits
    if not least <= low <= high:
        raise InputError(f"{name} must be two numbers from {least} on in order, not {limits}.")
    return low, high


def _words(key: jax.Array, count: int, bits: int, length: jax.Array | int) -> jax.Array:
    """Random bits [count, bits], those of the first `length` words; the others are 0."""
    drawn = jax.random.bernoulli(key, shape=(count, bits))
    return (drawn & (jnp.arange(count) < length)[:, None]).astype(jnp.float32)


def _episode(shown: jax.Array, wanted: jax.Array, mask: jax.Array) -> Episodes:
    """Pad what is shown with zeros to the length of what is wanted."""
    inputs = jnp.pad(shown.astype(jnp.float32), ((0, len(wanted) - len(shown)), (0, 0)))
    return inputs, (wanted.astype(jnp.float32), mask.astype(jnp.float32))


def _batch(episode: Callable[[jax.Array], Episodes], key: jax.Array, batch: int) -> Episodes:
    if batch < 1:
        raise InputError(f"batch must be at least 1, not {batch}.")
    check_key(key)
    return jax.vmap(episode)(jax.random.split(key, batch))
