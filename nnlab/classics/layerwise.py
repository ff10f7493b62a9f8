r"""Greedy pre-training: one layer after the other, each on what those below make of the data.

A layer of parameters p follows its rule's gradient g, contrastive divergence for a deep belief
network and denoising for a stacked auto-encoder, with momentum m and decay lambda of its weights:

.. math:: u \leftarrow m u + \eta (g - \lambda W), \quad p \leftarrow p + u               (1)

Published for machines of bits are a rate of 0.1, momentum 0.5 for five epochs and 0.9 after them,
and decay 0.0002, on batches of 100. The probabilities of its hidden units are then the data of the
next layer. Turned into a network of sigmoid units, with a classifier on top, all layers are trained
by their labels: what has been learned without any is only where that begins.

References:
    Hinton & Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313,
    2006, with supplement. Bengio, Lamblin, Popovici & Larochelle, Greedy layer-wise training of
    deep networks, NIPS 2006.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from nnlab.classics.rbm import RBM, hidden_probabilities, start
from nnlab.data.batches import check_shape
from nnlab.errors import InputError, check_count
from nnlab.ops.keys import check_key
from nnlab.optim.values import check_number

Rule = Callable[[jax.Array, RBM, jax.Array, jax.Array], tuple[RBM, jax.Array]]
SLOW_EPOCHS = 5  # of momentum 0.5


class Learning(NamedTuple):
    """A layer that learns.

    Attributes:
        params: what it has learned.
        velocity: u of (1).
        chains: states of hidden units that a rule keeps, [batch, hidden].
    """

    params: RBM
    velocity: RBM
    chains: jax.Array


def begin(key: jax.Array, data: jax.Array, hidden: int, batch_size: int) -> Learning:
    """Return a layer of small random weights that has learned nothing yet.

    Args:
        key: draws the weights.
        data: [examples, visible], from 0 to 1; its means start the visible biases.
        hidden: units of the layer.
        batch_size: examples of a batch.

    Raises:
        InputError: the data are not [examples, visible] or not from 0 to 1, or a batch has more
            examples.
    """
    check_count("batch_size", batch_size)
    if data.ndim != 2 or len(data) < batch_size:
        expected = f"[examples, visible] of at least {batch_size} examples"
        raise InputError(f"data have shape {list(data.shape)}, expected {expected}.")
    if data.size and not isinstance(data, Tracer) and not (data.min() >= 0 and data.max() <= 1):
        raise InputError(
            f"data go from {data.min()} to {data.max()}, expected numbers from 0 to 1."
        )
    params = start(key, data.shape[1], hidden, data.mean(0))
    chains = hidden_probabilities(params, data[:batch_size])
    return Learning(params, jax.tree.map(jnp.zeros_like, params), chains)


@functools.partial(jax.jit, static_argnames="rule")
def epoch(
    key: jax.Array,
    learning: Learning,
    data: jax.Array,
    rule: Rule,
    *,
    learning_rate: jax.typing.ArrayLike = 0.1,
    momentum: jax.typing.ArrayLike = 0.9,
    decay: jax.typing.ArrayLike = 2e-4,
) -> Learning:
    """Go once through the data in random order by (1), in one compiled program.

    Args:
        key: draws the order, and what the rule draws.
        learning: the layer; batches are as large as its chains are many.
        data: [examples, visible]; those that do not fill a last batch are left out.
        rule: gives a gradient, such as `nnlab.classics.rbm.CD(1)`; it is hashed.
        learning_rate: eta.
        momentum: m.
        decay: lambda.

    Raises:
        InputError: the data fill no batch.
    """
    ordered, drawn = jax.random.split(key)
    batch_size = len(learning.chains)
    count = len(data) // batch_size
    if not count:
        raise InputError(f"{len(data)} examples were given, expected at least {batch_size}.")
    order = jax.random.permutation(ordered, len(data))[: count * batch_size]

    def step(learning, item):
        number, places = item
        params, velocity, chains = learning
        gradient, chains = rule(jax.random.fold_in(drawn, number), params, data[places], chains)
        gradient = gradient._replace(weights=gradient.weights - decay * params.weights)
        velocity = jax.tree.map(lambda u, g: momentum * u + learning_rate * g, velocity, gradient)
        return Learning(jax.tree.map(jnp.add, params, velocity), velocity, chains), None

    batches = jnp.arange(count), order.reshape(count, batch_size)
    return lax.scan(step, learning, batches)[0]


def train_layer(
    key: jax.Array,
    data: jax.Array,
    hidden: int,
    rule: Rule,
    *,
    epochs: int = 10,
    batch_size: int = 100,
    learning_rate: float = 0.1,
    decay: float = 2e-4,
    falls: bool = False,
    before: tuple[Learning, int] | None = None,
    observe: Callable[[int, Learning], None] = lambda *_: None,
) -> RBM:
    """Train one layer, with momentum 0.5 and then 0.9.

    Args:
        key: of everything that is drawn.
        data: [examples, visible], from 0 to 1.
        hidden: units of the layer.
        rule, learning_rate, decay: as for `epoch`.
        epochs: passes through the data.
        batch_size: examples of a batch.
        falls: whether the rate falls evenly from epoch to epoch, towards 0 after the last.
        before: a layer that `observe` was given, and its number of epochs, to go on from; by
            default it begins anew.
        observe: called with the number of epochs done, and the layer, after each.

    Raises:
        InputError: there are no epochs, a rate or decay is no finite number from 0 on, or as for
            `begin`.
    """
    check_key(key)
    check_count("epochs", epochs)
    check_number("learning_rate", learning_rate)
    check_number("decay", decay)
    if before is None:
        before = begin(jax.random.fold_in(key, 0), data, hidden, batch_size), 0
    learning, first = before
    for done in range(first + 1, epochs + 1):
        rate = learning_rate * (1 - (done - 1) / epochs) if falls else learning_rate
        momentum = 0.5 if done <= SLOW_EPOCHS else 0.9
        options = {"learning_rate": rate, "momentum": momentum, "decay": decay}
        learning = epoch(jax.random.fold_in(key, done), learning, data, rule, **options)
        observe(done, learning)
    return learning.params


def pretrain(
    key: jax.Array, data: jax.Array, widths: Sequence[int], rule: Rule, **options: Any
) -> list[RBM]:
    """Train a layer for each width, from the data up.

    Args:
        key: of everything that is drawn.
        data: [examples, visible], from 0 to 1.
        widths: units of the layers, from the data up.
        rule: learns each layer.
        options: of `train_layer`.

    Raises:
        InputError: there is no width, or as for `train_layer`.
    """
    if not isinstance(widths, Iterable) or not len(widths):
        raise InputError(f"widths are {widths!r}, expected the units of one layer or more.")
    for hidden in widths:
        check_count("each of widths", hidden)
    layers = []
    for number, hidden in enumerate(widths):
        layers.append(train_layer(jax.random.fold_in(key, number), data, hidden, rule, **options))
        data = jax.jit(hidden_probabilities)(layers[-1], data)
    return layers


def unroll(layers: Sequence[RBM], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's parameters with the weights and hidden biases of pre-trained layers.

    Args:
        layers: from the data up.
        params: of `nnlab.classics.mlp.MLP(norm=False, activation=jax.nn.sigmoid)`, whose layer n
            is `dense<n>`; the classifier, and layers beyond those given, stay as they are.

    Raises:
        InputError: the network has no layer that takes these weights.
    """
    new = dict(params)
    for number, layer in enumerate(layers, 1):
        name = f"dense{number}"
        before = dict(params.get(name, {}))
        if not {"kernel", "bias"} <= before.keys():
            raise InputError(
                f"the network has no weights {name} with a bias, expected one a layer."
            )
        check_shape(f"weights {name}", layer.weights, before["kernel"].shape)
        new[name] = before | {"kernel": layer.weights, "bias": layer.hidden}
    return new
