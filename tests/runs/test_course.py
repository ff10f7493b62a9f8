"""Where a training stands: what its steps and epochs come to, saved and found again."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nnlab.runs.course import Course

from nnlab.errors import DivergedError
from nnlab.runs import RunFolder, best_accuracy
from nnlab.runs.checkpoints import Checkpoints
from nnlab.training import State

LOSSES = [1.0, 0.5, 0.25, 0.125]  # of the four steps of an epoch


@dataclasses.dataclass
class Config:
    pass


@pytest.fixture
def begin(tmp_path):
    """`begin()` is a course in one folder, at its newest checkpoint."""
    folder = RunFolder.create(tmp_path, Config())

    def call(opt_state=()):
        checkpoints = Checkpoints(folder.checkpoints / "CNN")
        state = State(jnp.int32(0), {"w": jnp.zeros(2)}, {}, opt_state, jax.random.key(0))
        return Course.start("CNN", state, 4, checkpoints, folder, best_accuracy, None)

    return call


def advance(state, count, bad=None):
    """Steps with the losses above, and step `bad` of them refused."""
    first = int(state.step) % 4
    losses = np.array(LOSSES[first : first + count])
    flags = np.full(len(losses), -1)
    made = len(losses)
    if bad is not None and first <= bad < first + made:
        made = bad - first
        losses, flags = losses[: made + 1], flags[: made + 1]
        losses[-1], flags[-1] = math.nan, 1
    metrics = {"loss": losses, "accuracy": np.where(np.isnan(losses), 0.0, 0.5), "nonfinite": flags}
    return state._replace(step=state.step + made), metrics


TESTED = {"loss": 0.7, "accuracy": 0.25}


@pytest.mark.parametrize("counts", [[4], [1, 3], [2, 1, 1]])
def test_an_epoch_is_the_mean_of_its_steps_in_pieces_of_any_length(begin, counts):
    course = begin()
    for count in counts:
        assert course.within_epoch and course.last_epoch_end == 0
        assert course.train(advance, count) > 0
    assert not course.within_epoch and course.best_step is None
    course.close_epoch(TESTED)
    assert course.history.pop("seconds")[0] > 0
    assert course.history == {
        "train_loss": [sum(LOSSES) / 4],
        "train_accuracy": [0.5],
        "test_loss": [0.7],
        "test_accuracy": [0.25],
    }


def test_the_middle_of_an_epoch_is_saved_and_found(begin):
    course = begin()
    course.train(advance, 4)
    course.close_epoch(TESTED)
    course.train(advance, 3)
    course.save()
    course.checkpoints.wait()
    again = begin()
    assert (again.step, again.history, again.sums) == (7, course.history, course.sums)
    assert again.within_epoch and (again.last_epoch_end, again.best_step) == (4, 4)
    for each in (course, again):
        each.train(advance, 1)
    assert again.figures() == course.figures()
    assert again.figures() == {"epoch": 2.0, "loss": sum(LOSSES) / 4, "accuracy": 0.25}


def test_a_refused_step_is_named_and_not_counted(begin):
    course = begin()
    with pytest.raises(DivergedError, match=r"^gradients\['w'\] of CNN is not finite at step 3; "):
        course.train(lambda state, count: advance(state, count, bad=2), 4)
    again = begin()
    assert again.step == 2 and again.sums["steps"] == 2 and again.sums["loss"] == sum(LOSSES[:2])


def test_a_test_loss_that_is_not_finite_is_named(begin):
    course = begin()
    course.train(advance, 4)
    with pytest.raises(DivergedError, match=r"^The test loss of CNN is nan after step 4; "):
        course.close_epoch({"loss": math.nan, "accuracy": 0.0})
    assert begin().step == 4


def test_the_first_of_the_best_epochs_counts_and_patience_is_over_behind_it(begin):
    course = begin()
    for accuracy in (0.1, 0.3, 0.3, 0.2):
        course.train(advance, 4)
        course.close_epoch({"loss": 0.7, "accuracy": accuracy})
    assert course.best_step == 8
    assert course.ended(epochs=5, patience=1) and not course.ended(epochs=5, patience=2)
    assert course.ended(epochs=4, patience=None) and not course.ended(epochs=5, patience=None)


def test_skipped_steps_are_counted_and_left_out_of_the_means(begin):
    def skipping(state, count):
        state, metrics = advance(state, count)
        opt_state = state.opt_state._replace(total_notfinite=jnp.int32(1))
        metrics["loss"][1] = math.inf
        return state._replace(opt_state=opt_state), metrics

    course = begin(optax.apply_if_finite(optax.sgd(0.1), 3).init({"w": jnp.zeros(2)}))
    course.train(skipping, 4)
    course.close_epoch(TESTED)
    assert course.history["skipped"] == [1]
    assert course.history["train_loss"] == [(1.0 + 0.25 + 0.125) / 3]
