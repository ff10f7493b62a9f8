r"""Anomalies of a live log: events that `nnlab.models.NextEvent` did not expect.

Every line is an event of its sessions (`nnlab.series.LogTransformation`), and its score the
greatest surprise, :math:`\min(-\log p(e_t \mid e_{t-w} \dots e_{t-1}), 100)` in nats, among them.
An event that no template fits, whose probability is 0, has the score 100, and a line of no session
none.

Of a session the last events are remembered, and of sessions the `SESSIONS` that had a line last;
one that comes back after so many others begins anew. A live session has no end that could be
judged, so one that only stops too early is not found.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab.errors import InputError
from nnlab.files.saved import SavedModel
from nnlab.series.detector import (
    CUT,
    Judgment,
    Kept,
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
    """In nats, at most `MOST`, of events int32 [n] after those before them, int32 [n, window]."""
    logits = model.apply(variables, before)
    assert isinstance(logits, jax.Array)
    found = optax.softmax_cross_entropy_with_integer_labels(logits, events)
    return jnp.where(events < model.events, jnp.minimum(found, MOST), MOST)


_surprises = jax.jit(surprises, static_argnums=0)


class LogDetector:
    """A `nnlab.series.detector.Detector` of logs.

    Args:
        saved: the network with the notes
            "log": `LogTransformation.to_json()`;
            "threshold": the score from which on a line is an anomaly, in nats.

    Raises:
        InputError: a note is missing or wrong, or not of this network.
    """

    def __init__(self, saved: SavedModel):
        model, variables, notes = saved
        if not isinstance(model, NextEvent):
            raise InputError(f"{type(model).__name__} foretells no events of a log.")
        try:
            self.transformation = LogTransformation.from_json(notes["log"])
            self.threshold = float(notes["threshold"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the network's notes are {', '.join(notes) or 'none'}, and lack or miswrite"
                f" {error}; expected those of a log."
            ) from error
        known = len(self.transformation.templates.templates)
        if model.events != known:
            raise InputError(f"the network knows {model.events} events, its notes {known}.")
        self.window = self.transformation.window
        self._surprises = functools.partial(jax.jit(functools.partial(surprises, model)), variables)

    def fresh(self) -> Memory:
        return {}

    def scores(self, before: np.ndarray, events: np.ndarray) -> np.ndarray:
        """float32 [n] of events int32 [n] after those before them, int32 [n, window]."""
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(events), CHUNK):
            part = slice(start, start + CHUNK)
            missing = max(0, CHUNK - len(events[part]))
            padded = np.pad(before[part], [(0, missing), (0, 0)])
            scores = self._surprises(padded, np.pad(events[part], (0, missing)))
            found.append(np.asarray(scores)[: len(events[part])])
        return np.concatenate(found)

    def judge(self, memory: Memory, lines: Sequence[Line]) -> tuple[Memory, list[Judgment]]:
        memory, judgments = dict(memory), []
        owners: list[int] = []
        before: list[tuple[int, ...]] = []
        events: list[int] = []
        told: list[tuple[str, str]] = []
        for place, line in enumerate(lines):
            event = None if line.cut else self.transformation.apply_line(line.text, line.number)
            if not isinstance(event, Event):
                judgments.append(Judgment(malformed=event.reason if event else CUT))
                continue
            judgments.append(Judgment())
            for session in event.sessions:
                recent = memory.pop(session, (-1,) * self.window)
                owners.append(place)
                before.append(recent)
                events.append(event.number)
                told.append((session, self._name(event.number)))
                memory[session] = (*recent[1:], event.number)
            while len(memory) > SESSIONS:
                del memory[next(iter(memory))]
        found = self.scores(
            np.array(before, np.int32).reshape(-1, self.window), np.array(events, np.int32)
        )
        for place, score, (session, name) in zip(owners, found.tolist(), told, strict=True):
            if not judgments[place].score >= score:  # nan until now, or less
                judgments[place] = Judgment(score, f"{session}: {name}" if session else name)
        return memory, judgments

    def passed_over(self, memory: Memory, first: Line) -> Memory:
        return memory

    def keep(self, memory: Memory) -> Kept:
        recent = np.array(list(memory.values()), np.int32).reshape(-1, self.window)
        return Kept({"sessions": list(memory)}, {"recent": recent})

    def recall(self, kept: Kept) -> Memory:
        names = kept.about.get("sessions")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InputError(f"a memory has the sessions {names!r}, expected their names.")
        wanted = np.zeros((len(names), self.window), np.int32)
        matching(kept.arrays, {"recent": wanted})
        recent = map(tuple, kept.arrays["recent"].tolist())
        return dict(zip(names, recent, strict=True))

    def _name(self, event: int) -> str:
        templates = self.transformation.templates
        return "no template" if event == templates.unknown else templates.templates[event]
