"""Pure training steps, epochs and evaluation; `nnlab.runs` is the loop around them."""

from nnlab._moved import forward
from nnlab.training.distillation import Distillation, distillation_loss, student_accuracy
from nnlab.training.doctor import Fault, diagnose
from nnlab.training.epochs import (
    generated_steps,
    steps_per_epoch,
    train_epoch,
    train_steps,
)
from nnlab.training.evaluation import evaluation, in_batches
from nnlab.training.feeds import (
    Feed,
    generated,
    in_memory,
    streamed,
)
from nnlab.training.long_sequences import long_evaluation
from nnlab.training.losses import (
    cross_entropy,
    soft_labels,
    with_auxiliary,
)
from nnlab.training.measures import Measures, measure
from nnlab.training.parallel import data_mesh
from nnlab.training.rate_finder import RangeTest, range_test
from nnlab.training.stacked import over_states, stack_states, unstack_states
from nnlab.training.statistics import fresh_statistics
from nnlab.training.steps import (
    Batch,
    State,
    accuracy,
    init,
    leaf_name,
    train_step,
)
from nnlab.training.transfer import transfer

__all__ = [
    "Batch",
    "Distillation",
    "Fault",
    "Feed",
    "Measures",
    "RangeTest",
    "State",
    "accuracy",
    "cross_entropy",
    "data_mesh",
    "diagnose",
    "distillation_loss",
    "evaluation",
    "fresh_statistics",
    "generated",
    "generated_steps",
    "in_batches",
    "in_memory",
    "init",
    "leaf_name",
    "long_evaluation",
    "measure",
    "over_states",
    "range_test",
    "soft_labels",
    "stack_states",
    "steps_per_epoch",
    "streamed",
    "student_accuracy",
    "train_epoch",
    "train_step",
    "train_steps",
    "transfer",
    "unstack_states",
    "with_auxiliary",
]

__getattr__ = forward(__name__)
