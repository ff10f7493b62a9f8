"""The batch axis of foreign calls: under `jax.vmap`, and split over the devices of a mesh.

XLA sees nothing of what a foreign call computes: it would gather the images of all devices for it,
and `jax.vmap` would run it in turn. What all convolutions have in common is enough for better.
Their operands are images, then a kernel (the packing of signs has none); the images of a batch do
not see each other, and the result is made of images as well, or else a sum over them.

Under `jax.vmap` a new axis of the images joins the batch, as long as the kernel has no such axis
and the result is made of images too; in any other case the calls run in turn. On a mesh every
device calls for its images, with all of the kernel, and sums are added up between devices.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

Call = Callable[..., jax.Array]


def over_images(call: Call, kernels: int = 1) -> Call:
    """`call(*images, *kernels) -> images` with its rules for `vmap` and for a mesh."""
    mapped = custom_vmap(_split(call, kernels, sums=False))

    @mapped.def_vmap
    def _(size, axes, *operands):
        last = len(operands) - kernels
        if any(axes[last:]):
            return _in_turn(call, axes, operands), True
        images = [
            image if axis else jnp.broadcast_to(image, (size, *image.shape))
            for image, axis in zip(operands[:last], axes[:last], strict=True)
        ]
        joined = (image.reshape(-1, *image.shape[2:]) for image in images)
        result = mapped(*joined, *operands[last:])
        return result.reshape(size, -1, *result.shape[1:]), True

    return mapped


def sum_over_images(call: Call) -> Call:
    """`call(*images, kernel) -> sum` with its rules for `vmap` and for a mesh."""
    mapped = custom_vmap(_split(call, 1, sums=True))

    @mapped.def_vmap
    def _(size, axes, *operands):
        return _in_turn(call, axes, operands), True

    return mapped


def vary_alike(*arrays: jax.Array) -> list[jax.Array]:
    """Inside `jax.shard_map`, the arrays as varying over every mesh axis that one of them does.

    The cotangents of what did not vary are then added up over those axes. Elsewhere the arrays
    themselves.
    """
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    every = frozenset().union(*axes)
    return [
        lax.pcast(array, tuple(every - mine), to="varying") if every - mine else array
        for array, mine in zip(arrays, axes, strict=True)
    ]


def of_images(op: Call, x: jax.Array, *others: jax.Array) -> jax.Array:
    """`op(x, *others)`, also for arrays on a mesh of explicit axes, such as `jax.make_mesh` makes.

    There the type of an array says how it is split, and half of what an op is made of would have to
    be told. Within the op XLA finds out by itself; its result is split over the first axis as `x`
    is, unless `x` is a vector, and a cotangent as what it belongs to. Elsewhere, a plain call.
    """
    meshes = [jax.typeof(array).sharding.mesh for array in (x, *others)]
    mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
    if mesh is None:
        return op(x, *others)
    axes = jax.typeof(x).sharding.spec[0] if x.ndim > 1 else None
    by_image = NamedSharding(mesh, PartitionSpec(axes))
    run: Any = auto_axes(op, axes=mesh.explicit_axes, out_sharding=by_image)
    return run(x, *others)


def _in_turn(call, axes, operands):
    return jax.vmap(call, [0 if axis else None for axis in axes])(*operands)


def _split(call: Call, kernels: int, *, sums: bool) -> Call:
    split = custom_partitioning(call)

    def partition(mesh, operands, result):
        count = len(operands) - kernels
        images = [*operands[:count], *([] if sums else [result])]
        axes = next((spec[0] for a in images if (spec := a.sharding.spec) and spec[0]), None)
        names = (axes,) if isinstance(axes, str) else axes or ()
        if operands[0].shape[0] % max(1, math.prod(mesh.shape[name] for name in names)):
            axes, names = None, ()  # the last device would see images that are not there
        everywhere = NamedSharding(mesh, PartitionSpec())
        by_image = NamedSharding(mesh, PartitionSpec(axes))

        def local(*operands):
            return lax.psum(call(*operands), names) if sums and names else call(*operands)

        shardings = *[by_image] * count, *[everywhere] * kernels
        return mesh, local, everywhere if sums else by_image, shardings

    def rule(_mesh, operands, results):
        """Names for all axes; only `n`, that of the images, can be split."""
        ranks = [len(value.shape) for value in (*operands, *results)]
        names = [[f"a{i}_{axis}" for axis in range(rank)] for i, rank in enumerate(ranks)]
        for i in range(len(operands) - kernels):
            names[i][0] = "n"
        if not sums:
            names[-1][0] = "n"
        sides = names[:-1], names[-1:]
        text = " -> ".join(", ".join(map(" ".join, side)) for side in sides)
        whole = tuple(sorted({name for side in sides for axes in side for name in axes} - {"n"}))
        return text, {
            "reduction_factors": ("n",) if sums else (),
            "need_replication_factors": whole,
        }

    split.def_partition(partition, sharding_rule=rule)
    return split
