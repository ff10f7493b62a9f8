r"""Anomalies in a live log: events that `nnlab.models.NextEvent` did not expect.

Every line is an event of its sessions (`nnlab.series.LogTransformation`). Its score is the greatest
surprise, :math:`\min(-\log p(e_t \mid e_{t-w} \dots e_{t-1}), 100)` in nats, over these sessions.
A line that fits no template has probability 0 and the score 100; a line of no session has no score.

The memory holds the last events of the `SESSIONS` sessions that had a line most recently; a session
that comes back after so many others begins anew. A live session has no end that could be scored, so
one that only stops too early is not found.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.files.saved import SavedModel
from nnlab.series.detector import (
    CUT,
    LineScore,
    SavedMemory,
    matching,
)
from nnlab.series.following import Line
from nnlab.series.log_transformation import Event, LogTransformation
from nnlab.series.next_event import NextEvent

MOST = 100.0  # nats
SESSIONS = 10_000
CHUNK = 64  # events that one call of the compiled program takes
Memory = Mapping[str, tuple[int, ...]]  # the recent events of each session, the newest session last


def surprises(model: NextEvent, variables: Any, before: jax.Array, events: jax.Array) -> jax.Array:
    """Surprises [n], in nats and at most `MOST`, of events int32 [n] after others [n, window].

    Raises:
        InputError: there is not one event for each window.
    """
    check_shape("events", events, before.shape[:-1])
    logits = model.apply(variables, before)
    assert isinstance(logits, jax.Array)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, events)
    return jnp.where((events >= 0) & (events < model.events), jnp.minimum(nats, MOST), MOST)


class LogDetector:
    """A `nnlab.series.detector.Detector` for logs.

    Args:
        saved: the network with the notes
            "log": `LogTransformation.to_json()`;
            "threshold": the score from which a line is an anomaly, in nats.

    Raises:
        InputError: a note is missing or wrong, or does not fit the network.
    """

    def __init__(self, saved: SavedModel):
        model, variables, notes = saved
        if not isinstance(model, NextEvent):
            raise InputError(
                f"{type(model).__name__} does not predict log events; expected NextEvent."
            )
        try:
            self.transformation = LogTransformation.from_json(notes["log"])
            self.threshold = float(notes["threshold"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the network's notes are {', '.join(notes) or 'none'}, and lack or miswrite"
                f" {error}; expected those for a log."
            ) from error
        known = len(self.transformation.templates.templates)
        if model.events != known:
            raise InputError(
                f"the network knows {model.events} events, its notes {known}; expected as many."
            )
        self.window = self.transformation.window
        self._surprises = functools.partial(jax.jit(functools.partial(surprises, model)), variables)

    def fresh(self) -> Memory:
        return {}

    def score_events(self, before: np.ndarray, events: np.ndarray) -> np.ndarray:
        """Scores, float32 [n], of events int32 [n] after others, int32 [n, window]."""
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(events), CHUNK):
            part = slice(start, start + CHUNK)
            missing = max(0, CHUNK - len(events[part]))
            padded = np.pad(before[part], [(0, missing), (0, 0)])
            scores = self._surprises(padded, np.pad(events[part], (0, missing)))
            found.append(np.asarray(scores)[: len(events[part])])
        return np.concatenate(found)

    def score(self, memory: Memory, lines: Sequence[Line]) -> tuple[Memory, list[LineScore]]:
        memory, line_scores = dict(memory), []
        owners: list[int] = []
        before: list[tuple[int, ...]] = []
        events: list[int] = []
        reasons: list[tuple[str, str]] = []
        for place, line in enumerate(lines):
            event = None if line.cut else self.transformation.apply_line(line.text, line.number)
            if not isinstance(event, Event):
                line_scores.append(LineScore(malformed=event.reason if event else CUT))
                continue
            line_scores.append(LineScore())
            for session in event.sessions:
                recent = memory.pop(session, (-1,) * self.window)
                owners.append(place)
                before.append(recent)
                events.append(event.number)
                reasons.append((session, self._name(event.number)))
                memory[session] = (*recent[1:], event.number)
            while len(memory) > SESSIONS:
                del memory[next(iter(memory))]
        scores = self.score_events(
            np.array(before, np.int32).reshape(-1, self.window), np.array(events, np.int32)
        )
        for place, score, (session, name) in zip(owners, scores.tolist(), reasons, strict=True):
            if not line_scores[place].score >= score:  # nan until now, or less
                line_scores[place] = LineScore(score, f"{session}: {name}" if session else name)
        return memory, line_scores

    def skip(self, memory: Memory, first: Line) -> Memory:
        return memory

    def to_arrays(self, memory: Memory) -> SavedMemory:
        recent = np.array(list(memory.values()), np.int32).reshape(-1, self.window)
        return SavedMemory({"sessions": list(memory)}, {"recent": recent})

    def from_arrays(self, saved: SavedMemory) -> Memory:
        names = saved.about.get("sessions")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InputError(f"a memory has the sessions {names!r}, expected their names.")
        wanted = np.zeros((len(names), self.window), np.int32)
        matching(saved.arrays, {"recent": wanted})
        recent = map(tuple, saved.arrays["recent"].tolist())
        return dict(zip(names, recent, strict=True))

    def _name(self, event: int) -> str:
        templates = self.transformation.templates
        return "no template" if event == templates.unknown else templates.templates[event]
