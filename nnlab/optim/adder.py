r"""The learning rate of each adder layer, from the size of its gradient.

.. math:: u = \eta \sqrt{k} \, g / \max(\|g\|_2, 10^{-12})

for the gradient g of one layer's filters with k elements in all, so that the root mean square of u
is eta whatever the loss is scaled by. It is a transformation of the averaged gradient: on several
devices the norm is taken after the all-reduce, which a rule inside the backward pass could not do.

References:
    Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, eqs. 12 and 13. The paper's
    table prefers eta 0.1 on MNIST; its code and its author use 0.2 everywhere, and so do we.
"""

import jax
import jax.numpy as jnp
import optax

from nnlab.optim.values import check_number


def adder_rate(eta: float = 0.2) -> optax.GradientTransformation:
    """Rescale each leaf to root mean square `eta`; stateless.

    Norms are computed in float32 or wider. Apply it to adder kernels only, for example by
    `optax.partition` with `nnlab.optim.labels`.

    Raises:
        InputError: `eta` is negative or not finite.
    """
    check_number("eta", eta)

    def rescale(g: jax.Array) -> jax.Array:
        wide = g.astype(jnp.promote_types(g.dtype, jnp.float32))
        norm = jnp.sqrt(jnp.sum(jnp.square(wide)))
        # The size may be a name (`jax.export`).
        root = g.size**0.5 if isinstance(g.size, int) else jnp.sqrt(1.0 * g.size)
        return (wide * (eta * root / jnp.maximum(norm, 1e-12))).astype(g.dtype)

    return optax.stateless(lambda updates, _: jax.tree.map(rescale, updates))
