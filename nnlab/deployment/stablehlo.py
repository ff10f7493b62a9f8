"""A network as a StableHLO program with a free batch size, run by JAX without nnlab.

    import jax
    network = jax.export.deserialize(open("lenet.stablehlo", "rb").read())
    logits = network.call(images)  # [any batch, 32, 32, 1]

The file is what `jax.export` serialises, weights and all. Beside it lies the checksum in the format
of the `sha256sum` command, `lenet.stablehlo.sha256`. JAX promises to run such a file for six months
of its releases at least (https://docs.jax.dev/en/latest/export/export.html).

nnlab's native kernels are code outside of the program and Pallas ones are bound to a release, so
the program has XLA's bodies of all ops, which compute the same.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from jax.typing import DTypeLike

from nnlab import kernels
from nnlab.errors import InputError, needs
from nnlab.files.container import replacing
from nnlab.paths import reading, user_path


def save_program(
    path: str | os.PathLike[str],
    network: Callable[..., Any],
    image_shape: Sequence[int],
    *,
    dtype: DTypeLike = jnp.float32,
    platforms: Sequence[str] = ("cpu",),
    overwrite: bool = False,
) -> None:
    """Exports `network` and writes the program to `path`, and its checksum to `path`.sha256.

    Args:
        path: the file; missing parent folders are made.
        network: images [batch, *image_shape] to logits [batch, classes], for any batch, such as
            `functools.partial(model.apply, variables)`.
        image_shape: [height, width, channels], in sizes that are fixed.
        dtype: of the images.
        platforms: on which the program shall run, of "cpu", "cuda", "rocm" and "tpu".
        overwrite: replace files that are there.

    Raises:
        InputError: a file exists or cannot be written, or a platform is none of these.
        MissingPackageError: flatbuffers is not installed.
    """
    with needs("deployment"):
        import flatbuffers  # noqa: F401, jax.export serialises with it

    unknown = set(platforms) - {"cpu", "cuda", "rocm", "tpu"}
    if unknown or not platforms:
        raise InputError(f'platforms must be of "cpu", "cuda", "rocm", "tpu", not {platforms}.')
    sizes = ", ".join(["batch", *map(str, image_shape)])
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(sizes), dtype)
    with kernels.use("xla"):
        exported = jax.export.export(jax.jit(network), platforms=tuple(platforms))(images)
    program = bytes(exported.serialize())
    path = user_path(path)
    with replacing(path, overwrite) as partial, replacing(_beside(path), overwrite) as checksum:
        partial.write_bytes(program)
        digest = hashlib.sha256(program).hexdigest().encode()
        checksum.write_bytes(digest + b"  " + os.fsencode(path.name) + b"\n")


def load_program(path: str | os.PathLike[str]) -> Callable[..., Any]:
    """Reads what `save_program` wrote: images [batch, height, width, channels] to logits.

    Raises:
        InputError: the program or its checksum is not there, or they do not fit.
    """
    with needs("deployment"):
        import flatbuffers  # noqa: F401

    path = user_path(path)
    with reading(path):
        missing = [str(file) for file in (path, _beside(path)) if not file.is_file()]
        if missing:
            raise InputError(f"there is no file {missing[0]}; expected a program and its checksum.")
        program = path.read_bytes()
    with reading(_beside(path)):
        written = _beside(path).read_bytes().split(b" ")[0]
    if hashlib.sha256(program).hexdigest().encode() != written:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in {_beside(path)}.")
    return jax.export.deserialize(bytearray(program)).call


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
