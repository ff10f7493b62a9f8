"""The batch axis of foreign calls: under `jax.vmap`, and split over the devices of a mesh.

XLA sees nothing of what a foreign call computes: it would gather the images of all devices for it,
and `jax.vmap` would run one call after the other. What all convolutions have in common allows
better. Their operands are images, then a kernel (the packing of signs has none); the images of a
batch do not affect each other, and the result is either made of images as well or a sum over them.

Under `jax.vmap` a new axis of the images joins the batch, as long as the kernel has no such axis
and the result is made of images too; in any other case, as in groups of channels, the calls run one
after the other. On a mesh every device calls with its own images and all of the kernel, and sums
are added up between devices; calls that run one after the other do the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

Call = Callable[..., jax.Array]
Places = Sequence[int | None]


def over_images(call: Call, kernels: int = 1) -> Call:
    """Give `call(*images, *kernels) -> images` its rules for `vmap` and for a mesh."""

    def of(*operands):
        last = len(operands) - kernels
        first: Any = (0,) * last + (None,) * kernels
        mapped = custom_vmap(_split(call, first, 0))

        @mapped.def_vmap
        def _(size, axes, *operands):
            if any(axes[last:]):
                return _in_turn(call, first, 0, axes)(*operands), True
            images = [
                image if axis else jnp.broadcast_to(image, (size, *image.shape))
                for image, axis in zip(operands[:last], axes[:last], strict=True)
            ]
            joined = (image.reshape(-1, *image.shape[2:]) for image in images)
            result = mapped(*joined, *operands[last:])
            return result.reshape(size, -1, *result.shape[1:]), True

        return mapped(*operands)

    return of


def sum_over_images(call: Call) -> Call:
    """Give `call(*images, kernel) -> sum` its rules for `vmap` and for a mesh."""
    return lambda *operands: _apart(call, (0,) * (len(operands) - 1) + (None,), None)(*operands)


def match_varying(*arrays: jax.Array) -> list[jax.Array]:
    """Mark all arrays as varying over every mesh axis that one of them varies over.

    This matters inside `jax.shard_map`, where the cotangents of what did not vary are then added up
    over those axes. Elsewhere the arrays come back as they are.
    """
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    every = frozenset().union(*axes)
    return [
        lax.pcast(array, tuple(every - mine), to="varying") if every - mine else array
        for array, mine in zip(arrays, axes, strict=True)
    ]


def auto_sharded(op: Call, x: jax.Array, *others: jax.Array) -> jax.Array:
    """Call `op(x, *others)`, also on a mesh of explicit axes, such as `jax.make_mesh` makes.

    There the type of an array says how it is split, and half of an op's steps would need to say how
    their results are. Within the op XLA finds out by itself; the result is split over the first
    axis as `x` is, unless `x` is a vector, and a cotangent as its operand. Elsewhere, a plain call.
    """
    meshes = [jax.typeof(array).sharding.mesh for array in (x, *others)]
    mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
    if mesh is None:
        return op(x, *others)
    axes = jax.typeof(x).sharding.spec[0] if x.ndim > 1 else None
    by_image = NamedSharding(mesh, PartitionSpec(axes))
    run: Any = auto_axes(op, axes=mesh.explicit_axes, out_sharding=by_image)
    return run(x, *others)


def _apart(call: Call, images: Places, result: int | None) -> Call:
    """`call` over the devices of a mesh, and one after the other under `vmap`.

    `images` and `result` are the axes of images in the operands and in the result, None where there
    is no such axis.
    """
    mapped = custom_vmap(_split(call, images, result))

    @mapped.def_vmap
    def _(_size, axes, *operands):
        return _in_turn(call, images, result, axes)(*operands), True

    return mapped


def _in_turn(call: Call, images: Places, result: int | None, axes: Sequence[bool]) -> Call:
    """`call` mapped over a new first axis of those operands whose entry in `axes` is true."""
    calls = jax.vmap(call, [0 if axis else None for axis in axes])
    images = [None if at is None else at + axis for at, axis in zip(images, axes, strict=True)]
    return _apart(calls, images, None if result is None else result + 1)


def _split(call: Call, images: Places, result: int | None) -> Call:
    split = custom_partitioning(call)
    everything = *images, result

    def partition(mesh, operands, results):
        arrays = *operands, results
        specs = [(a.sharding.spec, at) for a, at in zip(arrays, everything, strict=True)]
        split_over = (spec[at] for spec, at in specs if at is not None and at < len(spec))
        axes = next((axes for axes in split_over if axes), None)
        names = (axes,) if isinstance(axes, str) else axes or ()
        number = next(a.shape[at] for a, at in zip(operands, images, strict=True) if at is not None)
        if number % max(1, math.prod(mesh.shape[name] for name in names)):
            axes, names = None, ()  # the last device would see images that are not there

        def local(*operands):
            whole = call(*operands)
            return lax.psum(whole, names) if result is None and names else whole

        shardings = [
            NamedSharding(
                mesh, PartitionSpec() if at is None else PartitionSpec(*[None] * at, axes)
            )
            for at in everything
        ]
        return mesh, local, shardings[-1], tuple(shardings[:-1])

    def rule(_mesh, operands, results):
        """Names for all axes; only `n`, that of the images, can be split."""
        ranks = [len(value.shape) for value in (*operands, *results)]
        names = [[f"a{i}_{axis}" for axis in range(rank)] for i, rank in enumerate(ranks)]
        for of_array, at in zip(names, everything, strict=True):
            if at is not None:
                of_array[at] = "n"
        sides = names[:-1], names[-1:]
        text = " -> ".join(", ".join(map(" ".join, side)) for side in sides)
        whole = tuple(sorted({name for side in sides for axes in side for name in axes} - {"n"}))
        return text, {
            "reduction_factors": ("n",) if result is None else (),
            "need_replication_factors": whole,
        }

    split.def_partition(partition, sharding_rule=rule)
    return split
