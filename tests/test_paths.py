"""Every path is what the user means, or is refused before anything is written there."""

import os
from pathlib import Path

import jax.numpy as jnp
import pytest

from nnlab import paths
from nnlab.errors import InputError
from nnlab.runs import checkpoints
from nnlab.runs.checkpoints import Checkpoints


@pytest.mark.parametrize(
    "path", ["", "a\0b", "gs://bucket/run", "gs:/bucket", "file:///run", "~no.such.user/run"]
)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError):
        paths.user_path(path)


def test_without_a_home_folder_a_tilde_is_refused(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does then
    with pytest.raises(InputError, match="home folder in ~/run"):
        paths.user_path("~/run")


@pytest.mark.parametrize("path", ["a[b", "a]b", "a*b", "a?b", "a%41", "gs:", "x y", "日本"])
def test_odd_names_are_paths(path):
    assert paths.user_path(path) == Path(path)
    assert paths.checkpoint_path(path) == Path(path).absolute()


def test_a_folder_may_be_called_tilde():
    found = paths.user_path("./~/run")
    assert found == Path.cwd() / "~" / "run" and paths.user_path(found) == found


@pytest.mark.parametrize("name", ["lr[0.1]", "a\\b", os.fsdecode(b"a\xff")])
def test_a_checkpoint_that_could_not_be_read_is_refused_first(name, tmp_path):
    state = {"a": jnp.arange(3.0)}
    for use in (
        lambda folder: checkpoints.save(folder / "one", state),
        lambda folder: checkpoints.restore(folder / "one", state),
        Checkpoints,
    ):
        with pytest.raises(InputError):
            use(tmp_path / name)
    with pytest.raises(InputError):
        Checkpoints("/gs/bucket")
    assert not list(tmp_path.iterdir())
