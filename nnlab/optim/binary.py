"""Transformations for the latent real weights of binary layers.

They keep the weights in [-1, 1]. Outside, the sign does not change and the straight-through
gradient is 0, so a weight that drifts there would never come back. Published codes also centre the
weights or rescale their updates:

    parts = {"binary": optax.chain(optax.adam(1e-3), glorot_rate(), clip_latent_weights())}
    adder_recipe(steps, parts=parts)

References:
    Courbariaux et al., BinaryConnect, NeurIPS 2015, https://arxiv.org/abs/1511.00363, section 2.4,
    and BinaryNet's code (binary_net.py) for `glorot_rate`.
    Rastegari et al., XNOR-Net, ECCV 2016, https://arxiv.org/abs/1603.05279, and its code (util.lua)
    for `center_and_clip`.
"""

import math

import jax
import jax.numpy as jnp
import optax

from nnlab.errors import InputError


def clip_latent_weights() -> optax.GradientTransformation:
    """Shorten updates so that weight plus update is in [-1, 1]; last in a chain, stateless."""

    def update(updates, params):
        if params is None:
            raise ValueError(
                "clip_latent_weights needs the parameters: update(updates, state, params)."
            )
        return jax.tree.map(lambda u, p: jnp.clip(p + u, -1, 1) - p, updates, params)

    return optax.stateless(update)


def center_and_clip() -> optax.GradientTransformation:
    """Subtract each weight's mean over inputs, then clip as `clip_latent_weights`; last in a chain.

    Kernels are [..., in, out], so every tap of every filter has a mean of its own. XNOR-Net treats
    its weights so. With a single input, all weights become 0.

    Raises:
        InputError: on `update`, weights have fewer than two axes.
    """

    def update(updates, params):
        if params is None:
            raise ValueError(
                "center_and_clip needs the parameters: update(updates, state, params)."
            )

        def centred(u, p):
            _check_kernel("center_and_clip", p)
            new = p + u
            return jnp.clip(new - new.mean(axis=-2, keepdims=True), -1, 1) - p

        return jax.tree.map(centred, updates, params)

    return optax.stateless(update)


def glorot_rate() -> optax.GradientTransformation:
    """Multiply updates of a kernel [..., in, out] by sqrt((fan in + fan out) / 1.5); stateless.

    This is BinaryNet's learning rate of each layer, after Adam: the inverse of the spread of
    Glorot's initial weights. A fan is a number of inputs or filters times the taps.

    Raises:
        InputError: on `update`, weights have fewer than two axes.
    """

    def scaled(u):
        _check_kernel("glorot_rate", u)
        taps = math.prod(u.shape[:-2])
        return u * math.sqrt(taps * (u.shape[-2] + u.shape[-1]) / 1.5)

    return optax.stateless(lambda updates, _: jax.tree.map(scaled, updates))


def _check_kernel(name, array):
    if array.ndim < 2:
        raise InputError(f"{name} is for kernels [..., in, out], not for weights {array.shape}.")
