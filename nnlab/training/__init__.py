"""Pure training steps, the loop around them, and what a run leaves on disk."""

from nnlab.training.best import best_state
from nnlab.training.checkpoints import restore, save
from nnlab.training.distillation import Distillation, distillation_loss, student_accuracy
from nnlab.training.environment import hardware, provenance, versions
from nnlab.training.epochs import generated_steps, steps_per_epoch, train_epoch, train_steps
from nnlab.training.evaluation import evaluation, in_batches
from nnlab.training.feeds import Feed, generated, in_memory, streamed
from nnlab.training.long_sequences import long_evaluation
from nnlab.training.loop import best_accuracy, fit, least_loss
from nnlab.training.losses import (
    cross_entropy,
    mean_squared_error,
    squared_hinge,
    with_auxiliary,
)
from nnlab.training.parallel import data_mesh
from nnlab.training.phases import after_warm_up
from nnlab.training.run_folder import RunFolder
from nnlab.training.steps import Batch, State, accuracy, init, leaf_name, train_step
from nnlab.training.stopping import stopped_improving
from nnlab.training.transfer import transfer

__all__ = [
    "Batch",
    "Distillation",
    "Feed",
    "RunFolder",
    "State",
    "accuracy",
    "after_warm_up",
    "best_accuracy",
    "best_state",
    "cross_entropy",
    "data_mesh",
    "distillation_loss",
    "evaluation",
    "fit",
    "generated",
    "generated_steps",
    "hardware",
    "in_batches",
    "in_memory",
    "init",
    "leaf_name",
    "least_loss",
    "long_evaluation",
    "mean_squared_error",
    "provenance",
    "restore",
    "save",
    "squared_hinge",
    "steps_per_epoch",
    "stopped_improving",
    "streamed",
    "student_accuracy",
    "train_epoch",
    "train_step",
    "train_steps",
    "transfer",
    "versions",
    "with_auxiliary",
]
