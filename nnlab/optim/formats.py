"""Optimisers whose gradients, state and weights are each in a number format.

=========  ===============================  ==================================================
rounded    what                             when
=========  ===============================  ==================================================
gradients  each leaf                        before the optimiser sees it                   (1)
moments    what the optimiser keeps a       after each update: momenta, averages; counters
           weight                           and learning rates stay                        (2)
weights    weight plus update               after each update: master weights              (3)
=========  ===============================  ==================================================

A weight in a format of few bits stays where it is when updates are less than half a step of the
format, hence posit(16, ·) for (2) and (3) where products are in posit(8, ·).

References:
    Lu et al., Training deep neural networks using posit number system, 2019,
    https://arxiv.org/abs/1909.03831. Zhang et al., QPyTorch, 2019,
    https://arxiv.org/abs/1910.04540, whose OptimLP has a quantiser for each of these.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from nnlab.ops.formats import Format


def rounded(
    optimizer: optax.GradientTransformation,
    *,
    gradients: Format | None = None,
    moments: Format | None = None,
    weights: Format | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` with the roundings (1) to (3); where a format is None, numbers stay as they are.

    The state is that of `optimizer`, so that a training may go on from one that did not round.

        rounded(adder_recipe(steps), gradients=scaled(posit(8, 2)), weights=posit(16, 1))

    An update is the difference of two weights of the format (3). Where that is not a float, as
    when a weight falls to a millionth, the sum is off by a rounding of float32, until the next.

    Args:
        optimizer: for any parameters. With `moments`, what it keeps for each weight must lie in
            trees like that of the weights, as it does in optax's own.
        gradients, moments, weights: of `nnlab.ops.formats`.

    Raises:
        ValueError: on the update, with `weights` and without parameters.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra):
        updates = _in_format(gradients, updates)  # (1)
        updates, state = inner.update(updates, state, params, **extra)
        if moments:
            state = _map_moments(functools.partial(_leaf, moments), state, updates)  # (2)
        if weights:
            if params is None:
                raise ValueError("rounded needs the parameters: update(updates, state, params).")
            new = _in_format(weights, optax.apply_updates(params, updates))
            updates = jax.tree.map(jnp.subtract, new, params)  # (3)
        return updates, state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _map_moments(fn, state, weights):
    """Apply `fn` to the leaves of `state` that lie where a weight lies in a tree of weights."""
    shapes = {path: leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(weights)}

    def at(path, leaf):
        ends = (path[start:] for start in range(len(path) + 1))
        place = next((end for end in ends if end in shapes), None)
        # A single array has no place of its own: then all leaves of its shape are meant.
        return fn(leaf) if place or (place == () and leaf.shape == shapes[()]) else leaf

    return jax.tree_util.tree_map_with_path(at, state)


def _in_format(form: Format | None, tree):
    return jax.tree.map(functools.partial(_leaf, form), tree) if form else tree


def _leaf(form: Format, leaf: jax.Array) -> jax.Array:
    return form.split(leaf)[0] if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
