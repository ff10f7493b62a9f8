"""Three ways to compile one pure step for several devices, and the placing of what it takes.

=================  ==================================================  =======================
compiled by        the step sees                                       BatchNorm normalises by
=================  ==================================================  =======================
`jax.jit(step)`    all of the batch, on one device                     the whole batch
`on_mesh`          all of the batch; XLA splits the work               the whole batch
`per_device`       one device's part, under `jax.shard_map`            the part, or the whole
`pmapped`          one device's part, under `jax.pmap`                 the part, or the whole
=================  ==================================================  =======================

The last two take a step made with `train_step(…, axis_name="data")`, which averages gradients,
running statistics and metrics over the devices before the optimiser sees them, so that the rate of
an adder layer is taken from the norm of the average; or combines gradients in another way, such as
`nnlab.optim.majority_vote`. Their BatchNorm is each device's own, as in
most published code, unless the model's has that `axis_name` too: then all four are one training, up
to rounding. Augmentation and dropout draw differently on each device in the last two.

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

AXIS = "data"  # of the mesh: the examples of a batch are split over it


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """One axis, "data", over `devices`: those of all processes unless given."""
    found = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(found),), (AXIS,), (AxisType.Auto,), devices=found)


def compiler_options() -> dict[str, str]:
    """For `jax.jit(step, compiler_options=…)` of a model with `remat` on a CPU; elsewhere none.

    XLA's CPU compiler drops the barriers that keep a recomputation apart, finds that all of it has
    been computed before, and nothing is saved. Without that pass a ResNet-14 of adders takes 46 MB
    in place of 115 at batch 64. `nnlab.runs.fit` sees to it; a jitted function within another
    cannot have options, so the functions of this module have none.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}


def on_mesh(step: Step, mesh: Mesh, *, donate: bool = False) -> Step:
    """Compile the step on the whole batch for all devices of the mesh.

    Every device holds the state and computes on its part of the examples; XLA adds up gradients and
    the sums of BatchNorm between them. Up to rounding it is the step on one device.

    Args:
        step: made without `axis_name`.
        mesh: with an axis "data"; axes of any type, as those of `jax.make_mesh`.
        donate: overwrite the state that is passed in, to save its memory; neither it nor what
            `replicate` made it of can be used again.

    Returns:
        The compiled function. It takes arrays as they are, or placed by `replicate` and `shard`,
        which a mesh of several processes needs.

    Raises:
        InputError: on the call, for a batch that the devices do not divide, or whose arrays differ
            in their number of examples.
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
    """Compile the step on each device's part of the batch, under `jax.shard_map` on the mesh.

    Arguments, result and errors are those of `on_mesh`, but for the step: one that was made with
    `axis_name="data"`.
    """
    mesh = _with_auto_axes(mesh)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(EVERYWHERE, BY_IMAGE), out_specs=EVERYWHERE)
    return on_mesh(mapped, mesh, donate=donate)


def pmapped(step: Step, devices: Sequence[Any] | None = None) -> Step:
    """The step under `jax.pmap`, for scripts that are built on it.

    Args:
        step: made with `axis_name="data"`.
        devices: of this process, all of them unless given.

    Returns:
        A function of a state as it is and a batch from `split`, [devices, examples / devices, …];
        the state that it returns is again without an axis of devices, and lies on all of them.
    """
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, None), devices=devices)


def split(batch: Tree, devices: int) -> Tree:
    """Reshape a tree of arrays [examples, …] to [devices, examples / devices, …], in order.

    Raises:
        InputError: the devices do not divide the examples, or the arrays differ in their number.
    """
    check_divides(devices, shared_size(batch))
    return jax.tree.map(lambda a: a.reshape(devices, len(a) // devices, *a.shape[1:]), batch)


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays of `tree`, such as a state, on every device of the mesh, typed keys included.

    On a mesh of several processes, all of them call it with the same values.
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
    """Split the arrays of `batch`, any tree of [examples, …], over the devices, in order.

    On a mesh of several processes, each calls it with examples of its own, as many as the others;
    the batch is made of those of process 0, then those of process 1 and so on.

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
    """The mesh with axes whose splitting XLA decides on, in place of the types of the arrays."""
    if AXIS not in mesh.axis_names:
        raise InputError(f'The mesh must have an axis "{AXIS}", not only {mesh.axis_names}.')
    return Mesh(mesh.devices, mesh.axis_names, (AxisType.Auto,) * len(mesh.axis_names))


def _to_auto_axes(tree: Tree, sharding: NamedSharding) -> Tree:
    """What lies on a mesh of explicit axes, on that of `sharding`."""

    def place(leaf):
        explicit = jax.typeof(leaf).sharding.mesh.explicit_axes
        return jax.device_put(leaf, sharding) if explicit else leaf

    return jax.tree.map(place, tree)


def _processes(mesh: Mesh) -> int:
    return len({device.process_index for device in mesh.devices.flat})
