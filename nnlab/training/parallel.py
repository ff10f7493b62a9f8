"""Three ways to compile one pure step for several devices, and how to place its arguments.

=================  ==================================================  =======================
compiled by        the step sees                                       BatchNorm normalises by
=================  ==================================================  =======================
`jax.jit(step)`    the whole batch, on one device                      the whole batch
`on_mesh`          the whole batch; XLA splits the work                the whole batch
`per_device`       one device's part, under `jax.shard_map`            the part, or the whole
`pmapped`          one device's part, under `jax.pmap`                 the part, or the whole
=================  ==================================================  =======================

The last two take a step made with `train_step(…, axis_name="data")`. It averages gradients, running
statistics and metrics over the devices before the optimiser sees them, so the rate of an adder
layer comes from the norm of the averaged gradient; `combine=` can replace the average, for example
by `nnlab.optim.majority_vote`. Each device's BatchNorm normalises its own part, as in most
published code, unless the model's BatchNorm has that `axis_name` too: then all four ways are the
same training up to rounding. In the last two, augmentation and dropout draw differently on each
device.

    mesh = data_mesh()
    step = on_mesh(train_step(model, optimizer), mesh)
    state = replicate(state, mesh)
    for batch in batches:
        state, metrics = step(state, shard(batch, mesh))
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.training.epochs import check_divides
from nnlab.training.steps import (
    Batch,
    Metrics,
    State,
    Step,
)

Tree = TypeVar("Tree")

AXIS = "data"  # the mesh axis over which the examples of a batch are split


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh with one axis, "data", over `devices`, by default those of all processes."""
    found = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(found),), (AXIS,), (AxisType.Auto,), devices=found)


def compiler_options() -> dict[str, str]:
    """Return options for `jax.jit(step, compiler_options=…)` that keep `remat` effective on a CPU.

    XLA's CPU compiler removes the barriers around a recomputation, finds that the values are known
    already, and so saves no memory. Without that pass an adder ResNet-14 at batch 64 takes 46 MB
    instead of 115. On other backends there are no options. `nnlab.runs.fit` passes them; the
    functions of this module do not, since a jitted function inside another cannot have options.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}


def on_mesh(step: Step, mesh: Mesh, *, donate: bool = False) -> Step:
    """Compile a step of the whole batch for all devices of the mesh.

    Every device holds the state and computes its part of the examples; XLA sums gradients and
    BatchNorm's statistics over the devices. Up to rounding the result is that of one device.

    Args:
        step: from `train_step` without `axis_name`.
        mesh: a mesh with an axis "data", of any axis type, such as `jax.make_mesh` makes.
        donate: overwrite the given state to save its memory; then neither that state nor the one
            that `replicate` copied it from can be used again.

    Returns:
        The compiled step. It takes arrays as they are, or placed by `replicate` and `shard`, which
        is necessary on a mesh of several processes.

    Raises:
        InputError: the mesh has no axis "data"; or, when the step is called, the devices do not
            divide the batch, or its arrays differ in their number of examples.
    """
    mesh = _with_auto_axes(mesh)
    everywhere, by_image = (NamedSharding(mesh, spec) for spec in (EVERYWHERE, BY_IMAGE))
    compiled = jax.jit(
        step,
        in_shardings=(everywhere, by_image),
        out_shardings=everywhere,
        donate_argnums=0 if donate else (),
    )

    def run(state: State, batch: Batch) -> tuple[State, Metrics]:
        check_divides(mesh.shape[AXIS], shared_size(batch))
        return compiled(_to_auto_axes(state, everywhere), _to_auto_axes(batch, by_image))

    return run


def per_device(step: Step, mesh: Mesh, *, donate: bool = False) -> Step:
    """Compile a step of each device's part of the batch, under `jax.shard_map` on the mesh.

    Arguments, result and errors are those of `on_mesh`, except that the step comes from
    `train_step` with `axis_name="data"`.
    """
    mesh = _with_auto_axes(mesh)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(EVERYWHERE, BY_IMAGE), out_specs=EVERYWHERE)
    return on_mesh(mapped, mesh, donate=donate)


def pmapped(step: Step, devices: Sequence[Any] | None = None) -> Step:
    """Compile a step of each device's part of the batch under `jax.pmap`, for scripts built on it.

    Args:
        step: from `train_step` with `axis_name="data"`.
        devices: devices of this process, by default all of them.

    Returns:
        The compiled step. It takes a state without an axis of devices and a batch from `split`,
        [devices, examples / devices, ...], and returns a state of the same shapes, on all devices.
    """
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, None), devices=devices)


def split(batch: Tree, devices: int) -> Tree:
    """Reshape a tree of arrays [examples, ...] to [devices, examples / devices, ...], in order.

    Raises:
        InputError: the devices do not divide the examples, or the arrays differ in their number.
    """
    check_divides(devices, shared_size(batch))
    return jax.tree.map(lambda a: a.reshape(devices, len(a) // devices, *a.shape[1:]), batch)


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Copy the arrays of `tree`, such as a state with its key, to every device of the mesh.

    On a mesh of several processes, all of them must call it with the same values.
    """
    sharding = NamedSharding(_with_auto_axes(mesh), EVERYWHERE)
    if _processes(mesh) == 1:
        return jax.device_put(tree, sharding)

    def place(leaf):
        if jnp.issubdtype(jax.typeof(leaf).dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(place, tree)


def shard(batch: Tree, mesh: Mesh) -> Tree:
    """Split a tree of arrays [examples, ...] over the devices of the mesh, in order.

    On a mesh of several processes, each passes its own examples, all the same number; the batch
    consists of those of process 0, then those of process 1, and so on.

    Raises:
        InputError: the devices do not divide the examples, or the arrays differ in their number.
    """
    sharding = NamedSharding(_with_auto_axes(mesh), BY_IMAGE)
    check_divides(mesh.shape[AXIS], shared_size(batch) * _processes(mesh))
    if _processes(mesh) == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a)), batch
    )


EVERYWHERE, BY_IMAGE = PartitionSpec(), PartitionSpec(AXIS)


def _with_auto_axes(mesh: Mesh) -> Mesh:
    """Return the mesh with axes of type Auto, over which XLA decides how arrays are split."""
    if AXIS not in mesh.axis_names:
        raise InputError(f'The mesh must have an axis "{AXIS}", not only {mesh.axis_names}.')
    return Mesh(mesh.devices, mesh.axis_names, (AxisType.Auto,) * len(mesh.axis_names))


def _to_auto_axes(tree: Tree, sharding: NamedSharding) -> Tree:
    """Move the arrays that lie on a mesh of explicit axes to the mesh of `sharding`."""

    def place(leaf):
        explicit = jax.typeof(leaf).sharding.mesh.explicit_axes
        return jax.device_put(leaf, sharding) if explicit else leaf

    return jax.tree.map(place, tree)


def _processes(mesh: Mesh) -> int:
    return len({device.process_index for device in mesh.devices.flat})
