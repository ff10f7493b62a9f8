r"""Restricted Boltzmann machines: an energy over two layers of bits, learned without its sum.

Visible units v and hidden units h are 0 or 1. Their energy has products between layers only,

.. math:: E(v, h) = -b^\top v - c^\top h - v^\top W h                                     (1)

so that each layer is independent given the other,

.. math:: p(h_j = 1 | v) = \sigma(c_j + v^\top W_j), \quad
          p(v_i = 1 | h) = \sigma(b_i + W_i h)                                            (2)

and the sum over h has a closed form, the free energy of v, with p(v) = exp(-F(v)) / Z:

.. math:: F(v) = -b^\top v - \sum_j \log(1 + e^{c_j + v^\top W_j})                        (3)

The gradient of the mean log-likelihood compares data with the model,

.. math:: \partial_W = \langle v h^\top \rangle_{data} - \langle v h^\top \rangle_{model} (4)

and likewise for b with v and c with h. The second mean is over all states. Contrastive divergence
(CD-k) takes it after k steps of (2) that begin at the data, and persistent CD (PCD) after k steps
that go on from where the last update left them. `nnlab.classics.likelihood` has it exactly.

Visible units may end in a group of classes, of which one is 1: given h, a softmax. In chains such a
group keeps its probabilities, as in Hinton's program.

References:
    Smolensky, Information processing in dynamical systems, 1986. Hinton, Training products of
    experts by minimizing contrastive divergence, Neural Computation 14, 2002, for CD. Tieleman,
    Training restricted Boltzmann machines using approximations to the likelihood gradient, ICML
    2008, for PCD. Hinton, A practical guide to training restricted Boltzmann machines, 2010, for
    the start.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key


class RBM(NamedTuple):
    """The parameters of a machine, or of anything with a layer up and the same layer down.

    Attributes:
        weights: W, [visible, hidden].
        visible: b, [visible].
        hidden: c, [hidden].
    """

    weights: jax.Array
    visible: jax.Array
    hidden: jax.Array


def start(key: jax.Array, visible: int, hidden: int, means: jax.Array | None = None) -> RBM:
    """Return a machine of small random weights, standard deviation 0.01, float32.

    Args:
        key: draws the weights.
        visible, hidden: numbers of units.
        means: of the visible units in the data, [visible]; their log-odds, as far as between 0.01
            and 0.99, are then the biases (section 8.1 of the practical guide), otherwise 0.

    Raises:
        InputError: a number is below 1, or `means` has another shape.
    """
    check_key(key)
    check_count("visible", visible)
    check_count("hidden", hidden)
    biases = jnp.zeros(visible)
    if means is not None:
        check_shape("means", means, (visible,))
        shares = jnp.clip(jnp.asarray(means, jnp.float32), 0.01, 0.99)
        biases = jnp.log(shares / (1 - shares))
    return RBM(0.01 * jax.random.normal(key, (visible, hidden)), biases, jnp.zeros(hidden))


def energy(rbm: RBM, visible: jax.Array, hidden: jax.Array) -> jax.Array:
    """Return the energy (1) of states [..., visible] and [..., hidden], [...].

    Raises:
        InputError: the states do not fit the machine.
    """
    _check(rbm, visible, 0)
    _check(rbm, hidden, 1)
    products = jnp.sum((visible @ rbm.weights) * hidden, axis=-1)
    return -products - (visible @ rbm.visible) - (hidden @ rbm.hidden)


def free_energy(rbm: RBM, visible: jax.Array) -> jax.Array:
    """Return the free energy (3) of states [..., visible], [...].

    Raises:
        InputError: the states do not fit the machine.
    """
    _check(rbm, visible, 0)
    fields = rbm.hidden + visible @ rbm.weights
    return -(visible @ rbm.visible) - jnp.sum(jax.nn.softplus(fields), axis=-1)


def hidden_probabilities(rbm: RBM, visible: jax.Array) -> jax.Array:
    """Return p(h = 1 | v) of (2), [..., hidden], for states [..., visible].

    Raises:
        InputError: the states do not fit the machine.
    """
    _check(rbm, visible, 0)
    return jax.nn.sigmoid(rbm.hidden + visible @ rbm.weights)


def visible_probabilities(rbm: RBM, hidden: jax.Array, classes: int = 0) -> jax.Array:
    """Return p(v = 1 | h) of (2), [..., visible], for states [..., hidden].

    Args:
        rbm: the machine.
        hidden: states, [..., hidden].
        classes: how many of the last visible units are a group of which one is 1.

    Raises:
        InputError: the states do not fit the machine, or it has fewer visible units than classes.
    """
    _check(rbm, hidden, 1)
    _check_classes(classes, len(rbm.visible))
    fields = rbm.visible + hidden @ rbm.weights.T
    if not classes:
        return jax.nn.sigmoid(fields)
    units, group = fields[..., :-classes], fields[..., -classes:]
    return jnp.concatenate([jax.nn.sigmoid(units), jax.nn.softmax(group)], axis=-1)


def sample(key: jax.Array, probabilities: jax.Array, classes: int = 0) -> jax.Array:
    """Draw bits of the dtype of their probabilities; the last `classes` stay probabilities.

    Raises:
        InputError: there are fewer probabilities than classes.
    """
    check_key(key)
    _check_classes(classes, probabilities.shape[-1])
    bits = probabilities.shape[-1] - classes
    drawn = jax.random.bernoulli(key, probabilities[..., :bits]).astype(probabilities.dtype)
    if not classes:
        return drawn
    return jnp.concatenate([drawn, probabilities[..., bits:]], axis=-1)


def gibbs(
    key: jax.Array,
    rbm: RBM,
    hidden: jax.Array,
    steps: jax.typing.ArrayLike = 1,
    classes: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Sample visible and hidden units in turn, and return what the last step found.

    Args:
        key: draws the states.
        rbm: the machine.
        hidden: states to begin with, [batch, hidden].
        steps: how often both are sampled, a number that may be traced.
        classes: as for `visible_probabilities`.

    Returns:
        States of the visible units [batch, visible], and probabilities of the hidden units given
        them, [batch, hidden].

    Raises:
        InputError: the states do not fit the machine, or there are no steps.
    """
    check_key(key)
    _check(rbm, hidden, 1)
    if not isinstance(steps, Tracer):
        check_count("steps", steps)
    hidden = jnp.asarray(hidden, rbm.weights.dtype)

    def step(number, chain):
        _, probabilities = chain
        up, down = jax.random.split(jax.random.fold_in(key, number))
        states = sample(up, probabilities)
        visible = sample(down, visible_probabilities(rbm, states, classes), classes)
        return visible, hidden_probabilities(rbm, visible)

    visible = jnp.zeros((*hidden.shape[:-1], len(rbm.visible)), hidden.dtype)
    return lax.fori_loop(0, steps, step, (visible, hidden))


