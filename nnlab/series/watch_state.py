"""The state of a watch of a live file, saved so that another process can go on from it."""

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

from nnlab.errors import InputError
from nnlab.files import container
from nnlab.series.detector import Detector, SavedMemory
from nnlab.series.following import Position

VERSION = 1


@dataclasses.dataclass(frozen=True)
class WatchState:
    """All that a watch has to know to go on; a value.

    Attributes:
        position: in the file.
        memory: the detector's.
        recent: the last lines that were not shown, as numbers and texts.
        after: how many lines after the last anomaly are still to be shown.
        lines, malformed: how many lines came lately, and how many of them were malformed.
    """

    position: Position
    memory: Any
    recent: tuple[tuple[int, str], ...] = ()
    after: int = 0
    lines: int = 0
    malformed: int = 0


def watch_state_path(network: Path, file: Path) -> Path:
    """The file that keeps the state of a watch of `file`, in the folder of the network's file."""
    name = hashlib.sha256(str(file.absolute()).encode(errors="surrogateescape")).hexdigest()
    return network.parent / f"watch-{name[:12]}.safetensors"


def save_watch_state(path: Path, state: WatchState, detector: Detector, network: str) -> None:
    """Write the state, whole or not at all; `network` is a digest of the network's file.

    Raises:
        InputError: it cannot be written.
    """
    memory = detector.to_arrays(state.memory)
    about = {
        "watch": VERSION,
        "network": network,
        "position": dataclasses.asdict(state.position),
        "recent": [list(each) for each in state.recent],
        "counts": [state.after, state.lines, state.malformed],
        "memory": memory.about,
    }
    container.write(path, memory.arrays, about=about, overwrite=True)


def load_watch_state(path: Path, detector: Detector, network: str) -> WatchState | None:
    """Read what `save_watch_state` wrote; None if there is no such file.

    Also removes what a process that was killed while it wrote has left.

    Raises:
        InputError: it is damaged, or belongs to another network.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    if not path.exists():
        return None
    about, arrays = container.read(path)
    if about.get("watch") != VERSION:
        raise InputError(f"{path} holds no state of a watch of version {VERSION}.")
    if about.get("network") != network:
        raise InputError(f"{path} is the state of a watch by another network than the one here.")
    try:
        after, lines, malformed = (int(count) for count in about["counts"])
        recent = tuple((int(number), str(text)) for number, text in about["recent"])
        position = Position.from_fields(about["position"])
        memory = detector.from_arrays(SavedMemory(about["memory"], arrays))
    except (KeyError, TypeError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path} is damaged: {error}") from error
    return WatchState(position, memory, recent, after, lines, malformed)
