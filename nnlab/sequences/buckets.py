"""Texts of unequal length in batches of few widths, so that little of a batch is padding.

Every shape of a batch is a program of its own, which takes its time to compile. `bucket_widths`
chooses the few widths that leave the least padding, and `in_buckets` trains on batches in which all
texts are about as long. On SST-2 six widths compute 1.24 symbols for each real one, where a single
width computes 4.96.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from nnlab.data.batches import shared_size
from nnlab.errors import InputError, check_count
from nnlab.sequences.tokens import Tokens
from nnlab.training.epochs import check_divides, check_nothing_carried, order_key, steps_per_epoch
from nnlab.training.feeds import Advance, Feed, jit_step
from nnlab.training.parallel import AXIS, BY_IMAGE
from nnlab.training.steps import State, Step


def padded(texts: Sequence[np.ndarray], width: int | None = None, pad: int = 0) -> Tokens:
    """Put texts into one array.

    Args:
        texts: symbols of each, integers [time].
        width: symbols of a row; by default those of the longest text.
        pad: symbol after the end of a text; what a text is `lengths` say.

    Returns:
        `Tokens` of symbols int32 [texts, width] and lengths int32 [texts].

    Raises:
        InputError: there are no texts, one is empty or one is longer than `width`.
    """
    lengths = np.array([len(text) for text in texts], np.int32)
    if not lengths.size or not lengths.min():
        what = f"text {lengths.argmin()} has" if lengths.size else "there are"
        raise InputError(f"{what} no symbols, expected texts of one symbol or more.")
    width = int(lengths.max()) if width is None else width
    if lengths.max() > width:
        raise InputError(
            f"text {lengths.argmax()} has {lengths.max()} symbols, expected at most {width}."
        )
    symbols = np.full((len(texts), width), pad, np.int32)
    symbols[np.arange(width) < lengths[:, None]] = np.concatenate(texts)
    return Tokens(symbols, lengths)


def bucket_widths(lengths: Any, shapes: int = 6) -> tuple[int, ...]:
    """Choose at most `shapes` widths, rising, that leave the least padding.

    Each text is padded to the least width that holds it, and the last width is the longest text.
    The choice is the best there is, by dynamic programming over the different lengths.

    Args:
        lengths: symbols of each text, integers [texts].
        shapes: number of widths.
    """
    check_count("shapes", shapes)
    found, counts = np.unique(np.asarray(lengths), return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])  # texts shorter than the i-th length
    least = np.where(before == 0, 0.0, np.inf)  # symbols of the texts before, in widths so far
    choices = []
    for _ in range(min(shapes, len(found))):
        last = found * (before[1:] - before[:-1, None])  # [first of the bucket, last of it]
        total = np.where(last > 0, least[:-1, None] + last, np.inf)
        choices.append(total.argmin(axis=0))
        least = np.concatenate([[np.inf], total.min(axis=0)])
    widths, end = [], len(found)
    for choice in reversed(choices):
        widths.append(int(found[end - 1]))
        end = int(choice[end - 1])
    return tuple(reversed(widths))


def in_buckets(
    texts: Sequence[np.ndarray], labels: Any, batch_size: int, *, shapes: int = 6, pad: int = 0
) -> Feed:
    """Train on batches of `Tokens` of about equal length, in `shapes` widths or fewer.

    Each epoch draws an order from the state's key, fills batches of each width, and takes them in
    an order that is drawn too. Texts that fill no batch of their width go into one of the next
    width; of the last, less than a batch is left out, as by `nnlab.training.in_memory`.

    Args:
        texts: symbols of each, integers [time].
        labels: an array [texts, …] or a tree of them.
        batch_size: texts in a batch, of any width.
        shapes: number of widths, each of which is compiled.
        pad: symbol after the end of a text.

    Raises:
        InputError: a text is empty, there are fewer than `batch_size`, or not as many labels; or,
            on compilation, the devices of the mesh do not divide the batch, or there is a carried
            state.
    """
    tokens = padded(texts, pad=pad)
    examples = (tokens, jax.tree.map(np.asarray, labels))
    steps = steps_per_epoch(examples, batch_size)
    widths = bucket_widths(tokens.lengths, shapes)
    bucket = np.searchsorted(widths, tokens.lengths)

    def batch(rows: np.ndarray, width: int) -> tuple[Tokens, Any]:
        chosen = Tokens(tokens.symbols[rows, :width], tokens.lengths[rows])
        return chosen, jax.tree.map(lambda a: a[rows], examples[1])

    def plan(key: jax.Array, epoch: int) -> list[tuple[np.ndarray, int]]:
        """The rows and the width of each batch of an epoch."""
        keys = jax.random.split(jax.random.fold_in(key, epoch))
        order = np.asarray(jax.random.permutation(keys[0], len(bucket)))
        batches, left = [], order[:0]
        for number, width in enumerate(widths):
            rows = np.concatenate([left, order[bucket[order] == number]])
            full = len(rows) // batch_size * batch_size
            batches += [(part, width) for part in rows[:full].reshape(-1, batch_size)]
            left = rows[full:]
        return [batches[i] for i in np.asarray(jax.random.permutation(keys[1], steps))]

    @contextlib.contextmanager
    def compile(step: Step, state: State, mesh: Mesh | None) -> Iterator[Advance]:
        check_nothing_carried(state)
        if mesh is not None:
            check_divides(mesh.shape[AXIS], batch_size)
        sharding = None if mesh is None else NamedSharding(mesh, BY_IMAGE)

        def placed(rows: np.ndarray, width: int) -> Any:
            return jax.device_put(batch(rows, width), sharding)

        program, rows = jit_step(step, mesh), np.arange(batch_size)
        used = {width for _, width in plan(order_key(state), 0)}  # the same in each epoch
        runs = {width: program.lower(state, placed(rows, width)).compile() for width in used}
        planned: dict[Any, list[tuple[np.ndarray, int]]] = {}  # of the epoch under way

        def advance(state: State, count: int) -> tuple[State, dict[str, np.ndarray]]:
            epoch, first = divmod(int(state.step), steps)
            key = order_key(state)
            which = epoch, jax.random.key_data(key).tobytes()
            if which not in planned:
                planned.clear()
                planned[which] = plan(key, epoch)
            made = []
            for rows, width in planned[which][first : first + count]:
                state, metrics = runs[width](state, placed(rows, width))
                made.append(metrics)
                if metrics.get("nonfinite", -1) >= 0:
                    break
            return state, {name: np.array([m[name] for m in made]) for name in made[0]}

        yield advance

    def some(count: int) -> np.ndarray:
        return np.random.default_rng(0).permutation(shared_size(examples))[:count]

    def first() -> tuple[Tokens, Any]:
        return batch(np.arange(batch_size), widths[-1])

    def sample(batches: int) -> Any:
        return batch(some(min(batches, steps) * batch_size), widths[-1])[0]

    return Feed(batch_size, steps, compile, first, sample, examples[1])
