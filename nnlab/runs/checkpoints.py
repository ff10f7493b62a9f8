"""Training states on disk, through Orbax, each array with a digest.

A checkpoint holds each array of a state under its path in the tree, for example
`.params['Dense_0']['kernel']`, and nothing about the tree itself: structure, container types and
placement on devices come from the state that the caller has already built. So a checkpoint of a
NamedTuple with an optax state inside needs no registration, and a difference between the two is
named by the array that differs. A typed random key is stored as its key data.

Beside the arrays lies what is not an array (`about`: a training's history, for example) and the
SHA-256 of each array's name, type, shape and bytes. Orbax notices a cut-off file but restores a
flipped bit silently; the digest catches it. A write is atomic: the folder gets its name when all of
it is on disk.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import CheckpointError, InputError, needs
from nnlab.paths import checkpoint_path
from nnlab.runs import hosts

_ARRAYS, _ABOUT = "state", "about"


def save(path: str | os.PathLike[str], state: Any, about: Any = None) -> None:
    """Write all arrays of `state` to the new folder `path`, and wait until they are on disk.

    Args:
        path: the folder to make; missing parents are made too.
        state: a pytree whose leaves are JAX arrays, NumPy arrays and typed random keys, of any
            shape and dtype.
        about: what else to keep, as far as JSON can hold it.

    Raises:
        InputError: `path` exists, or a checkpoint there could not be read again.
        CheckpointError: it cannot be written.
        TypeError: a leaf is not an array.
    """
    with needs("runs"):
        import orbax.checkpoint as ocp

    path = checkpoint_path(path)
    items = _items(_arrays(state), about)
    with _write_errors(path):
        if path.exists():
            raise InputError(f"{path} already exists; expected a path that does not exist.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(path, args=items)


def restore(path: str | os.PathLike[str], like: Any) -> Any:
    """Read the checkpoint at `path` into the structure of `like`.

    Args:
        path: a folder written by `save` or by `Checkpoints`.
        like: a state of the same structure, shapes and dtypes as the saved one, such as a freshly
            initialised one. Its values are ignored; the arrays are placed where its arrays are.

    Returns:
        A pytree of the structure and types of `like` with the saved values, equal to the bit.

    Raises:
        InputError: there is no checkpoint at `path`, or it lacks an array of `like`, has one more,
            or has one of another shape or dtype.
        CheckpointError: it is damaged; a single damaged array is named.
        TypeError: a leaf of `like` is not an array.
    """
    return _read(checkpoint_path(path), like)[0]


class Checkpoints:
    """The checkpoints of one training, `step_N` in one folder, written while training goes on.

        with Checkpoints(folder, keep=2) as checkpoints:
            found = checkpoints.newest(like=state)
            checkpoints.save(100, state, about={"history": history}, best=80)

    Args:
        folder: where they are; the first save makes it.
        keep: how many of the newest to keep. The one that a save calls the best is kept too.

    Raises:
        InputError: a checkpoint in that folder could not be read again.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2):
        self.folder = checkpoint_path(folder)
        self._keep = keep
        self._best: int | None = None
        self._manager: Any = None
        self._saved: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        if self._manager is None:
            return
        if exception[0] is None:
            self.wait()
        with contextlib.suppress(Exception):  # it would be raised in place of the first
            self._manager.close()

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"step_{step}"

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order.

        Raises:
            CheckpointError: the folder cannot be listed.
        """
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise CheckpointError(
                f"The checkpoints in {self.folder} cannot be listed: {error.strerror}."
            ) from error
        found = [re.fullmatch("step_(0|[1-9][0-9]*)", name) for name in names]
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, state: Any, about: Any = None, best: int | None = None) -> None:
        """Copy the state, then write it while the caller goes on.

        An error in writing is raised by the next call, by `wait` or at the end of the `with`. A
        checkpoint that already exists is left as it is.

        Args:
            step: the number in the checkpoint's name.
            state, about: as for the function `save`.
            best: the step whose checkpoint is kept beside the newest ones.

        Raises:
            CheckpointError: this or the one before cannot be written; it names the last good one.
            TypeError: a leaf is not an array.
        """
        if step in self.steps() or step == self._saved or not hosts.is_writer():
            return
        self.wait()
        items = _items(_arrays(state), about)
        self._best, self._saved = best, step
        with _write_errors(self.path(step), self):
            if self._manager is None:
                self._manager = self._open()
            self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Return when the last save is on disk.

        Raises:
            CheckpointError: it cannot be written; the error names the last good one.
        """
        if self._manager is not None and self._saved is not None:
            with _write_errors(self.path(self._saved), self):
                self._manager.wait_until_finished()
                self._manager.check_for_errors()

    def newest(self, like: Any) -> tuple[Any, Any] | None:
        """Return the state and the `about` of the newest intact checkpoint, or None without any.

        A damaged one is named in a warning and renamed to `damaged_step_N`. Every process of a
        training reads; only process 0 writes.

        Raises:
            InputError: the checkpoint holds another kind of state than `like`.
            CheckpointError: there are checkpoints, and all are damaged, or one or
                all of them cannot be read.
        """
        reasons = []
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                found = _read(path, like)
            except _Unreadable:
                raise
            except CheckpointError as error:
                reasons.append((path, error))
                continue
            for damaged, reason in reasons if hosts.is_writer() else []:
                warnings.warn(f"{str(reason)[:-1]}; going on from {path}.", stacklevel=2)
                _set_aside(damaged)
            return found
        if reasons:
            raise CheckpointError(f"{str(reasons[0][1])[:-1]}, and no older one is whole.")
        return None

    def _open(self) -> Any:
        with needs("runs"):
            import orbax.checkpoint as ocp

        self.folder.mkdir(parents=True, exist_ok=True)
        # One process writes, whichever others take part in the training.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix="nnlab",
        )
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                step_prefix="step",
                create=False,
                cleanup_tmp_directories=True,
                preservation_policy=self,
                multiprocessing_options=alone,
                # Where a folder that cannot be made is an error at once. In the background it
                # leaves threads that wait for it, and the process with them, for minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
        )

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Tell Orbax which of the checkpoints, oldest first, to keep."""
        newest = [checkpoint.step for checkpoint in checkpoints][-self._keep :]
        return [c.step in newest or c.step == self._best for c in checkpoints]


class _Unreadable(CheckpointError):
    """A checkpoint that this process may not read, which need not be damaged."""


def _read(path: Path, like: Any) -> tuple[Any, Any]:
    with needs("runs"):
        import orbax.checkpoint as ocp
        from etils import epath  # the path type of Orbax

    try:
        there = path.is_dir()
    except OSError as error:
        raise _Unreadable(f"{path} cannot be read: {error.strerror}.") from error
    if not there:
        raise InputError(f"There is no checkpoint at {path}.")
    target = _arrays(like)
    handler = ocp.StandardCheckpointHandler()
    try:
        stored = json.loads((path / _ABOUT / "metadata").read_text())
        if stored["sha256"] != _json_digest(stored["about"], stored["digests"]):
            raise CheckpointError(f"{path} is damaged: its digests are not what was saved.")
        folder = epath.Path(path / _ARRAYS)
        found = handler.metadata(folder).tree
        if found.keys() != stored["digests"].keys():
            raise CheckpointError(f"{path} is damaged: its arrays are not those that were saved.")
        _check_fit(path, found, target)
        arrays = handler.restore(folder, args=ocp.args.StandardRestore(target))
        for name, array in sorted(arrays.items()):
            if _digest(name, array) != stored["digests"].get(name):
                raise CheckpointError(f"{path} is damaged: {name} is not what was saved.")
    except (InputError, CheckpointError):
        raise
    except Exception as error:  # Orbax raises many types here, a bare Exception among them
        if _reason(error) == os.strerror(errno.EACCES):
            raise _Unreadable(f"{path} cannot be read: {_reason(error)}.") from error
        reason = f"({type(error).__name__} on reading)"
        raise CheckpointError(f"{path} is damaged or not a checkpoint {reason}.") from error
    finally:
        handler.close()

    def restored(leaf_path: jax.tree_util.KeyPath, leaf: Any) -> Any:
        array = arrays.get(jax.tree_util.keystr(leaf_path))
        if array is None:  # no elements, so not stored
            return leaf
        if _is_key(leaf):
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
        return array

    return jax.tree_util.tree_map_with_path(restored, like), stored["about"]


def _set_aside(damaged: Path) -> None:
    """Give a damaged checkpoint a name by which it is not found any more."""
    names = itertools.chain([""], (f"_{i}" for i in itertools.count(2)))
    free = (damaged.with_name(f"damaged_{damaged.name}{name}") for name in names)
    try:
        damaged.rename(next(path for path in free if not path.exists()))
    except OSError as error:
        raise CheckpointError(f"{damaged} cannot be renamed: {error.strerror}.") from error


def _arrays(state: Any) -> dict[str, jax.Array | np.ndarray]:
    """Return the arrays of a state by their path in it, without those that have no elements."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise TypeError(f"A state is made of arrays; its {name} is a {type(leaf).__name__}.")
        if leaf.size:  # Orbax refuses an empty array, and there is nothing in it to save
            arrays[name] = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return arrays


