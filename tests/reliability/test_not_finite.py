"""A NaN in one gradient: the run stops there and can go on, or skips the step."""

import json
import signal
import sys

import pytest

from nnlab.runs.script import run

pytestmark = pytest.mark.slow


@pytest.fixture
def ended(capsys, without_changes):
    """`ended(*flags)` runs the script in this process: exit status, what it printed, and said."""
    small_run = sys.modules["small_run"]

    def call(*flags):
        status = 0
        try:
            run(small_run.main, small_run.Config, [str(flag) for flag in flags])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out.splitlines()[-1], without_changes(captured.err)

    return call


@pytest.mark.parametrize("step", [1, 20])
def test_the_run_stops_at_that_step_and_goes_on_to_the_bit(
    step, ended, whole, metrics, sentence, tmp_path
):
    folder = tmp_path / "run"
    status, _, said = ended("--out", folder, "--nan-at", step)
    assert status == 1
    assert sentence(said) == (
        f"gradients['scale'] of small is not finite at step {step}; the configuration is in "
        f"{folder}/config.json, the last good checkpoint is "
        f"{folder}/checkpoints/small/step_{step - 1}."
    )
    status, printed, said = ended("--out", folder, "--resume")
    assert (status, said) == (0, "")
    assert json.loads(printed) == {"sha256": whole().sha256, "history": whole().history}
    assert metrics(folder) == whole().metrics
    print(f"\na NaN at step {step}: stopped there, then resumed to the bits of the unbroken run")


def test_a_step_is_skipped_when_asked(ended, start, metrics, tmp_path):
    """What the skipped step leaves is what was there before, but for the counts."""
    skip = ["--on-nan", "skip", "--nan-at", 7]
    folder, other = tmp_path / "run", tmp_path / "other"
    status, printed, said = ended("--out", folder, *skip)
    assert (status, said) == (0, "")
    assert [line["skipped"] for line in metrics(folder)] == [0, 1, 1, 1, 1]
    # Stopped before that step and after it:
    small_run = sys.modules["small_run"]
    states = []
    for steps in (6, 1):
        child = start(
            *("--out", other, "--resume", "--checkpoint-steps", 1, "--stop-after", steps, *skip)
        )
        assert child.status() == 128 + signal.SIGTERM, child.stderr()
        step = sum((6, 1)[: len(states) + 1])
        like, _ = small_run.parts(small_run.Config("unused", on_nan="skip"))
        states.append(
            small_run.runs.restore(other / "checkpoints" / "small" / f"step_{step}", like)
        )
    before, after = states
    assert (before.step, after.step) == (6, 7)
    kept = [
        (s.params, s.batch_stats, s.opt_state.inner_state, s.key, s.opt_state.last_finite * 0)
        for s in states
    ]
    assert small_run.sha256(kept[0]) == small_run.sha256(kept[1])
    assert before.opt_state.total_notfinite == 0 and after.opt_state.total_notfinite == 1
    # From there on no NaN comes, and the end is the same.
    end = start("--out", other, "--resume", "--on-nan", "skip", "--nan-at", 10**6)
    assert end.result() == json.loads(printed)
    assert metrics(other) == metrics(folder)
    print("\na NaN at step 7, skipped: nothing moved in that step, and the run went to its end")


def test_too_many_steps_to_skip(ended, sentence, tmp_path):
    """The eleventh in a row is let through by optax, and the loop stops at it."""
    folder = tmp_path / "run"
    flags = ["--out", folder, "--on-nan", "skip", "--nan-at", 3, "--nan-steps", 100]
    status, _, said = ended(*flags)
    assert status == 1
    assert sentence(said) == (
        f"params['scale'] of small is not finite at step 13; the configuration is in "
        f"{folder}/config.json, the last good checkpoint is {folder}/checkpoints/small/step_12."
    )


def test_the_same_seed_gives_the_same_bits_and_another_one_others(ended, whole, tmp_path):
    """In this process, compiled anew, and in the one of the unbroken run."""
    for seed, same in ((0, True), (1, False)):
        status, printed, said = ended("--out", tmp_path / str(seed), "--seed", seed)
        assert (status, said) == (0, "")
        assert (json.loads(printed)["sha256"] == whole().sha256) is same
        assert (json.loads(printed)["history"] == whole().history) is same
