"""The state of the best epoch, from a training whose losses are made up."""

import jax
import jax.numpy as jnp
import pytest

from nnlab.runs import RunFolder, best_state, least_loss
from nnlab.runs.checkpoints import save
from nnlab.training import State


def state(step):
    return State(jnp.int32(step), {"w": jnp.float32(step)}, {}, (), jax.random.key(0))


@pytest.mark.parametrize(("losses", "epoch"), [([3.0, 1.0, 2.0], 2), ([3.0, 2.0, 1.0], 3)])
def test_the_checkpoint_of_the_least_loss_unless_it_is_the_last(tmp_path, losses, epoch):
    folder = RunFolder(tmp_path)
    save(folder.checkpoints / "net" / "step_8", state(8))  # behind epoch 2 of 4 steps each
    found, number = best_state("net", state(12), {"test_loss": losses}, folder, least_loss)
    assert number == epoch and int(found.step) == 4 * epoch and found.params["w"] == 4 * epoch
