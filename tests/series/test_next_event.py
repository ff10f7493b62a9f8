"""DeepLog's network: its size, ranks by hand, one event at a time, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import costs, series, training
from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import InputError
from nnlab.layers import GRUCell
from nnlab.models import NextEvent, load_model, save_model
from nnlab.series.next_event import no_events, observe, ranks

SMALL = NextEvent(3, features=8, layers=1, window=4)


def logits_of(model, variables, before):
    logits = model.apply(variables, jnp.asarray(before))
    assert isinstance(logits, jax.Array)
    return logits


@pytest.fixture(scope="module")
def variables():
    return SMALL.init(jax.random.key(0), no_events(SMALL)[None])


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


def test_the_unknown_event_is_never_predicted(variables):
    before = jnp.array([[-1, -1, -1, -1], [0, 1, 2, 0]])
    logits = np.asarray(logits_of(SMALL, variables, before))
    assert logits.shape == (2, 5) and np.isfinite(logits).all()
    assert (logits[:, SMALL.unknown] == np.finfo(np.float32).min).all()
    assert (np.argsort(logits)[:, 0] == SMALL.unknown).all() and SMALL.end == 4


def test_numbers_outside_are_blanks(variables):
    blank, outside = jnp.array([[-1, 0, -1, 1]]), jnp.array([[3, 0, 99, 1]])
    one = logits_of(SMALL, variables, blank)
    np.testing.assert_array_equal(logits_of(SMALL, variables, outside), one)
    assert not np.array_equal(logits_of(SMALL, variables, jnp.array([[2, 0, -1, 1]])), one)


def test_ranks_by_hand():
    logits = jnp.array([0.5, 2.0, -1.0, 2.0])
    events = jnp.array([0, 1, 2, 3, 4, -1])
    np.testing.assert_array_equal(ranks(jnp.tile(logits, (6, 1)), events), [2, 0, 3, 0, 4, 4])
    assert ranks(jnp.array([1.0, jnp.nan]), jnp.array(1)) == 2
    assert ranks(logits, jnp.array(0)).dtype == jnp.int32


def test_one_at_a_time_is_the_whole_session(variables):
    session = [0, 2, SMALL.unknown, 1, 1, 0, 2]
    windows = series.next_event_windows([session], SMALL.window, SMALL.end)
    whole = ranks(logits_of(SMALL, variables, windows.before), jnp.asarray(windows.next))
    step = jax.jit(lambda recent, event: observe(SMALL, variables, recent, event))
    recent, found = no_events(SMALL), []
    for event in [*session, SMALL.end]:
        recent, rank = step(recent, event)
        found.append(int(rank))
    assert found == whole.tolist() and found[2] == 4
    assert recent.tolist() == [1, 0, 2, SMALL.end]


@pytest.mark.parametrize(
    "arithmetic",
    [
        pytest.param(FLOAT, id="float"),
        pytest.param(ADDER, id="adder", marks=pytest.mark.slow),
        pytest.param(BINARY, id="binary", marks=pytest.mark.slow),
    ],
)
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
    logits = logits_of(model, {"params": state.params}, windows.before)
    assert (ranks(logits, jnp.asarray(windows.next)) == 0).all()
    odd = series.next_event_windows([[0, 1, 1]], 6, model.end)
    odd_ranks = ranks(logits_of(model, {"params": state.params}, odd.before), jnp.asarray(odd.next))
    assert odd_ranks[:2].tolist() == [0, 0] and odd_ranks[2] > 0


def test_saved_with_its_record(tmp_path):
    templates = series.Templates(("disk <*>", "start", "stop"))
    record = series.LogTransformation("<Content>", templates, window=4)
    model = NextEvent(3, 8, 1, 4, cell=GRUCell, arithmetic=ADDER, norm=True)
    before = jnp.array([[-1, 0, 1, 2]])
    variables = model.init(jax.random.key(0), before)
    notes = {"log": record.to_json(), "k": 2}
    save_model(tmp_path / "network.safetensors", model, variables, before, notes=notes)
    saved = load_model(tmp_path / "network.safetensors")
    assert saved.model == model and saved.notes["k"] == 2
    assert series.LogTransformation.from_json(saved.notes["log"]) == record
    np.testing.assert_array_equal(
        logits_of(saved.model, saved.variables, before), logits_of(model, variables, before)
    )


def test_bad_input(variables):
    for events, message in [
        (jnp.zeros((1, 4)), r"events are float32 \[1, 4\], expected integers \[batch, window\]"),
        (jnp.zeros(4, int), r"events are int32 \[4\], expected integers \[batch, window\]"),
    ]:
        with pytest.raises(InputError, match=message):
            logits_of(SMALL, variables, events)
    with pytest.raises(InputError, match="events must be at least 1, not 0"):
        NextEvent(0).init(jax.random.key(0), jnp.zeros((1, 4), int))
