"""Batches: trees of arrays that share one axis of examples.

A batch is `(inputs, labels)`, and each of the two is any pytree of arrays: an image array, the
token ids and mask of a sequence, or a padded batch of graphs with nodes [batch, nodes, features],
senders and receivers [batch, edges], int32, and a mask [batch, nodes], bool. The arrays may differ
in rank and dtype, but entry i of the first axis belongs to example i in all of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nnlab.errors import InputError


def shared_size(tree: Any, axis: int = 0) -> int:
    """Return the size of the axis that all arrays of a tree share, the number of examples.

    Args:
        tree: any tree of arrays, tracers or `jax.ShapeDtypeStruct`s; only shapes matter.
        axis: number of the shared axis, from 0.

    Raises:
        InputError: the tree has no array, an array holds no numbers or lacks the axis, two differ
            in its size, or it is 0.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise InputError("a batch must hold at least one array, not none.")
    (first, _), *_ = leaves
    sizes = []
    for path, leaf in leaves:
        _check_numbers(path, leaf)
        shape = np.shape(leaf)
        if len(shape) <= axis:
            raise InputError(
                f"all arrays of a batch must share axis {axis}, but {_name(path)} has shape "
                f"{list(shape)}."
            )
        sizes.append(shape[axis])
        if sizes[-1] != sizes[0]:
            raise InputError(
                f"all arrays of a batch must have the same size along axis {axis}, but "
                f"{_name(first)} has {sizes[0]} and {_name(path)} has {sizes[-1]}."
            )
    if not sizes[0]:
        raise InputError(f"{_name(first)} has shape {list(np.shape(leaves[0][1]))}: no examples.")
    return sizes[0]


def check_shape(name: str, array: Any, shape: Sequence[int], *, hint: str = "") -> None:
    """Raise `InputError` unless an array has the shape that others ask for.

    JAX would repeat the one that is smaller, and compare each label with all predictions.

    Args:
        name: of the array, in the plural.
        array: an array, a tracer or a `jax.ShapeDtypeStruct`; only its shape matters.
        shape: the one expected.
        hint: ends the sentence.
    """
    if np.shape(array) != tuple(shape):
        given, expected = list(np.shape(array)), list(shape)
        raise InputError(f"{name} have shape {given}, expected {expected}{hint}.")


def hint_of_classes(labels: Any, axes: int) -> str:
    """Return how labels with an axis of classes become numbers of classes, for an error.

    Args:
        labels: an array, a tracer or a `jax.ShapeDtypeStruct`; only its shape matters.
        axes: how many axes are expected.
    """
    shape = np.shape(labels)
    if len(shape) != axes + 1:
        return ""
    return f"; give {'labels[..., 0]' if shape[-1] == 1 else 'labels.argmax(-1)'}"


def check_channels_last(shape: Sequence[int]) -> None:
    """Raise `InputError` if images of a shape of four have their channels first.

    That is taken for granted of 1 or 3 channels before two sides that are equal: images that are
    3 pixels high, and as wide as they have channels, are not met.
    """
    if shape[1] in (1, 3) and shape[2] == shape[3] > 4:
        raise InputError(
            f"images have shape {list(shape)}, channels first, expected [n, height, width, "
            "channels]; give jnp.moveaxis(images, 1, -1)."
        )


def check_some(tree: Any) -> None:
    """Raise `InputError` if no array of a tree has examples, or one holds something else than
    numbers; they need not share an axis.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        _check_numbers(path, leaf)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
    if shapes and all(shape and not shape[0] for shape in shapes):
        raise InputError(f"a batch has shape {list(shapes[0])}: no examples.")


def check_batch(batch: Any) -> tuple[Any, Any]:
    """Return a batch, or raise `InputError` unless it is a pair (inputs, labels)."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    given = f"{type(batch).__name__}"
    if isinstance(batch, dict):
        given += f" of {', '.join(map(str, batch))}"
    elif isinstance(batch, tuple | list):
        given += f" of {len(batch)}"
    raise InputError(f"a batch is a pair (inputs, labels), not a {given}.")


def _check_numbers(path: Any, leaf: Any) -> None:
    if isinstance(leaf, str | bytes):
        raise InputError(f"{_name(path)} is the text {leaf!r:.60}, expected an array of numbers.")
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufcV":  # V: ml_dtypes
        raise InputError(f"{_name(path)} holds {leaf.dtype}, expected numbers.")


def _name(path: Any) -> str:
    return f"batch{jax.tree_util.keystr(path)}"
