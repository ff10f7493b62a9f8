"""Weights of darknet, files `.weights` and `.conv.N`, into networks of this kit and back.

A file is a header and float32 numbers, little-endian, of one layer after the other:

=========================  =========================================================
header                     int32 major, minor, revision, and how many images the network has
                           seen: int32 before version 0.2, int64 from there on
convolution, BatchNorm     bias, scale, mean, variance of BatchNorm; kernel [out, in, kh, kw]
convolution without it     bias; kernel
local                      bias [out, h, w]; kernels [h, w, out, in, kh, kw]
connected                  bias; weights [out, in]
=========================  =========================================================

Layers are told apart by nothing but their sizes, so a file fits exactly one network. Those of
`nnlab.vision.darknet`, `nnlab.vision.detection.yolo` and `yolo_v1` number their layers in the order
of files. A backbone such as darknet53.conv.74 is the first layers of one: 52 of YOLO v3 (18 of
YOLO v2 in darknet19_448.conv.23).

References:
    darknet (load_weights_upto and save_weights_upto in parser.c at f6afaab).
"""

import os
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError
from nnlab.paths import reading, user_path, writing


class Header(NamedTuple):
    """The header of a file.

    Attributes:
        version: major, minor and revision.
        seen: number of images that the network has been trained on.
    """

    version: tuple[int, int, int]
    seen: int


class _Part(NamedTuple):
    """An array of a layer: its path in the variables and its shape in a file."""

    path: tuple[str, ...]
    shape: tuple[int, ...]


