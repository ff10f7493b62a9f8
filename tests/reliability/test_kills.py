"""SIGKILL at any moment: what comes out in the end are the bits of the run that nothing breaks."""

import os
import random
import signal
import time

import pytest

pytestmark = pytest.mark.slow
PAUSE = 0.1  # seconds between steps, so that a run is long enough to be killed often
WINDOW = 1.5  # seconds after the first step in which it is killed


def kill_within(child, rng):
    time.sleep(rng.uniform(0, WINDOW))
    child.process.kill()


def kill_in_a_save(child, checkpoints, rng):
    """Stops the process in some save, makes sure of it, and kills it."""
    pid = child.process.pid
    time.sleep(rng.uniform(0, WINDOW))
    while True:
        child.wait_for(lambda _: partial(checkpoints))
        time.sleep(rng.uniform(0, 0.02))
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if partial(checkpoints):
            return child.process.kill()
        os.kill(pid, signal.SIGCONT)


def partial(checkpoints):
    try:
        return [name for name in os.listdir(checkpoints) if ".orbax-checkpoint-tmp" in name]
    except FileNotFoundError:
        return []


@pytest.mark.parametrize(("checkpoint_steps", "share"), [(1, 0.7), (3, 0.3)])
def test_a_run_killed_again_and_again_ends_at_the_same_bits(
    checkpoint_steps, share, start, thorough, assert_as_whole, tmp_path
):
    kills = round(share * (50 if thorough else 4))
    epochs = 2 + round(kills * WINDOW / PAUSE / 4)  # more steps than fit before the last kill
    folder, rng = tmp_path / "run", random.Random(checkpoint_steps)
    checkpoints = folder / "checkpoints" / "small"
    flags = ["--out", folder, "--epochs", epochs, "--resume"]
    in_save = left = again = reached = 0
    for number in range(kills):
        child = start(*flags, "--checkpoint-steps", checkpoint_steps, "--pause", PAUSE)
        child.wait_for_line("step ")
        if number % 2:
            kill_within(child, rng)
        else:
            kill_in_a_save(child, checkpoints, rng)
            in_save += 1
        assert (child.status(), child.stderr()) == (-signal.SIGKILL, "")
        left += bool(partial(checkpoints))
        again += reached - child.steps()[0]
        assert child.steps()[0] <= reached
        reached = child.steps()[-1]
    end = start(*flags)
    assert_as_whole(end, folder, epochs)
    again += reached - end.steps()[0]
    assert not partial(checkpoints)
    print(
        f"\ncheckpoints every {checkpoint_steps} steps: {kills} kills, {in_save} aimed at a save, "
        f"{left} left a partial checkpoint, {again} finished steps made again, "
        f"{reached} steps by the last kill; the end equals the unbroken run of {4 * epochs} steps"
    )


def test_killed_between_an_evaluation_and_the_next_checkpoint(start, assert_as_whole, tmp_path):
    """The checkpoint was made at that step too, before its evaluation, which is made again."""
    flags = ["--out", tmp_path / "run", "--checkpoint-steps", 4]
    # The pause makes each step a program of its own; the fifth comes after the evaluation.
    child = start(*flags, "--pause", 0.6, "--stop-after", 5, "--stop-by", "SIGKILL")
    assert (child.status(), child.stderr()) == (-signal.SIGKILL, "")
    assert child.steps() == [0, 1, 2, 3, 4]
    end = start(*flags, "--resume")
    assert_as_whole(end, tmp_path / "run")
    assert end.steps()[0] == 4
