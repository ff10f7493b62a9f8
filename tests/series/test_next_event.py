"""DeepLog's network: its size, ranks by hand, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import costs, series, training
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import InputError
from nnlab.models import NextEvent
from nnlab.series.next_event import ranks

SMALL = NextEvent(3, features=4, layers=1, window=4)
ranks = jax.jit(ranks)


def test_size_and_products():
    """The docstring's 54,223 for 14 events; a step of a window multiplies every weight once."""
    model = NextEvent(14)
    before = jnp.zeros((1, 10), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), before)
    leaves = jax.tree.leaves(shapes["params"])
    assert sum(leaf.size for leaf in leaves) == 54_223
    kernels = 256 * (14 + 64) + 256 * 128
    counts = costs.count(model.apply, shapes, before)
    gates = 10 * 2 * 3 * 64  # f c + i g, o tanh(c)
    assert counts.multiplications == {"float32": 10 * kernels + 64 * 15 + gates}


def test_the_unknown_event_is_never_predicted_and_numbers_outside_are_blanks(random_variables):
    before = jnp.array([[-1, -1, -1, -1], [-1, 0, -1, 1], [3, 0, 99, 1], [2, 0, -1, 1]])
    logits = np.asarray(jax.jit(SMALL.apply)(random_variables(SMALL, before), before))
    assert logits.shape == (4, 5) and np.isfinite(logits).all() and SMALL.end == 4
    assert (logits[:, SMALL.unknown] == np.finfo(np.float32).min).all()
    np.testing.assert_array_equal(logits[1], logits[2])
    assert not np.array_equal(logits[1], logits[3])


def test_ranks_by_hand():
    logits = jnp.array([0.5, 2.0, -1.0, 2.0])
    events = jnp.array([0, 1, 2, 3, 4, -1])
    found = ranks(jnp.tile(logits, (6, 1)), events)
    np.testing.assert_array_equal(found, [2, 0, 3, 0, 4, 4])
    assert ranks(jnp.array([1.0, jnp.nan]), jnp.array(1)) == 2 and found.dtype == jnp.int32


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER, BINARY], ids=["float", "adder", "binary"])
def test_learns_a_cycle(arithmetic):
    """0 1 2 0 1 2 …, whose end comes after six: what follows then is certain."""
    absent = -1.0 if arithmetic is BINARY else 0.0
    norm = arithmetic is not FLOAT
    model = NextEvent(3, 16, 1, 6, arithmetic=arithmetic, norm=norm, absent=absent)
    windows = series.next_event_windows([[0, 1, 2, 0, 1, 2]] * 8, 6, model.end)
    examples = jnp.asarray(windows.before), jnp.asarray(windows.next)
    optimizer = optax.adam(0.02)
    state = training.init(jax.random.key(0), model, optimizer, examples[0])
    run = jax.jit(training.train_steps(training.train_step(model, optimizer), 56))
    for _ in range(100):
        state, _ = run(state, examples, 1)
    odd = series.next_event_windows([[0, 1, 1]], 6, model.end)
    apply = jax.jit(lambda before: model.apply({"params": state.params}, before))
    assert (ranks(apply(windows.before), examples[1]) == 0).all()
    odd_ranks = ranks(apply(odd.before), jnp.asarray(odd.next))
    assert odd_ranks[:2].tolist() == [0, 0] and odd_ranks[2] > 0


@pytest.mark.parametrize(
    ("model", "events", "message"),
    [
        (SMALL, jnp.zeros((1, 4)), r"float32 \[1, 4\], expected integers \[batch, window\]"),
        (SMALL, jnp.zeros(4, int), r"int32 \[4\], expected integers \[batch, window\]"),
    ],
)
def test_bad_input(model, events, message):
    with pytest.raises(InputError, match=message):
        model.init(jax.random.key(0), events)
