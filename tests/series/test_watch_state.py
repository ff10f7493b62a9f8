"""Watch states: those that version 0.1.0 saved against the same lines scored anew, and refusals."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.models import load_model
from nnlab.series import LogDetector, SeriesDetector
from nnlab.series.following import Follower, Position
from nnlab.series.watch_state import WatchState, load_watch_state, save_watch_state

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "kind", "file", "lines"),
    [
        ("series", SeriesDetector, "series.csv", 21),
        ("log", LogDetector, "service.log", 13),
    ],
)
def test_a_state_of_an_earlier_version(name, kind, file, lines, tmp_path):
    network = GOLDEN / f"{name}_network.safetensors"
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    detector = kind(load_model(network))
    state = load_watch_state(GOLDEN / f"{name}_state.safetensors", detector, digest)
    with Follower(GOLDEN / file) as follower:
        memory, scores = detector.score(detector.fresh(), follower.read(lines))
        position = follower.position
    assert state is not None and state.position == dataclasses.replace(
        position, inode=state.position.inode
    )
    assert (state.lines, state.malformed, state.after, state.recent) == (lines, 0, 2, ())
    assert np.isfinite([score.score for score in scores[2:]]).all()
    before, now = detector.to_arrays(state.memory), detector.to_arrays(memory)
    assert before.about == now.about and before.arrays.keys() == now.arrays.keys()
    # Sums of a few float32 products and of 20 errors, in the order of another machine.
    for array, expected in before.arrays.items():
        np.testing.assert_allclose(now.arrays[array], expected, atol=1e-5)
    save_watch_state(tmp_path / "state", state, detector, digest)
    again = load_watch_state(tmp_path / "state", detector, digest)
    assert repr(again) == repr(state)


def test_states_that_cannot_be_used(tmp_path):
    detector = LogDetector(load_model(GOLDEN / "log_network.safetensors"))
    path = tmp_path / "watch.safetensors"
    assert load_watch_state(path, detector, "a") is None
    save_watch_state(path, WatchState(Position(0, 0, 0, ""), {}), detector, "a")
    with pytest.raises(InputError, match="another network"):
        load_watch_state(path, detector, "b")
    with pytest.raises(InputError, match="no state of a watch of version 1"):
        load_watch_state(GOLDEN / "log_network.safetensors", detector, "a")
