"""The state of the best epoch of a training that has ended."""

import numpy as np

from nnlab.runs.checkpoints import restore
from nnlab.runs.course import History, scores
from nnlab.runs.fit import Score, best_accuracy
from nnlab.runs.run_folder import RunFolder
from nnlab.training.steps import State


def best_state(
    name: str, last: State, history: History, folder: RunFolder, score: Score = best_accuracy
) -> tuple[State, int]:
    """The state behind the epoch with the best score, and that epoch's number, from 1.

    Args:
        name, folder, score: as `fit` had them.
        last, history: as `fit` returned them.

    Raises:
        InputError, CheckpointError: the checkpoint of that epoch is not there, or damaged.
    """
    scored = scores(history, score)
    epoch = 1 + int(np.argmax(scored))
    step = int(last.step) // len(scored) * epoch
    if step == int(last.step):
        return last, epoch
    return restore(folder.checkpoints / name / f"step_{step}", like=last), epoch
