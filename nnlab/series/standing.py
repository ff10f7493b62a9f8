"""Where a watch of a live file stands, in a file, so that another process goes on from there."""

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

from nnlab.errors import InputError
from nnlab.files import container
from nnlab.series.detector import Detector, Kept
from nnlab.series.following import Position

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Standing:
    """All that a watch has to know to go on; a value.

    Attributes:
        position: in the file.
        memory: the detector's.
        recent: the last lines that were not shown, as numbers and texts.
        after: how many lines are still to be shown behind the last anomaly.
        lines, malformed: how many came of late.
    """

    position: Position
    memory: Any
    recent: tuple[tuple[int, str], ...] = ()
    after: int = 0
    lines: int = 0
    malformed: int = 0


def standing_path(network: Path, file: Path) -> Path:
    """The file for the standing of a watch of `file`, beside the network's file."""
    name = hashlib.sha256(str(file.absolute()).encode(errors="surrogateescape")).hexdigest()
    return network.parent / f"watch-{name[:12]}.safetensors"


def save_standing(path: Path, standing: Standing, detector: Detector, network: str) -> None:
    """Writes it, whole or not at all; `network` is a digest of the network's file.

    Raises:
        InputError: it cannot be written.
    """
    memory = detector.keep(standing.memory)
    about = {
        "watch": VERSION,
        "network": network,
        "position": dataclasses.asdict(standing.position),
        "recent": [list(each) for each in standing.recent],
        "counts": [standing.after, standing.lines, standing.malformed],
        "memory": memory.about,
    }
    container.write(path, memory.arrays, about=about, overwrite=True)


def load_standing(path: Path, detector: Detector, network: str) -> Standing | None:
    """Reads what `save_standing` wrote; None if there is no such file.

    Also removes what a process that was killed in writing has left.

    Raises:
        InputError: it is damaged, or of another network.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    if not path.exists():
        return None
    about, arrays = container.read(path)
    if about.get("watch") != VERSION:
        raise InputError(f"{path} holds no standing of a watch of version {VERSION}.")
    if about.get("network") != network:
        raise InputError(f"{path} is of a watch by another network than the one beside it.")
    try:
        after, lines, malformed = (int(count) for count in about["counts"])
        recent = tuple((int(number), str(text)) for number, text in about["recent"])
        position = Position.from_fields(about["position"])
        memory = detector.recall(Kept(about["memory"], arrays))
    except (KeyError, TypeError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path} is damaged: {error}") from error
    return Standing(position, memory, recent, after, lines, malformed)
