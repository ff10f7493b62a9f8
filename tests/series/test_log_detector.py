"""Scores of a log's lines as they come: against the network on every window of every session."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.files import SavedModel
from nnlab.models import NextEvent
from nnlab.series import LogDetector, LogTransformation, Templates, log_detector, next_event_windows
from nnlab.series.detector import CUT, SavedMemory
from nnlab.series.following import Line

TEMPLATES = Templates(("open <*>", "read <*>", "close <*>"), (r"b\d+",))
RECORD = LogTransformation("<Time> <Content>", TEMPLATES, r"b\d+", window=4)


@pytest.fixture(scope="module")
def network(random_variables):
    model = NextEvent(3, features=4, layers=1, window=4)
    variables = random_variables(model, jnp.zeros((1, 4), jnp.int32))
    return SavedModel(model, variables, {"log": RECORD.to_json(), "threshold": 3.0})


@pytest.fixture(scope="module")
def detector(network):
    return LogDetector(network)


@pytest.fixture(scope="module")
def log():
    """Lines of five sessions mixed, and of each line its session and event."""
    rng = np.random.default_rng(0)
    owners, events = rng.integers(0, 5, 150), rng.integers(0, 4, 150)
    words = ("open", "read", "close", "lose")
    lines = [
        Line(i, f"12:00 {words[event]} b{owner}".encode())
        for i, (owner, event) in enumerate(zip(owners, events, strict=True), 1)
    ]
    return lines, owners, events


def test_every_window_of_every_session(network, detector, log):
    lines, owners, events = log
    _, scores = detector.score(detector.fresh(), lines)
    order = np.argsort(owners, kind="stable")  # session by session
    sessions = [events[owners == owner].tolist() for owner in range(5)]
    before = jnp.asarray(next_event_windows(sessions, 4).before)
    logits = np.float64(jax.jit(network.model.apply)(network.variables, before))
    logits = np.delete(logits, 3, axis=1)  # of an event that is not known
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(150), events[order] % 3]
    expected = np.where(events[order] == 3, 100.0, nats)
    # Sums of a dozen float32 products, each within 1e-7 of values near 1.
    np.testing.assert_allclose([scores[i].score for i in order], expected, atol=1e-5)
    unknown = next(scores[place] for place in np.flatnonzero(events == 3))
    assert unknown.why.endswith(": no template")
    assert scores[0].why == f"b{owners[0]}: {(*TEMPLATES.templates, 'no template')[events[0]]}"


@pytest.mark.parametrize("size", [1, 7])
def test_line_by_line_to_the_bit(detector, log, size):
    lines = log[0]
    _, whole = detector.score(detector.fresh(), lines)
    memory, pieces = detector.fresh(), []
    for start in range(0, len(lines), size):
        memory, scores = detector.score(memory, lines[start : start + size])
        pieces += scores
        saved_memory = detector.to_arrays(memory)
        memory = detector.from_arrays(
            SavedMemory(json.loads(json.dumps(saved_memory.about)), saved_memory.arrays)
        )
    assert pieces == whole


def test_lines_of_several_sessions_of_none_and_malformed(detector):
    memory, scores = detector.score(
        detector.fresh(),
        [
            Line(1, b"12:00 open b1"),
            Line(2, b"12:00 read b1 and b2"),
            Line(3, b"12:00 nothing"),
            Line(4, b""),
            Line(5, b"12:00 open b1", True),
        ],
    )
    assert list(memory) == ["b1", "b2"]
    assert memory["b1"] == (-1, -1, 0, 3) and memory["b2"] == (-1, -1, -1, 3)
    assert scores[1].score == 100 and np.isnan([each.score for each in scores[2:]]).all()
    assert [each.malformed for each in scores] == ["", "", "", "is blank", CUT]
    assert detector.skip(memory, Line(1, b"12:00 open b9")) == memory


def test_old_sessions_are_forgotten(detector, monkeypatch):
    monkeypatch.setattr(log_detector, "SESSIONS", 2)
    names = (b"b1", b"b2", b"b1", b"b3")
    memory, _ = detector.score(
        detector.fresh(), [Line(i, b"12:00 open " + name) for i, name in enumerate(names, 1)]
    )
    assert list(memory) == ["b1", "b3"]


def test_what_is_wrong(network, detector):
    def refused(said, **notes):
        with pytest.raises(InputError, match=said):
            LogDetector(network._replace(notes=network.notes | notes))

    refused("no LogTransformation", log="{}")
    refused("miswrite", threshold="high")
    few = LogTransformation("<Time> <Content>", Templates(("a",)))
    refused("knows 3 events, its notes 1", log=few.to_json())
    with pytest.raises(InputError, match="lack or miswrite 'log'"):
        LogDetector(network._replace(notes={}))
    with pytest.raises(InputError, match="a memory has the sessions 3"):
        detector.from_arrays(SavedMemory({"sessions": 3}, {}))
    with pytest.raises(InputError, match="a memory has the arrays"):
        detector.from_arrays(
            SavedMemory({"sessions": ["b1"]}, {"recent": np.zeros((2, 4), np.int32)})
        )
