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

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
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

    sizes = ", ".join(["batch", *map(str, image_shape)])
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(sizes), dtype)
    _write(path, network, (images,), platforms, overwrite)


def save_text_program(
    path: str | os.PathLike[str],
    model: nn.Module,
    variables: Any,
    *,
    capacity: int | None = None,
    platforms: Sequence[str] = ("cpu",),
    overwrite: bool = False,
) -> None:
    """Export a network of texts, for any number of texts and any length, as `save_program` does.

    Without `capacity` the program maps symbols, int32 [batch, length], to what the network does:
    an encoder's features, as a dictionary, or a decoder's logits of whole texts. With it, it is a
    decoder's step, (cache, symbols [batch, length]) to (logits, cache): the prompt first, from the
    cache that `nnlab.layers.attention.empty_cache` makes, then symbol by symbol.

    Args:
        path, platforms, overwrite: as for `save_program`.
        model, variables: a network called as `model.apply(variables, symbols)`.
        capacity: places of the cache, and the longest text.

    Raises:
        InputError: as `save_program`, or `capacity` is given for a network without cache.
    """
    with needs("deployment"):
        import flatbuffers  # noqa: F401

    most = getattr(model, "positions", None) if capacity is None else capacity
    limits = [] if most is None else [f"length <= {most}"]
    sizes = jax.export.symbolic_shape("batch, length", constraints=limits)
    symbols = jax.ShapeDtypeStruct(sizes, jnp.int32)

    def whole(symbols: jax.Array) -> Any:
        found: Any = model.apply(variables, symbols)
        return found._asdict() if hasattr(found, "_asdict") else found  # what any JAX can read

    if capacity is None:
        return _write(path, whole, (symbols,), platforms, overwrite)

    def step(cache: Any, symbols: jax.Array) -> Any:
        return model.apply({**variables, **cache}, symbols, mutable=["cache"])

    longest = jax.ShapeDtypeStruct((sizes[0], capacity), jnp.int32)
    with kernels.use("xla"):
        _, cache = jax.eval_shape(functools.partial(step, {}), longest)
    if not cache:
        raise InputError(f"{type(model).__name__} has no cache, so expected no capacity.")
    _write(path, step, (dict(cache), symbols), platforms, overwrite)


def _write(
    path: str | os.PathLike[str],
    network: Callable[..., Any],
    inputs: Sequence[Any],
    platforms: Sequence[str],
    overwrite: bool,
) -> None:
    unknown = set(platforms) - {"cpu", "cuda", "rocm", "tpu"}
    if unknown or not platforms:
        raise InputError(f'platforms must be of "cpu", "cuda", "rocm", "tpu", not {platforms}.')
    with kernels.use("xla"):
        exported = jax.export.export(jax.jit(network), platforms=tuple(platforms))(*inputs)
    program = bytes(exported.serialize())
    path = user_path(path)
    with replacing(path, overwrite) as partial, replacing(_beside(path), overwrite) as checksum:
        partial.write_bytes(program)
        digest = hashlib.sha256(program).hexdigest().encode()
        checksum.write_bytes(digest + b"  " + os.fsencode(path.name) + b"\n")


def load_program(path: str | os.PathLike[str]) -> Callable[..., Any]:
    """Reads what `save_program` or `save_text_program` wrote, such as images to logits.

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
