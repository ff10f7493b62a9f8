"""Latent weights of binary layers stay in [-1, 1].

Outside, the sign does not change and the straight-through gradient is 0, so a weight that drifts
there would never come back.

References:
    Courbariaux et al., BinaryConnect, NeurIPS 2015, https://arxiv.org/abs/1511.00363, section 2.4.
"""

import jax
import jax.numpy as jnp
import optax


def clip_latent_weights() -> optax.GradientTransformation:
    """Shortens updates so that weight plus update lies in [-1, 1]; last in a chain, stateless."""

    def update(updates, params):
        if params is None:
            raise ValueError(
                "clip_latent_weights needs the parameters: update(updates, state, params)."
            )
        return jax.tree.map(lambda u, p: jnp.clip(p + u, -1, 1) - p, updates, params)

    return optax.stateless(update)
