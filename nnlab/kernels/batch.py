"""The batch axis of foreign calls: under `jax.vmap`, and split over the devices of a mesh.

XLA sees nothing of what a foreign call computes: it would gather the images of all devices for it,
and `jax.vmap` would run it in turn. What all convolutions have in common is enough for better.
Their operands are images, then a kernel; the images of a batch do not see each other, and the
result is made of images as well, or else a sum over them.

Under `jax.vmap` a new axis of the images joins the batch, as long as the kernel has no such axis
and the result is made of images too; in any other case the calls run in turn. On a mesh every
device calls for its images, with all of the kernel, and sums are added up between devices.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

Call = Callable[..., jax.Array]


def over_images(call: Call) -> Call:
    """`call(*images, kernel) -> images` with its rules for `vmap` and for a mesh."""
    mapped = custom_vmap(_split(call, sums=False))

    @mapped.def_vmap
    def _(size, axes, *operands):
        *images, kernel = operands
        if axes[-1]:
            return _in_turn(call, axes, operands), True
        images = [
            image if axis else jnp.broadcast_to(image, (size, *image.shape))
            for image, axis in zip(images, axes[:-1], strict=True)
        ]
        result = mapped(*(image.reshape(-1, *image.shape[2:]) for image in images), kernel)
        return result.reshape(size, -1, *result.shape[1:]), True

    return mapped


def sum_over_images(call: Call) -> Call:
    """`call(*images, kernel) -> sum` with its rules for `vmap` and for a mesh."""
    mapped = custom_vmap(_split(call, sums=True))

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


def _in_turn(call, axes, operands):
    return jax.vmap(call, [0 if axis else None for axis in axes])(*operands)


def _split(call: Call, *, sums: bool) -> Call:
    split = custom_partitioning(call)

    def partition(mesh, operands, result):
        images = [*operands[:-1], *([] if sums else [result])]
        axes = next((spec[0] for a in images if (spec := a.sharding.spec) and spec[0]), None)
        names = (axes,) if isinstance(axes, str) else axes or ()
        if operands[0].shape[0] % max(1, math.prod(mesh.shape[name] for name in names)):
            axes, names = None, ()  # the last device would see images that are not there
        everywhere = NamedSharding(mesh, PartitionSpec())
        by_image = NamedSharding(mesh, PartitionSpec(axes))

        def local(*operands):
            return lax.psum(call(*operands), names) if sums and names else call(*operands)

        shardings = *[by_image] * (len(operands) - 1), everywhere
        return mesh, local, everywhere if sums else by_image, shardings

    def rule(_mesh, operands, results):
        """Names for all axes; only `n`, that of the images, can be split."""
        ranks = [len(value.shape) for value in (*operands, *results)]
        names = [[f"a{i}_{axis}" for axis in range(rank)] for i, rank in enumerate(ranks)]
        for i in range(len(operands) - 1):
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
