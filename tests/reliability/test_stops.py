"""SIGTERM and SIGINT: saved and gone within five seconds, and resumed to the bit."""

import signal
import time

import pytest

pytestmark = pytest.mark.slow


def test_a_run_stopped_again_and_again_ends_at_the_same_bits(
    start, thorough, assert_as_whole, sentence, tmp_path
):
    """A new process for each step of 20, or for every five."""
    folder, each = tmp_path / "run", 1 if thorough else 5
    for step in range(each, 21, each):
        child = start(*("--out", folder, "--resume", "--checkpoint-steps", 1, "--stop-after", each))
        assert child.status() == 128 + signal.SIGTERM, child.stderr()
        assert sentence(child.stderr()) == (
            f"small was stopped by SIGTERM at step {step}; with --resume it goes on from "
            f"{folder}/checkpoints/small/step_{step}."
        )
        assert child.steps() == list(range(step - each, step))
    end = start("--out", folder, "--resume")
    assert_as_whole(end, folder)
    assert end.steps() == []
    print(f"\n{20 // each} processes of {each} steps each, and one that ends: equal bits")


SLOW = {
    "training": ["--step-seconds", 0.5],
    # Three pieces of a thousand images: what waits for a signal is a piece, not an evaluation.
    "evaluation": ["--evaluation-seconds", 2, "--test-images", 3000],
}


@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGTERM, "training"), (signal.SIGINT, "evaluation")],
    ids=str,
)
def test_a_signal_ends_a_run_within_five_seconds(
    number, when, start, whole, metrics, sentence, tmp_path
):
    folder = tmp_path / "run"
    child = start("--out", folder, *SLOW[when])
    if when == "training":
        child.wait_for(lambda child: child.steps()[-1:] > [0])
    else:
        child.wait_for_line("evaluating")
    sent = time.monotonic()
    child.process.send_signal(number)
    status, seconds = child.status(), time.monotonic() - sent
    assert status == 128 + number, child.stderr()
    step = int((folder / "checkpoints" / "small").glob("step_*").__next__().name[5:])
    assert sentence(child.stderr()) == (
        f"small was stopped by {number.name} at step {step}; with --resume it goes on from "
        f"{folder}/checkpoints/small/step_{step}."
    )
    end = start("--out", folder, "--resume", *SLOW[when][2:])
    assert end.result()["sha256"] == whole().sha256
    assert [line["step"] for line in metrics(folder)] == [4, 8, 12, 16, 20]
    print(f"\n{number.name} in {when}: ended at step {step} after {seconds:.1f} s; resumed")
    assert seconds < 5


def test_a_signal_during_compilation_ends_the_process_at_once(start, assert_as_whole, tmp_path):
    child = start("--out", tmp_path / "run", "--seed", 1)
    child.wait_for_line("compiling")
    time.sleep(0.1)
    child.process.send_signal(signal.SIGINT)
    assert (child.status(), child.stderr()) == (-signal.SIGINT, "")
    assert child.steps() == []
    again = start("--out", tmp_path / "run", "--overwrite")
    assert_as_whole(again, tmp_path / "run")