def mean_products(visible: jax.Array, hidden: jax.Array) -> RBM:
    """Return the means of v hᵀ, v and h over a batch, shaped as the parameters that they change."""
    return RBM(visible.T @ hidden / len(visible), visible.mean(0), hidden.mean(0))


@dataclasses.dataclass(frozen=True)
class CD:
    """Contrastive divergence: (4) with the model's mean after some steps from the data.

    A rule is called as `rule(key, rbm, visible, chains) -> (gradient, chains)`, for a batch
    [batch, visible], and returns an estimate of the gradient of the mean log-likelihood.

    Attributes:
        steps: k of CD-k.
        classes: as for `visible_probabilities`.

    Raises:
        InputError: there is no step.
    """

    steps: int = 1
    classes: int = 0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("classes", self.classes, least=0)

    def __call__(self, key: jax.Array, rbm: RBM, visible: jax.Array, chains: jax.Array):
        hidden = hidden_probabilities(rbm, visible)
        model = gibbs(key, rbm, hidden, self.steps, self.classes)
        return difference(mean_products(visible, hidden), mean_products(*model)), chains


@dataclasses.dataclass(frozen=True)
class PCD(CD):
    """Persistent contrastive divergence: chains go on, [batch, hidden], from update to update."""

    def __call__(self, key: jax.Array, rbm: RBM, visible: jax.Array, chains: jax.Array):
        hidden = hidden_probabilities(rbm, visible)
        model = gibbs(key, rbm, chains, self.steps, self.classes)
        return difference(mean_products(visible, hidden), mean_products(*model)), model[1]


def difference(left, right):
    """Return left - right, array by array."""
    return jax.tree.map(jnp.subtract, left, right)


def _check(rbm: RBM, states: jax.Array, axis: int) -> None:
    name, units = ("visible", "hidden")[axis], rbm.weights.shape[axis]
    if not states.ndim or states.shape[-1] != units:
        raise InputError(f"{name} has shape {list(states.shape)}, expected [..., {units}].")


def _check_classes(classes: int, units: int) -> None:
    check_count("classes", classes, least=0)
    if classes > units:
        raise InputError(f"classes is {classes}, expected at most the {units} units.")
