"""What the playground's controls describe, as nnlab builds it: network, optimiser, loss.

The page and Python read the same `Settings`; what the page computes is printed from the modules
that are built here (`nnlab.playground.functions`), and a network that the page has saved goes on in
nnlab (`nnlab.playground.saved`).

A hidden layer is a product in its arithmetic, BatchNorm where that arithmetic needs it, a bias
(BatchNorm's own, if there is one) and an activation. The last layer has no BatchNorm. Gradients of
adder kernels are rescaled by `nnlab.optim.adder_rate`, and latent weights of signs are kept in
[-1, 1], whatever the optimiser is. Biases are not regularised.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nnlab import arithmetics
from nnlab.arithmetics import Arithmetic
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.optim import adder_rate, clip_latent_weights, labels

ARITHMETICS: dict[str, Arithmetic] = {
    "float": arithmetics.FLOAT,
    "adder": arithmetics.ADDER,
    "binary": arithmetics.BINARY,
    "ternary": arithmetics.TERNARY,
    "shift": arithmetics.SHIFT_Q,
    "posit8": arithmetics.POSIT8,
}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "hard_tanh": nn.hard_tanh,
    "linear": lambda x: x,
}
OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.9),
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
}
DATA = ("circle", "xor", "gauss", "spiral", "plane", "hills", "own")
REGRESSION = ("plane", "hills")
STARTS = ("random", "zeros")
FEATURES = ("x1", "x2", "x1^2", "x2^2", "x1x2", "sin2x1", "sin2x2")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A hidden layer: units, and names of an arithmetic and an activation."""

    arithmetic: str = "float"
    units: int = 4
    activation: str = "tanh"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that the page's address says.

    Attributes:
        data, classes, noise, points, share: the data set, its classes (2 to 4), its noise in
            percent, the number of points and how many percent of them are for training.
        seed: of the data, the initial weights and the order of the points.
        inputs: names out of `FEATURES`.
        layers: the hidden layers.
        last, output: arithmetic and activation of the last layer.
        start: "random" weights, as `nnlab.playground.data.start` draws them, or "zeros".
        norm: whether BatchNorm follows hidden layers whose arithmetic needs it.
        loss: "cross_entropy" or "squared".
        optimizer, rate, batch: name, learning rate and batch size.
        l1, l2: factors of the sums of |w| and of w²/2 over all weights but biases.
    """

    data: str = "circle"
    classes: int = 2
    noise: int = 0
    points: int = 400
    share: int = 50
    seed: int = 1
    inputs: tuple[str, ...] = ("x1", "x2")
    layers: tuple[Layer, ...] = (Layer(units=4), Layer(units=2))
    last: str = "float"
    output: str = "linear"
    start: str = "random"
    norm: bool = True
    loss: str = "cross_entropy"
    optimizer: str = "sgd"
    rate: float = 0.1
    batch: int = 10
    l1: float = 0.0
    l2: float = 0.0

    @property
    def outputs(self) -> int:
        """The number of outputs: one a class, or one number."""
        return 1 if self.data in REGRESSION else self.classes

    def check(self) -> None:
        """Raise an `InputError` for what the page does not have."""
        layers = [("arithmetic", each.arithmetic, ARITHMETICS) for each in self.layers]
        layers += [("activation", each.activation, ACTIVATIONS) for each in self.layers]
        for name, value, known in (
            ("data", self.data, DATA),
            *(("inputs", each, FEATURES) for each in self.inputs),
            *layers,
            ("last", self.last, ARITHMETICS),
            ("output", self.output, ACTIVATIONS),
            ("start", self.start, STARTS),
            ("loss", self.loss, LOSSES),
            ("optimizer", self.optimizer, OPTIMIZERS),
        ):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, not {value!r}.")
        for name, low, high in (
            *(("classes", 2, 4), ("noise", 0, 50), ("points", 2, 2000), ("share", 10, 90)),
            *(("batch", 1, 2000), ("seed", 0, 2**32 - 1)),
        ):
            value = getattr(self, name)
            if not (isinstance(value, int) and low <= value <= high):
                raise InputError(f"{name} must be an integer from {low} to {high}, not {value!r}.")
        if self.data in REGRESSION and self.loss != "squared":
            raise InputError(f"A regression has the loss 'squared', not {self.loss!r}.")
        if not self.inputs or any(not 1 <= each.units <= 16 for each in self.layers):
            raise InputError("A network needs an input or more, and 1 to 16 units in each layer.")


class Network(nn.Module):
    """Map inputs [batch, features] to outputs [batch, outputs]."""

    layers: tuple[Layer, ...]
    outputs: int
    last: str = "float"
    output: str = "linear"
    norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for number, layer in enumerate(self.layers, 1):
            arithmetic = ARITHMETICS[layer.arithmetic]
            normed = self.norm and arithmetic.needs_norm
            x = arithmetic.dense(layer.units, use_bias=not normed, name=f"layer{number}")(x)
            if normed:
                x = batch_norm(train, name=f"norm{number}")(x)
            x = ACTIVATIONS[layer.activation](x)
        name = f"layer{len(self.layers) + 1}"
        x = ARITHMETICS[self.last].dense(self.outputs, use_bias=True, name=name)(x)
        return ACTIVATIONS[self.output](x)


def network(settings: Settings) -> Network:
    """Build the network."""
    return Network(settings.layers, settings.outputs, settings.last, settings.output, settings.norm)


def squared(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return half the sum of squared errors over outputs, a mean over [batch, outputs]."""
    return optax.l2_loss(outputs, targets).sum(-1).mean()


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy in nats, a mean over [batch, classes]; targets one-hot.

    It is `nnlab.training.cross_entropy` with the labels written as vectors.
    """
    return optax.softmax_cross_entropy(outputs, targets).mean()


LOSSES = {"cross_entropy": cross_entropy, "squared": squared}


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """Build the optimiser, with a part for each kind of weights."""
    base = OPTIMIZERS[settings.optimizer]

    def regularized(updates, params):
        def of(kind, g, w):
            return g if kind == "bias" else regularize(g, w, settings.l1, settings.l2)

        return jax.tree.map(of, _kinds(params), updates, params)

    parts: dict[Hashable, optax.GradientTransformation] = {
        "bias": base(settings.rate),
        "float": base(settings.rate),
        "adder": optax.chain(adder_rate(), base(settings.rate)),
        "binary": optax.chain(base(settings.rate), clip_latent_weights()),
    }
    return optax.chain(optax.stateless(regularized), optax.partition(parts, _kinds))


def regularize(g: jax.Array, w: jax.Array, l1: Any, l2: Any) -> jax.Array:
    """Return the gradient `g` of `w` plus those of l1 times |w| and l2 times w²/2."""
    return g + l1 * jnp.sign(w) + l2 * w


def kernel_name(arithmetic: str) -> str:
    """Return the name of a layer's weights."""
    layer: Any = ARITHMETICS[arithmetic].dense(1)
    return getattr(layer, "kernel_name", "kernel")


def _kinds(params: Any) -> Any:
    """The kind of each leaf, as `nnlab.optim.labels`, but "bias" for all that is no kernel."""

    def kind(path, label):
        return label if str(path[-1].key).endswith("kernel") else "bias"

    return jax.tree_util.tree_map_with_path(kind, labels(params))
