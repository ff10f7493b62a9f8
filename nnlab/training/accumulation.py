"""Gradients in parts: a batch that goes through the network one part after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.kernels.batch import match_varying


def parts_of(batch: Any, n: int) -> Any:
    """Reshape [batch, ...] to [n, batch / n, ...], each part with examples from every device."""
    examples = shared_size(batch)
    if examples % n:
        raise InputError(f"accumulate must divide the batch of {examples} examples, not {n}.")

    def split(a):
        return jnp.moveaxis(a.reshape(examples // n, n, *a.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)


def mean_over_parts(fn: Callable[..., Any], *parts: Any) -> Any:
    """Return the mean of `fn(*part)` over the first axis of `parts`, one part after the other."""
    shapes = jax.eval_shape(fn, *jax.tree.map(lambda part: part[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    zeros = varying_like(parts[0], zeros)

    def add(total, part):
        return jax.tree.map(jnp.add, total, fn(*part)), None

    return jax.tree.map(lambda total: total / shared_size(parts), lax.scan(add, zeros, parts)[0])


def varying_like(inputs: Any, tree: Any) -> Any:
    """Inside `jax.shard_map`, mark the arrays of `tree` as each device's own if `inputs` are.

    Otherwise the gradient with respect to parameters that all devices share would already be
    summed over devices. Outside, return the arrays unchanged.
    """
    given = jax.tree.leaves(inputs)
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(match_varying(*given, *leaves)[len(given) :])
