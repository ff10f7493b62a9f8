"""What a run leaves on disk, and the loop that trains between its checkpoints."""

from nnlab.runs.best import best_state
from nnlab.runs.checkpoints import restore, save
from nnlab.runs.environment import hardware, provenance, versions
from nnlab.runs.fit import best_accuracy, fit, least_loss
from nnlab.runs.run_folder import RunFolder
from nnlab.runs.stopping import stopped_improving

__all__ = [
    "RunFolder",
    "best_accuracy",
    "best_state",
    "fit",
    "hardware",
    "least_loss",
    "provenance",
    "restore",
    "save",
    "stopped_improving",
    "versions",
]
