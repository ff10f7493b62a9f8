r"""Updates of one bit a number and one scale a tensor, and error feedback for what they leave out.

signSGD and Signum are optax's own, `optax.sign_sgd(learning_rate)` and `optax.signum(learning_rate,
beta)`. The scaled sign also keeps the mean size of a tensor p of d numbers,

.. math:: C(p) = \frac{\|p\|_1}{d} \, \mathrm{sgn}(p), \qquad
          \|C(p) - p\|_2^2 = \Bigl(1 - \frac{\|p\|_1^2}{d \|p\|_2^2}\Bigr) \|p\|_2^2       (1)

(for p without zeros), which is the best that a multiple of the sign can do. Error feedback adds
what a compressor C has left out to what it gets next, tensor by tensor:

.. math:: p_t = \gamma g_t + e_t, \quad \Delta_t = C(p_t), \quad
          x_{t+1} = x_t - \Delta_t, \quad e_{t+1} = p_t - \Delta_t                         (2)

so that x_t - e_t is where plain SGD would be by the same gradients, whatever C is. Signs alone need
not go downhill: there are convex functions in one and two dimensions that they climb, and that
(2) minimises (`experiments/optimisers/sign_direction.py`).

Weight decay before these, in `optax.chain(optax.add_decayed_weights(5e-4), ef_sign_sgd(rate))`, is
part of the gradient and hence of what is compressed, as in the published code. After
`optax.scale_by_sign`, in `optax.chain(optax.scale_by_sign(), optax.add_decayed_weights(5e-4),
optax.scale_by_learning_rate(rate))`, it is decoupled: before a sign it could only tip balances.

The sign of 0 is 0, as in optax and in PyTorch: a weight without a gradient stays.

References:
    Bernstein et al., signSGD, ICML 2018, https://arxiv.org/abs/1802.04434.
    Karimireddy et al., Error Feedback Fixes SignSGD, ICML 2019, https://arxiv.org/abs/1901.09847,
    Algorithm 1 for (2); the quotient in (1) is its density phi(p).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nnlab.optim.values import check_number


def scaled_sign() -> optax.GradientTransformation:
    """Compress each leaf by C of (1); stateless. Means are computed in float32 or wider.

    On its own it is the paper's "scaled signSGD": `optax.chain(scaled_sign(), optax.sgd(rate))`.
    """

    def compress(p: jax.Array) -> jax.Array:
        wide = p.astype(jnp.promote_types(p.dtype, jnp.float32))
        return (jnp.mean(jnp.abs(wide)) * jnp.sign(wide)).astype(p.dtype)  # (1)

    return optax.stateless(lambda updates, _: jax.tree.map(compress, updates))


class ErrorFeedbackState(NamedTuple):
    """The error left out so far, shaped like the parameters, and the compressor's state."""

    error: Any
    compressor: optax.OptState


def error_feedback(compressor: optax.GradientTransformation) -> optax.GradientTransformation:
    """Compress updates, and add what was left out of them to the next ones (2).

    Put it after the learning rate, because errors are in units of the weights:

        optax.chain(optax.sgd(rate, momentum=0.9), error_feedback(scaled_sign()))

    The error is held in float32 or wider, and counts the rounding of the update to its own dtype.

    Args:
        compressor: a transformation of updates that treats each step alone, such as
            `scaled_sign()`.
    """

    def init(params):
        def zeros(p):
            return jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32))

        return ErrorFeedbackState(jax.tree.map(zeros, params), compressor.init(params))

    inner_update = optax.with_extra_args_support(compressor).update

    def update(updates, state, params=None, **extra_args):
        wanted = jax.tree.map(jnp.add, updates, state.error)
        passed, inner = inner_update(wanted, state.compressor, params, **extra_args)
        passed = jax.tree.map(lambda d, u: d.astype(u.dtype), passed, updates)
        return passed, ErrorFeedbackState(jax.tree.map(jnp.subtract, wanted, passed), inner)

    return optax.GradientTransformationExtraArgs(init, update)


def ef_sign_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Return EF-signSGD: (2) with the scaled sign (1) for C.

    Its state `error` is e of (2), so parameters minus error are SGD's parameters.

    Raises:
        InputError: `learning_rate` is a number that is negative or not finite.
    """
    check_number("learning_rate", learning_rate)
    return optax.chain(
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        error_feedback(scaled_sign()),
        optax.scale(-1.0),
    )
