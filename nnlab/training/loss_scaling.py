r"""Loss scaling, by which small gradients survive float16.

The loss is multiplied by a scale before it is differentiated, and gradients are divided by it
afterwards in float32, so that what lies between the two stays in float16's range, from 6e-8 to
65504. A step whose gradients are not finite is not taken, and the scale is halved; after many
finite ones in a row it is doubled. Powers of two change no bit of a gradient in range.

    from flax.training.dynamic_scale import DynamicScale

    state = training.init(key, model, optimizer, inputs, loss_scale=DynamicScale())
    step = training.train_step(model, optimizer)

The scale, its rule and its numbers are Flax's `DynamicScale`, here without its `value_and_grad`,
which knows neither gradients in parts nor those that devices combine otherwise than by their mean.
bfloat16 has the range of float32 and needs none of this.

Reference:
    Micikevicius et al., Mixed precision training, ICLR 2018, https://arxiv.org/abs/1710.03740,
    section 3.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.training.dynamic_scale import DynamicScale
from jax import lax

from nnlab.errors import InputError

_NARROW = jnp.float16, jnp.bfloat16


def begun(scale: DynamicScale) -> DynamicScale:
    """Return a scale as arrays, for a state; raise `InputError` if it is another thing."""
    if not isinstance(scale, DynamicScale):
        raise InputError(f"loss_scale must be a DynamicScale of Flax, not {scale!r:.120}.")
    return scale.replace(fin_steps=jnp.int32(scale.fin_steps), scale=jnp.float32(scale.scale))


def widened(outputs: Any) -> Any:
    """Return the outputs of a network in float32, where they are narrower; the loss needs it."""

    def widen(leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.float32) if leaf.dtype in _NARROW else leaf

    return jax.tree.map(widen, outputs)


def unscaled(scale: DynamicScale, gradients: Any) -> Any:
    """Return gradients, float32 or wider, of the loss from those of the loss times its scale."""

    def divide(g: jax.Array) -> jax.Array:
        return g.astype(jnp.promote_types(g.dtype, jnp.float32)) / scale.scale

    return jax.tree.map(divide, gradients)


def all_finite(gradients: Any, axis_name: str | None) -> jax.Array:
    """Return whether the gradients of all devices are finite, bool []."""
    finite = jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(gradients)]).all()
    return finite if axis_name is None else lax.pmin(finite.astype(jnp.int32), axis_name) == 1


def adjusted(scale: DynamicScale, finite: jax.Array) -> DynamicScale:
    """Return the scale of the next step, by the rule of `DynamicScale.value_and_grad`."""
    grow = scale.fin_steps == scale.growth_interval
    largest = jnp.finfo(jnp.float32).max
    larger = jnp.where(grow, jnp.minimum(scale.scale * scale.growth_factor, largest), scale.scale)
    smaller = scale.scale * scale.backoff_factor
    if scale.minimum_scale is not None:
        smaller = jnp.maximum(smaller, scale.minimum_scale)
    steps = jnp.where(grow | ~finite, 0, scale.fin_steps + 1)
    return scale.replace(fin_steps=steps, scale=jnp.where(finite, larger, smaller))