def read_darknet(
    path: str | os.PathLike[str], variables: Any, *, layers: int | None = None, start: bool = False
) -> tuple[Any, Header]:
    """Fill the variables of a network with the weights of a file.

    Args:
        path: the file.
        variables: "params" and "batch_stats", arrays; with `layers=None` shapes do, such as
            `jax.eval_shape(model.init, key, images)` gives.
        layers: take the first so many layers from the file, as a backbone, and leave all others as
            they are; the rest of the file does not matter. By default the file must hold them all.
        start: layers of adders and of signs take the weights of products, as where their training
            starts.

    Returns:
        The same tree of arrays, and the file's header.

    Raises:
        InputError: there is no such file, it ends before its layers do or goes on after them, it is
            of a version that transposes, the network is none of darknet's, or it does not multiply
            and `start` is not given.
    """
    file = user_path(path)
    with reading(file):
        data = file.read_bytes()
    header, start_at = _header(data, file)
    values = np.frombuffer(data, "<f4", (len(data) - start_at) // 4, start_at)
    every = list(_layers(variables))
    chosen = every if layers is None else every[:layers]
    if layers is not None and not 1 <= layers <= len(every):
        raise InputError(f"layers is {layers}, expected 1 to {len(every)}.")
    taken: dict[tuple[str, ...], np.ndarray] = {}
    at = 0
    for name, parts in chosen:
        needs = sum(int(np.prod(part.shape)) for part in parts)
        if at + needs > len(values):
            left = len(values) - at
            where = f"after {left:,} of the {needs:,} numbers of {name}"
            if not left:
                number = every.index((name, parts))
                where = f"before {name}; layers={number} takes what it has as a backbone"
            raise InputError(f"{file} ends {where}, expected numbers up to {chosen[-1][0]}.")
        for part in parts:
            if not start and part.path[-1] not in _PRODUCTS:
                raise InputError(
                    f"{name} has a {part.path[-1]}, expected weights of products, or start=True to "
                    "begin with them."
                )
            size = int(np.prod(part.shape))
            taken[part.path] = _here(values[at : at + size].reshape(part.shape), part)
            at += size
    if layers is None and start_at + 4 * at != len(data):
        raise InputError(
            f"{file} holds {len(data):,} bytes, {len(data) - start_at - 4 * at:,} more than the "
            f"{len(chosen)} layers of the network, which end with {chosen[-1][0]}."
        )

    def filled(path: Any, leaf: Any) -> jax.Array:
        found = taken.get(tuple(key.key for key in path))
        return jnp.asarray(leaf if found is None else found.reshape(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(filled, variables), header


def write_darknet(
    path: str | os.PathLike[str], variables: Any, *, seen: int = 0, layers: int | None = None
) -> None:
    """Write a file of version 0.2 that `read_darknet` and darknet read.

    Args:
        path: the file.
        variables: "params" and "batch_stats" of a network of darknet's.
        seen: number of images that it has been trained on.
        layers: write the first so many layers alone, a backbone.

    Raises:
        InputError: the network is none of darknet's, or the file cannot be written.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    arrays = {tuple(key.key for key in place): np.asarray(leaf) for place, leaf in leaves}
    file = user_path(path)
    parts = [part for _, some in list(_layers(variables))[:layers] for part in some]
    with writing(file), file.open("wb") as opened:
        opened.write(struct.pack("<iiiq", 0, 2, 0, seen))
        for part in parts:
            opened.write(_there(arrays[part.path], part).astype("<f4").tobytes())


_PRODUCTS = {"kernel", "bias", "scale", "mean", "var"}
_NUMBERED = re.compile(r"(conv|local|connected)(\d+)")


def _header(data: bytes, file: Any) -> tuple[Header, int]:
    """Return the header and where numbers begin."""
    if len(data) < 16:
        raise InputError(f"{file} holds {len(data)} bytes, expected a header of at least 16.")
    major, minor, revision = struct.unpack_from("<iii", data)
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise InputError(
            f"{file} is of version {major}.{minor}, expected 0.1 or 0.2 of darknet's files."
        )
    wide = 10 * major + minor >= 2
    if wide and len(data) < 20:
        raise InputError(f"{file} holds {len(data)} bytes, expected a header of 20.")
    (seen,) = struct.unpack_from("<q" if wide else "<i", data, 12)
    return Header((major, minor, revision), seen), 20 if wide else 16


def _layers(variables: Any) -> Iterator[tuple[str, list[_Part]]]:
    """Yield each layer's name and its arrays in the order of files."""
    params, statistics = variables["params"], variables.get("batch_stats", {})
    numbered = {name: _NUMBERED.fullmatch(name) for name in params}
    if odd := [name for name, match in numbered.items() if match is None]:
        raise InputError(f"the network has the layer {odd[0]}, expected one that darknet has.")
    for name in sorted(params, key=lambda name: int(numbered[name][2])):  # pyright: ignore
        layer = params[name]
        if "GroupedConv_0" in layer:  # around the layer of an arithmetic
            ((inner, arrays),) = layer["GroupedConv_0"].items()
            yield name, _weights(("params", name, "GroupedConv_0", inner), arrays)
        elif "conv" not in layer:
            yield name, _weights(("params", name), layer)
        elif "bn" in layer:
            at, there = ("params", name, "bn"), ("batch_stats", name, "bn")
            shape = layer["bn"]["scale"].shape
            yield (
                name,
                [
                    *(_Part((*at, each), shape) for each in ("bias", "scale")),
                    *(
                        _Part((*there, each), statistics[name]["bn"][each].shape)
                        for each in ("mean", "var")
                    ),
                    *_weights(("params", name, "conv"), layer["conv"]),
                ],
            )
        else:
            yield name, _weights(("params", name, "conv"), layer["conv"])


def _weights(path: tuple[str, ...], layer: Any) -> list[_Part]:
    """Return bias and kernel, with the shapes that they have in a file."""
    kernels = [name for name in layer if name.endswith("kernel")]
    if len(kernels) != 1:
        raise InputError(f"{path[1]} has {', '.join(layer)}, expected one array of weights.")
    parts = []
    if "bias" in layer:
        parts.append(_Part((*path, "bias"), layer["bias"].shape[::-1]))
    shape = layer[kernels[0]].shape
    shapes = {2: shape[::-1], 4: (*shape[:1:-1], *shape[:2]), 5: (shape[0], *shape[:2:-1])}
    return [*parts, _Part((*path, kernels[0]), shapes[len(shape)])]


def _here(array: np.ndarray, part: _Part) -> np.ndarray:
    """Return an array of a file in the order of this kit."""
    if part.path[-1].endswith("kernel"):
        return array.transpose({2: (1, 0), 4: (2, 3, 1, 0), 3: (0, 2, 1)}[array.ndim])
    return array.T


def _there(array: np.ndarray, part: _Part) -> np.ndarray:
    """Return an array of this kit in the order of files."""
    if part.path[-1].endswith("kernel"):
        array = array.reshape(array.shape[0], *array.shape[3:]) if array.ndim == 5 else array
        return array.transpose({2: (1, 0), 4: (3, 2, 0, 1), 3: (0, 2, 1)}[array.ndim])
    return array.T
