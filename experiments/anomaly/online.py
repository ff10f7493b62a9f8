"""Learning from streams: every row is scored before the network learns from it.

The metrics of a step are those before its update, so a `training.train_step` whose metrics keep an
entry for every row measures rows that the network has never seen. `learn_online` takes such steps
in order, block by block, and can be mapped with `jax.vmap` over many streams; `score_streams` does
so for streams of different lengths, with a network for each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.training.steps import (
    Batch,
    Metrics,
    State,
    Step,
)


def learn_online(
    step: Step, state: State, blocks: Batch, learns: jax.Array
) -> tuple[State, Metrics]:
    """Take one step for each block, in order.

    Args:
        step: from `training.train_step`; its metrics may be arrays.
        state: the first state.
        blocks: inputs and labels, each leaf [blocks, …].
        learns: bool [blocks]; from the others the state keeps only what recurrent layers carry.

    Returns:
        The last state, and the metrics [blocks, …].
    """

    def take(state: State, given: Any) -> tuple[State, Metrics]:
        batch, wanted = given
        after, metrics = step(state, batch)
        held = state._replace(carry=after.carry)
        return jax.tree.map(lambda new, old: jnp.where(wanted, new, old), after, held), metrics

    return jax.lax.scan(take, state, (blocks, learns))


def score_streams(
    step: Step,
    init: Callable[[jax.Array, Any], State],
    key: jax.Array,
    streams: Sequence[tuple[Any, Any]],
    early: Sequence[int],
    *,
    metric: str,
    block: int,
    passes: int = 0,
    late: bool = True,
    recurrent: bool = True,
    bounds: Sequence[int] = (),
) -> list[np.ndarray]:
    """Score every row of each stream, from which a network of its own learns as it goes.

    First each network learns `passes` times from the blocks that lie wholly in the early rows of
    its stream, each time from the same state carried; then it takes all blocks in order. Streams
    of similar length run side by side in one program, padded to the longest with zeros; labels
    should say that these do not count.

    Args:
        step: from `training.train_step`.
        init: makes the first state from a key and the inputs of a block.
        key: split into one for each stream.
        streams: inputs and labels, each leaf [rows, …]; taken as float32.
        early: the number of early rows of each stream.
        metric: name of a metric of the step that has an entry for every row of a block, [block, …],
            or [1, block, …] for a recurrent network.
        block: rows a step.
        passes: how many times to learn from the early blocks beforehand.
        late: whether to learn from blocks after the early ones too.
        recurrent: whether a block is one sequence, [1, block, …], or a batch of rows.
        bounds: lengths in order; streams between the same two run side by side.

    Returns:
        The metric of each stream, [rows, …].

    Raises:
        InputError: `block` is below 1, or there are not as many `early` as streams, or arrays of a
            stream differ in their number of rows.
    """
    if block < 1 or len(early) != len(streams):
        raise InputError(
            f"block={block} and {len(early)} numbers of early rows were given for {len(streams)}"
            " streams; expected a block of at least 1 row and a number for each."
        )

    @jax.jit
    @jax.vmap
    def score(key: jax.Array, blocks: Batch, early: jax.Array) -> jax.Array:
        fresh = init(key, jax.tree.map(lambda x: x[0], blocks[0]))

        def rehearse(state: State, _: None) -> tuple[State, None]:
            first = jax.tree.map(lambda x: x[:rehearsed], (blocks, early))
            return learn_online(step, state, *first)[0]._replace(carry=fresh.carry), None

        state, _ = jax.lax.scan(rehearse, fresh, length=passes)
        return learn_online(step, state, blocks, early | late)[1][metric]

    lengths = np.array([shared_size(stream) for stream in streams])
    rehearsed = max([1, *(rows // block for rows in early)])
    keys = jax.random.split(key, len(streams))
    found: list[Any] = [None] * len(streams)
    group = np.searchsorted(bounds, lengths)
    for some in (np.flatnonzero(group == number) for number in np.unique(group)):
        blocks = _in_blocks([streams[int(i)] for i in some], block, recurrent)
        ends = block * np.arange(1, shared_size(blocks, axis=1) + 1)
        scores = np.asarray(score(keys[some], blocks, ends <= np.array(early)[some, None]))
        scores = scores[:, :, 0] if recurrent else scores
        for i, rows in zip(some, scores, strict=True):
            found[i] = np.concatenate(rows)[: lengths[i]]
    return found


def _in_blocks(streams: Sequence[tuple[Any, Any]], size: int, recurrent: bool) -> Any:
    """Cut leaves [rows, …] of each stream into leaves [streams, blocks, …, size, …]."""
    number = -(-max(map(shared_size, streams)) // size)
    sequence = (1,) if recurrent else ()

    def shaped(*leaves: np.ndarray) -> np.ndarray:
        padded = np.zeros((len(leaves), number * size, *leaves[0].shape[1:]), np.float32)
        for place, leaf in enumerate(leaves):
            padded[place, : len(leaf)] = leaf
        return padded.reshape(len(leaves), number, *sequence, size, *leaves[0].shape[1:])

    return jax.tree.map(shaped, *streams)
