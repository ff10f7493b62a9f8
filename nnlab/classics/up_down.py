r"""Deep belief networks, models of pictures and labels, and the up-down algorithm for them.

The two layers on top are a restricted Boltzmann machine, whose visible units are the layer below it
and a group of classes, trained by `nnlab.classics.rbm.CD(1, classes)`. From there a picture is
generated downwards, layer by layer; upwards, separate recognition weights guess what has generated
it. Greedy pre-training leaves both the same, and contrastive wake-sleep lets them part. With data v
and its sampled states h1, h2, … upwards, it changes the weights down to predict each layer from the
one above it,

.. math:: \Delta G_l \propto h_{l+1} (h_l - \sigma(G_l h_{l+1} + g_l))^\top               (1)

the machine on top by k steps of contrastive divergence from these states and the label; and with
states s, generated downwards from where these steps have ended, the weights up likewise:

.. math:: \Delta R_l \propto s_l (s_{l+1} - \sigma(R_l^\top s_l + r_l))^\top              (2)

A picture is classified by its probabilities upwards, and then by the free energy that the machine
has with each label in turn. All numbered lines follow the program in the paper's appendix B, except
that the last statistics of the machine on top are of probabilities, which have the same mean.

References:
    Hinton, Osindero & Teh, A fast learning algorithm for deep belief nets, Neural Computation 18,
    2006.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from nnlab.classics.rbm import (
    RBM,
    difference,
    gibbs,
    hidden_probabilities,
    mean_products,
    sample,
)
from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key


class Dense(NamedTuple):
    """Weights [in, out] and biases [out] of sigmoid units."""

    weights: jax.Array
    biases: jax.Array

    def probabilities(self, x: jax.Array) -> jax.Array:
        """Return sigma(x W + b), [batch, out], for x [batch, in]."""
        return jax.nn.sigmoid(x @ self.weights + self.biases)


class DeepBelief(NamedTuple):
    """The parameters of a network.

    Attributes:
        up: recognition, from the picture to the layer below the top.
        down: generation of the same layers, in the same order: `down[0]` makes pictures.
        top: the machine on top; its visible units are the last layer and then the classes.
    """

    up: tuple[Dense, ...]
    down: tuple[Dense, ...]
    top: RBM


def untie(layers: Sequence[RBM], top: RBM) -> DeepBelief:
    """Return the network of greedily trained layers, from the picture up, with tied weights.

    Raises:
        InputError: there is no layer, layers do not fit each other, or the machine on top leaves
            no place for two classes.
    """
    if not layers or len(top.visible) < len(layers[-1].hidden) + 2:
        raise InputError(
            f"{len(layers)} layers were given with a machine of {len(top.visible)} visible units,"
            " expected one layer or more and two classes beyond the last."
        )
    for below, layer in itertools.pairwise(layers):
        if len(layer.visible) != len(below.hidden):
            raise InputError(
                f"a layer of {len(layer.visible)} visible units was given above one of"
                f" {len(below.hidden)} hidden units, expected as many."
            )
    up = tuple(Dense(layer.weights, layer.hidden) for layer in layers)
    down = tuple(Dense(layer.weights.T, layer.visible) for layer in layers)
    return DeepBelief(up, down, top)


def classes_of(dbn: DeepBelief) -> int:
    """Return how many classes the network knows."""
    return len(dbn.top.visible) - len(dbn.up[-1].biases)


def direction(
    key: jax.Array,
    dbn: DeepBelief,
    images: jax.Array,
    targets: jax.Array,
    steps: jax.typing.ArrayLike = 1,
) -> DeepBelief:
    """Return where (1), (2) and contrastive divergence would have the parameters go.

    Args:
        key: of all states that are drawn.
        dbn: the network.
        images: [batch, pixels], from 0 to 1.
        targets: [batch, classes], a 1 for the class of each.
        steps: of contrastive divergence; it may be traced.

    Raises:
        InputError: images and targets do not fit the network.
    """
    check_key(key)
    check_shape("images", images, (len(images), len(dbn.up[0].weights)))
    check_shape("targets", targets, (len(images), classes_of(dbn)))
    classes, keys = classes_of(dbn), iter(jax.random.split(key, 2 * len(dbn.up) + 1))
    wake = [images]
    for layer in dbn.up:
        wake.append(sample(next(keys), layer.probabilities(wake[-1])))
    down = tuple(
        _delta(layer, above, below)
        for layer, below, above in zip(dbn.down, wake, wake[1:], strict=False)
    )

    visible = jnp.concatenate([wake[-1], targets], axis=1)
    hidden = hidden_probabilities(dbn.top, visible)
    model = gibbs(next(keys), dbn.top, hidden, steps, classes)
    top = difference(mean_products(visible, hidden), mean_products(*model))

    sleep = [model[0][:, :-classes]]
    for layer in reversed(dbn.down):
        sleep.append(layer.probabilities(sleep[-1]))
        if len(sleep) <= len(dbn.down):  # a picture stays as its probabilities
            sleep[-1] = sample(next(keys), sleep[-1])
    sleep.reverse()
    up = tuple(
        _delta(layer, below, above)
        for layer, below, above in zip(dbn.up, sleep, sleep[1:], strict=False)
    )
    return DeepBelief(up, down, top)


def _delta(layer: Dense, given: jax.Array, wanted: jax.Array) -> Dense:
    errors = wanted - layer.probabilities(given)
    return Dense(given.T @ errors / len(given), errors.mean(0))


def epoch(
    key: jax.Array,
    dbn: DeepBelief,
    velocity: DeepBelief,
    images: jax.Array,
    labels: jax.Array,
    *,
    steps: jax.typing.ArrayLike,
    learning_rate: jax.typing.ArrayLike,
    momentum: jax.typing.ArrayLike = 0.0,
    batch_size: int = 100,
) -> tuple[DeepBelief, DeepBelief]:
    """Go once through the pictures in random order; return parameters and their velocity.

    Args:
        key: of the order, and of all states that are drawn.
        dbn: the network.
        velocity: of its parameters, zeros at first.
        images: [examples, pixels], from 0 to 1.
        labels: [examples], integers.
        steps: of contrastive divergence in the machine on top.
        learning_rate: factor of `direction`.
        momentum: factor of the velocity before.
        batch_size: examples of a batch; those that do not fill a last one are left out.

    Raises:
        InputError: images and labels differ in number, do not fit the network or fill no batch, or
            there are no steps.
    """
    check_count("batch_size", batch_size)
    check_shape("labels", labels, (len(images),))
    if len(images) < batch_size:
        raise InputError(f"{len(images)} images were given, expected at least {batch_size}.")
    _check_labels(labels, classes_of(dbn))
    if not isinstance(steps, Tracer):
        check_count("steps", steps)
    return _epoch(
        *(key, dbn, velocity, images, labels, steps, learning_rate, momentum), batch_size=batch_size
    )


@functools.partial(jax.jit, static_argnames="batch_size")
def _epoch(key, dbn, velocity, images, labels, steps, learning_rate, momentum, *, batch_size):
    ordered, drawn = jax.random.split(key)
    count = len(images) // batch_size
    order = jax.random.permutation(ordered, len(images))[: count * batch_size]

    def step(carry, item):
        dbn, velocity = carry
        number, places = item
        targets = jax.nn.one_hot(labels[places], classes_of(dbn))
        key = jax.random.fold_in(drawn, number)
        change = direction(key, dbn, images[places], targets, steps)
        velocity = jax.tree.map(lambda u, g: momentum * u + learning_rate * g, velocity, change)
        return (jax.tree.map(jnp.add, dbn, velocity), velocity), None

    batches = jnp.arange(count), order.reshape(count, batch_size)
    return lax.scan(step, (dbn, velocity), batches)[0]


@jax.jit
def log_odds(dbn: DeepBelief, images: jax.Array) -> jax.Array:
    """Return the logits of the classes of images [batch, pixels], [batch, classes].

    They are the negative free energies of the machine on top with each label in turn, but for what
    all of them share.

    Raises:
        InputError: the images do not fit the network.
    """
    check_shape("images", images, (len(images), len(dbn.up[0].weights)))
    for layer in dbn.up:
        images = layer.probabilities(images)

    units = len(dbn.up[-1].biases)
    fields = dbn.top.hidden + images @ dbn.top.weights[:units]  # whatever the label

    def with_label(label):
        bias, weights = label
        return bias + jnp.sum(jax.nn.softplus(fields + weights), axis=-1)

    return lax.map(with_label, (dbn.top.visible[units:], dbn.top.weights[units:])).T


def imagine(key: jax.Array, dbn: DeepBelief, labels: jax.Array, steps: int = 1000) -> jax.Array:
    """Return pictures [batch, pixels] that the network makes of labels, integers [batch].

    The machine on top is sampled with the label held, from a random state, and a picture is then
    generated downwards.

    Raises:
        InputError: there are no steps, or the network does not know a label.
    """
    check_key(key)
    check_count("steps", steps)
    labels = jnp.asarray(labels)
    check_shape("labels", labels, (labels.size,))
    _check_labels(labels, classes_of(dbn))
    classes, units = classes_of(dbn), len(dbn.up[-1].biases)
    targets = jax.nn.one_hot(labels, classes)
    first, drawn, last = jax.random.split(key, 3)

    def step(number, below):
        key = jax.random.fold_in(drawn, number)
        up, down = jax.random.split(key)
        hidden = hidden_probabilities(dbn.top, jnp.concatenate([below, targets], axis=1))
        fields = dbn.top.visible[:units] + sample(up, hidden) @ dbn.top.weights[:units].T
        return sample(down, jax.nn.sigmoid(fields))

    below = jax.random.bernoulli(first, 0.5, (len(labels), units)).astype(jnp.float32)
    below = lax.fori_loop(0, steps, step, below)
    for number, layer in reversed(list(enumerate(dbn.down))):
        shares = layer.probabilities(below)
        below = sample(jax.random.fold_in(last, number), shares) if number else shares
    return below


def _check_labels(labels: jax.Array, classes: int) -> None:
    """Raise `InputError` unless labels, if they are known, are classes; others are of none."""
    if isinstance(labels, Tracer) or not labels.size:
        return
    least, most = labels.min(), labels.max()
    if not (least >= 0 and most < classes):
        raise InputError(f"labels go from {least} to {most}, expected 0 to {classes - 1}.")