def _items(arrays: dict[str, jax.Array | np.ndarray], about: Any) -> Any:
    """Return what Orbax writes: host copies, because the caller may donate the arrays' memory."""
    import orbax.checkpoint as ocp

    copies = {name: np.array(array) for name, array in arrays.items()}
    digests = {name: _digest(name, copy) for name, copy in copies.items()}
    about = json.loads(json.dumps(about))  # a copy too, for Orbax writes it later
    entry = {"about": about, "digests": digests, "sha256": _json_digest(about, digests)}
    return ocp.args.Composite(
        **{_ARRAYS: ocp.args.StandardSave(copies), _ABOUT: ocp.args.JsonSave(entry)}
    )


def _digest(name: str, array: jax.Array | np.ndarray) -> str:
    data = np.asarray(array)
    described = f"{name} {data.dtype} {data.shape} ".encode()
    return hashlib.sha256(described + data.tobytes()).hexdigest()


def _json_digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_fit(path: Path, stored: dict[str, Any], target: dict[str, Any]) -> None:
    for name in sorted(stored.keys() | target.keys()):
        there, here = (
            f"{arrays[name].dtype}{list(arrays[name].shape)}" if name in arrays else "absent"
            for arrays in (stored, target)
        )
        if there != here:
            raise InputError(
                f"The checkpoint {path} is of another state: {name} is {there} in it, not {here}."
            )


@contextlib.contextmanager
def _write_errors(path: Path, checkpoints: Checkpoints | None = None) -> Iterator[None]:
    """Turn what Orbax and TensorStore raise in writing into one sentence that names the path."""
    try:
        yield
    except (InputError, CheckpointError, KeyboardInterrupt):
        raise
    except Exception as error:
        message = f"The checkpoint {path} cannot be written: {_reason(error)}"
        if checkpoints is not None and (steps := checkpoints.steps()):
            message += f"; the last good one is {checkpoints.path(steps[-1])}"
        raise CheckpointError(f"{message}.") from error


def _reason(error: BaseException) -> str:
    """Return the system's words for what went wrong, if an error number can be found."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    for number in (errno.EFBIG, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
        if os.strerror(number) in str(error):  # in a message of TensorStore's
            return os.strerror(number)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _is_key(leaf: jax.Array | np.ndarray) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
