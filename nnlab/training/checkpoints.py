"""Training states on disk, through Orbax.

A checkpoint holds each array of a state under its path in the tree, for example
`.params['Dense_0']['kernel']`, and nothing about the tree itself: structure, container types and
placement on devices come from the state that the caller has already built. So a checkpoint of a
NamedTuple with an optax state inside needs no registration, and a difference between the two is
named by the array that differs. A typed random key is stored as its key data.

A write is atomic: the folder gets its name when all of it is on disk. Cut-off files and a damaged
index are noticed on reading; a flipped bit inside an array's data is not.
"""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError


def save(path: str | os.PathLike[str], state: Any, overwrite: bool = False) -> None:
    """Writes all arrays of `state` to the folder `path` and waits until they are there.

    Args:
        path: the folder to make; missing parents are made too.
        state: a pytree whose leaves are JAX arrays, NumPy arrays and typed random keys, of any
            shape and dtype.
        overwrite: delete a checkpoint that is already at `path`, then write.

    Raises:
        InputError: `path` exists (and is not a checkpoint to be overwritten), or no folder can be
            made there.
        TypeError: a leaf is not an array.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    arrays = _arrays(state)
    try:
        if path.exists() and not (overwrite and (path / "_METADATA").is_file()):
            expected = "a checkpoint to overwrite" if overwrite else "a path that does not exist"
            raise InputError(f"{path} already exists; expected {expected}.")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The checkpoint {path} cannot be written: {error.strerror}.") from error
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.StandardSave(arrays), force=overwrite)


def restore(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads the checkpoint at `path` into the structure of `like`.

    Args:
        path: a folder written by `save`.
        like: a state of the same structure, shapes and dtypes as the saved one, such as a freshly
            initialised one. Its values are ignored; its arrays say where the read ones go.

    Returns:
        A pytree of the structure and types of `like` with the saved values, equal to the bit.

    Raises:
        InputError: there is no checkpoint at `path`, it is damaged, or an array in it is missing,
            left over or of another shape or dtype than in `like`.
        TypeError: a leaf of `like` is not an array.
    """
    import orbax.checkpoint as ocp
    from etils import epath  # the path type of Orbax

    path = Path(path).absolute()
    if not path.is_dir():
        raise InputError(f"There is no checkpoint at {path}.")
    target = _arrays(like)
    handler = ocp.StandardCheckpointHandler()
    try:
        _check_fit(path, handler.metadata(epath.Path(path)).tree, target)
        arrays = handler.restore(epath.Path(path), args=ocp.args.StandardRestore(target))
    except InputError:
        raise
    except Exception as error:  # Orbax raises many types here, a bare Exception among them
        raise InputError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__} on reading)."
        ) from error
    finally:
        handler.close()

    def restored(leaf_path: jax.tree_util.KeyPath, leaf: Any) -> Any:
        array = arrays.get(jax.tree_util.keystr(leaf_path))
        if array is None:  # no elements, so not stored
            return leaf
        if _is_key(leaf):
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
        return array

    return jax.tree_util.tree_map_with_path(restored, like)


def _arrays(state: Any) -> dict[str, jax.Array | np.ndarray]:
    """The arrays of a state by their path in it, without those that have no elements."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise TypeError(f"A state is made of arrays; its {name} is a {type(leaf).__name__}.")
        if leaf.size:  # Orbax refuses an empty array; its shape is all there is to know about it
            arrays[name] = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return arrays


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


def _is_key(leaf: jax.Array | np.ndarray) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
