r"""Anomalies in a live table: unusual prediction errors of `nnlab.models.NextValue`.

The network predicts the values of each row from the rows before and from the time of the row itself
(the *clock*). For K columns it reads K sequences, the k-th with the inputs

    value k, values k + 1 ... K, 1 ... k - 1 of the row before; clock of this row; k as one-hot

(the last if K > 1). The surprise e of each column (`nnlab.series.next_value`, eq. 1) becomes the
anomaly likelihood's score S of log(1 + e) (`nnlab.series.anomaly_likelihood`, eq. 3), from 0 to 1;
the score of the row is the greatest of all columns. The first row has no score.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError
from nnlab.files.saved import SavedModel
from nnlab.layers.sequences import no_carry
from nnlab.series import anomaly_likelihood
from nnlab.series.detector import (
    CUT,
    LineScore,
    SavedMemory,
    matching,
)
from nnlab.series.following import Line
from nnlab.series.next_value import NextValue, surprise
from nnlab.series.rows import Dialect, Malformed, Row, csv_rows, json_rows, split_csv
from nnlab.series.tables import table_of
from nnlab.series.transformation import Transformation

FORMATS = ("csv", "json")
CHUNK = 256  # rows that one call of the compiled program takes at most


class State(NamedTuple):
    """The state between two rows of K columns; saved watches hold its fields by their names.

    Attributes:
        carry: the Flax collection of what the network's layers hold, for K sequences.
        values: float32 [K], those of the last row.
        known: bool, whether there was one.
        errors: `anomaly_likelihood.State`, each leaf [K, …].
    """

    carry: Any
    values: jax.Array
    known: jax.Array
    errors: anomaly_likelihood.State


def inputs_of(before: jax.Array, clock: jax.Array) -> jax.Array:
    """Turn values [..., K] of the row before and a clock [..., c] into inputs [..., K, m]."""
    columns = before.shape[-1]
    turned = jnp.stack([jnp.roll(before, -k, axis=-1) for k in range(columns)], axis=-2)
    clocks = jnp.broadcast_to(clock[..., None, :], (*turned.shape[:-1], clock.shape[-1]))
    parts = [turned, clocks]
    if columns > 1:
        parts.append(jnp.broadcast_to(jnp.eye(columns, dtype=turned.dtype), turned.shape))
    return jnp.concatenate(parts, axis=-1)


def init(model: NextValue, variables: Any, columns: int, clock: int, short: int) -> State:
    """Return the state before the first row of `columns` values and `clock` other features.

    Raises:
        InputError: `short` is not from 1 to 7,999.
    """
    values = jnp.zeros(columns, jnp.float32)
    inputs = inputs_of(values, jnp.zeros(clock, jnp.float32))[:, None]
    carry = no_carry(model, variables, inputs)
    one = anomaly_likelihood.init(short)
    errors = jax.tree.map(lambda leaf: jnp.stack([leaf] * columns), one)
    return State(carry, values, jnp.array(False), errors)


def step(model: NextValue, variables: Any, state: State, row: jax.Array) -> tuple[State, jax.Array]:
    """Take in one row; pure.

    Args:
        model, variables: the network.
        state: from `init` or the last call.
        row: float32 [K + c], values and clock.

    Returns:
        The next state, and the score of each value, [K]; nan for the first row.
    """
    columns = len(state.values)
    values, clock = row[:columns], row[columns:]
    outputs, carry = model.apply(
        {**variables, **state.carry}, inputs_of(state.values, clock)[:, None], mutable=["carry"]
    )
    error = jnp.log1p(surprise(outputs[:, 0], values))
    errors, likelihood = jax.vmap(anomaly_likelihood.update)(state.errors, error)
    after = State(carry, values, jnp.array(True), errors)
    held = state._replace(values=values, known=jnp.array(True))
    after = jax.tree.map(lambda new, old: jnp.where(state.known, new, old), after, held)
    return after, jnp.where(state.known, likelihood.score, jnp.nan)


def steps(
    model: NextValue, variables: Any, state: State, rows: jax.Array, count: jax.Array | int
) -> tuple[State, jax.Array]:
    """Take in the first `count` of rows [n, K + c], and return their scores [n, K].

    One program serves all counts, so a row has the same bits whichever rows come with it.
    """

    def body(i: Any, loop: Any) -> Any:
        state, scores = loop
        state, score = step(model, variables, state, rows[i])
        return state, scores.at[i].set(score)

    scores = jnp.full((len(rows), len(state.values)), jnp.nan, jnp.float32)
    return jax.lax.fori_loop(0, count, body, (state, scores))


_steps = jax.jit(steps, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Memory:
    """The names of the file's columns (None before its header) and the network's state."""

    header: tuple[str, ...] | None
    state: State


class SeriesDetector:
    """A `nnlab.series.detector.Detector` for CSV files and JSON lines.

    Args:
        saved: the network with the notes
            "transformation": `Transformation.to_json()`, values before the clock;
            "columns": how many features are values;
            "format": one of `FORMATS`;
            "dialect": of CSV files, its delimiter and decimal mark; without it "," and ".";
            "short": rows over which the anomaly likelihood averages errors;
            "threshold": the score from which a row is an anomaly;
            "start": `SavedMemory.arrays` of the memory to begin with, as lists, or None.

    Raises:
        InputError: a note is missing or wrong.
    """

    def __init__(self, saved: SavedModel):
        self.model, self.variables, notes = saved
        if not isinstance(self.model, NextValue):
            raise InputError(
                f"{type(self.model).__name__} does not predict table values; expected NextValue."
            )
        try:
            self.transformation = Transformation.from_json(notes["transformation"])
            self.threshold = float(notes["threshold"])
            self.columns, self.format = int(notes["columns"]), str(notes["format"])
            short, start = int(notes["short"]), notes["start"]
            self.dialect = Dialect(*map(str, notes.get("dialect", Dialect())))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the network's notes are {', '.join(notes) or 'none'}, and lack or miswrite"
                f" {error}; expected those for a table."
            ) from error
        clock = self.transformation.features - self.columns
        if self.columns < 1 or clock < 0 or self.format not in FORMATS:
            raise InputError(
                f"the notes say {self.columns} columns in format {self.format!r}, expected 1 to"
                f" {self.transformation.features} in {' or '.join(FORMATS)}."
            )
        state = init(self.model, self.variables, self.columns, clock, short)
        self._fresh = Memory(None, state)
        if start is not None:
            self._fresh = self.from_arrays(SavedMemory({"header": None}, _arrays(start, state)))

    def fresh(self) -> Memory:
        return self._fresh

    def score_rows(self, state: State, features: np.ndarray) -> tuple[State, np.ndarray]:
        """Take in rows float32 [n, K + c], and return their scores [n, K]."""
        found = [np.zeros((0, self.columns), np.float32)]
        for start in range(0, len(features), CHUNK):
            part = features[start : start + CHUNK]
            padded = np.zeros((CHUNK, features.shape[1]), np.float32)
            padded[: len(part)] = part
            state, scores = _steps(self.model, self.variables, state, padded, len(part))
            found.append(np.asarray(scores)[: len(part)])
        return state, np.concatenate(found)

    def score(self, memory: Memory, lines: Sequence[Line]) -> tuple[Memory, list[LineScore]]:
        header, read = memory.header, []
        for start, group in groupby(lines, lambda line: line.number == 1):
            group = list(group)
            if start and self.format == "csv":
                for line in group:  # each is the first of a file
                    names = self._header(line, header)
                    header = names or header
                    read += [None] if names else self._rows([line], header)
            else:
                read += self._rows(group, header)
        rows = [row.cells for row in read if isinstance(row, Row)]
        state, scores = memory.state, np.zeros((0, self.columns))
        if rows:
            features = self.transformation.apply(table_of(self.transformation.kinds, rows))
            state, scores = self.score_rows(state, features)
        rest = iter(scores)
        line_scores = [
            self._line_score(next(rest))
            if isinstance(row, Row)
            else LineScore(malformed=row.reason if row else "")
            for row in read
        ]
        return Memory(header, state), line_scores

    def skip(self, memory: Memory, first: Line) -> Memory:
        if self.format != "csv":
            return memory
        return dataclasses.replace(memory, header=self._header(first, memory.header))

    def to_arrays(self, memory: Memory) -> SavedMemory:
        header = None if memory.header is None else list(memory.header)
        return SavedMemory({"header": header}, _named(memory.state))

    def from_arrays(self, saved: SavedMemory) -> Memory:
        header = saved.about.get("header")
        texts = isinstance(header, list) and all(isinstance(name, str) for name in header)
        if not (header is None or texts):
            raise InputError(f"a memory has the header {header!r}, expected names of columns.")
        like = self._fresh.state
        matching(saved.arrays, _named(like))
        leaves = [jnp.asarray(saved.arrays[name]) for name in _named(like)]
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return Memory(None if header is None else tuple(header), state)

    def _header(self, line: Line, known: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """The names in the first line of a file, None if it is a row of columns that are known."""
        text = line.text
        kinds: Mapping[str, Any] = self.transformation.kinds
        try:
            next(csv_rows([text], kinds, **self.dialect._asdict(), source="the file"), None)
        except InputError:
            if known is None:
                raise
            return None
        return tuple(split_csv(text, self.dialect.delimiter))

    def _rows(self, lines: Sequence[Line], header: Sequence[str] | None) -> list[Row | Malformed]:
        kinds = self.transformation.kinds
        read: list[Row | Malformed] = []
        for cut, group in groupby(lines, lambda line: line.cut):
            part = list(group)
            if cut:
                read += [Malformed(line.number, CUT) for line in part]
                continue
            first, texts = part[0].number, [line.text for line in part]
            if self.format == "csv":
                read += csv_rows(
                    texts, kinds, header=header, **self.dialect._asdict(), first_line=first
                )
            else:
                read += json_rows(texts, kinds, first_line=first)
        return read

    def _line_score(self, scores: np.ndarray) -> LineScore:
        place = int(np.argmax(scores))  # the first nan if there is one
        names = list(self.transformation.kinds)[: self.columns]
        return LineScore(float(scores[place]), names[place] if self.columns > 1 else "")


def _named(state: State) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _arrays(lists: Any, state: State) -> dict[str, np.ndarray]:
    """The arrays that `_named` gives, from lists, in the dtypes of a state."""
    try:
        dtypes = {name: array.dtype for name, array in _named(state).items()}
        return {name: np.asarray(each, dtypes.get(name)) for name, each in lists.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"the notes hold no memory to start with: {error}.") from error
