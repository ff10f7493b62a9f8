"""A disk that is full, closed or taken: one sentence with the path, and what was saved stays."""

import os
import re
import shutil
import signal

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def mortal():
    """What to start a process under so that folders can be read-only for it, also for root."""
    if os.getuid():
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that from it")
    return "setpriv", "--bounding-set=-all", "--inh-caps=-all"


@pytest.fixture
def stopped(start):
    """`stopped(folder, *flags)` is a run with checkpoints of steps 1 and 2, and no more."""

    def call(folder, *flags):
        child = start("--out", folder, "--checkpoint-steps", 1, "--stop-after", 2, *flags)
        assert child.status() == 128 + signal.SIGTERM, child.stderr()
        assert steps(folder) == ["step_1", "step_2"]

    return call


def steps(folder):
    return sorted(entry.name for entry in (folder / "checkpoints" / "small").glob("step_?"))


def test_a_full_disk(start, stopped, sentence, assert_as_whole, tmp_path):
    folder = tmp_path / "run"
    stopped(folder)
    # No file above two kilobytes or four, as the shell counts; JAX would warn of its own files.
    limited = ("env", "-u", "JAX_COMPILATION_CACHE_DIR", "sh", "-c", 'ulimit -f 4; exec "$@"', "sh")
    full = start("--out", folder, "--resume", "--checkpoint-steps", 1, under=limited)
    assert full.status() == 1
    checkpoints = re.escape(f"{folder}/checkpoints/small")
    assert re.fullmatch(
        rf"The checkpoint {checkpoints}/step_3 cannot be written: File too large; "
        rf"the last good one is {checkpoints}/step_2\.",
        sentence(full.stderr()),
    )
    assert steps(folder) == ["step_1", "step_2"]
    again = start("--out", folder, "--resume")
    assert_as_whole(again, folder)
    assert again.steps()[0] == 2


def test_a_folder_of_checkpoints_that_is_read_only(
    start, stopped, sentence, assert_as_whole, mortal, tmp_path
):
    folder = tmp_path / "run"
    stopped(folder)
    checkpoints = folder / "checkpoints" / "small"
    checkpoints.chmod(0o555)
    child = start("--out", folder, "--resume", "--checkpoint-steps", 1, under=mortal)
    assert child.status() == 1
    assert sentence(child.stderr()) == (
        f"The checkpoint {checkpoints}/step_3 cannot be written: Permission denied; "
        f"the last good one is {checkpoints}/step_2."
    )
    checkpoints.chmod(0o755)
    assert_as_whole(start("--out", folder, "--resume"), folder)


def test_a_place_for_a_run_that_is_read_only(start, sentence, mortal, tmp_path):
    tmp_path.chmod(0o555)
    child = start("--out", tmp_path / "run", under=mortal)
    assert child.status() == 2
    assert sentence(child.stderr()) == (
        f"The run folder {tmp_path}/run cannot be written: Permission denied."
    )
    tmp_path.chmod(0o755)


def test_a_folder_of_checkpoints_that_is_a_file(start, sentence, tmp_path):
    folder = tmp_path / "run"
    child = start("--out", folder, "--pause", 0.2)
    child.wait_for_line("step ")
    (folder / "checkpoints").write_text("mine")
    assert child.status() == 1
    said = sentence(child.stderr())
    assert said.startswith(f"The checkpoint {folder}/checkpoints/small/step_4 cannot be written: ")
    assert (folder / "checkpoints").read_text() == "mine"


def test_two_processes_in_one_folder(start, sentence, assert_as_whole, tmp_path):
    folder = tmp_path / "run"
    first = start("--out", folder, "--checkpoint-steps", 1, "--pause", 1.5)
    first.wait_for_line("step ")
    others = [start("--out", folder, flag) for flag in ("--resume", "--overwrite")]
    for other in others:
        assert other.status() == 2
        assert sentence(other.stderr()) == (
            f"{folder} is in use by process {first.process.pid}; expected a folder of its own for "
            "each run."
        )
    assert first.process.poll() is None
    assert_as_whole(first, folder)


def test_a_run_of_another_configuration_is_refused_with_the_difference(
    start, stopped, sentence, assert_as_whole, tmp_path
):
    folder = tmp_path / "run"
    stopped(folder)
    child = start("--out", folder, "--resume", "--learning-rate", 0.2, "--seed", 3, "--keep", 5)
    assert child.status() == 2
    assert sentence(child.stderr()) == (
        f"{folder}/config.json is of another configuration: learning_rate was 0.1 and is 0.2, "
        "seed was 0 and is 3."
    )
    assert_as_whole(start("--out", folder, "--resume", "--keep", 5), folder)
