r"""Progressive kernel-based distillation (PKKD): an adder network learns from a CNN beside it.

Student and teacher have the same architecture in two arithmetics and train together, so the student
follows a teacher that is never far ahead. Their convolutions give distances and inner products,
which cannot be compared directly. Kernels map both into one space, for the i-th convolution

.. math:: h_i = \rho_i(e^{-\|x - f\|_1 / 2 \sigma_i^2}), \qquad
          t_i = \tau_i(e^{-\langle x, f \rangle / 2 \varsigma_i^2})                    (1)

with 1×1 convolution, BatchNorm and ReLU as :math:`\rho_i` and :math:`\tau_i`. The losses are

.. math:: L_{mid} = \sum_i \mathrm{mean}\,(h_i - t_i)^2, \qquad
          L_{blend} = (1 - a)\,H(y, s) + a\,T^2 H(q_T, s_T),                           (2)
.. math:: L = \beta L_{mid} + L_{blend} + H(y, q)                                      (3)

for labels y, probabilities s of the student and q of the teacher (at temperature T where T is the
subscript), and the cross-entropy H. The teacher learns from the last term alone; in the other two
it is a constant.

At first a distance is about as large as the number K of its terms, and exp(-K) is 0 in float32 for
K above 100. Widths are therefore learnt relative to a fixed scale, :math:`2 \sigma^2 = K e^u` for
distances and :math:`2 \varsigma^2 = \sqrt K e^u` for products. u starts at 0, to which weight decay
also pulls it.

    model = Distillation(resnet20(arithmetic=ADDER), resnet20())
    optimizer = adder_recipe(steps)
    state = training.init(key, model, optimizer, images)
    step = train_step(model, optimizer, distillation_loss(), metrics=student_accuracy)
    evaluate = training.evaluation(model)  # of the student alone

The student's own variables are then `state.params["student"]` and `state.batch_stats["student"]`.

References:
    Xu et al., Kernel Based Progressive Distillation for Adder Neural Networks, NeurIPS 2020,
    https://arxiv.org/abs/2009.13044. The defaults of alpha, beta and temperature are ours, not
    the paper's.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from nnlab.data.batches import check_shape
from nnlab.errors import InputError
from nnlab.layers import Conv
from nnlab.layers.normalization import batch_norm
from nnlab.training.losses import cross_entropy
from nnlab.training.steps import Metrics, accuracy


class Outputs(NamedTuple):
    """The outputs of student and teacher, as `distillation_loss` compares them.

    Attributes:
        student, teacher: logits [batch, classes].
        distance: L_mid of (2), the scalar distance between the intermediate maps.
    """

    student: jax.Array
    teacher: jax.Array
    distance: jax.Array


class Distillation(nn.Module):
    """A student and its teacher: images [batch, height, width, channels] to `Outputs`.

    Outside of training the result is the student's logits [batch, classes]. Both are models of the
    same architecture, called as `model(images, train)`, without `remat`. Each adder convolution of
    the student, with weights `adder_kernel`, is compared with the teacher's convolution in the same
    place, with weights `kernel`.

    Raises:
        InputError: the student has no adder convolution, or the teacher's are not convolutions with
            a `kernel` and outputs of the same shapes.
    """

    student: nn.Module
    teacher: nn.Module
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Any:
        if not train and not self.is_initializing():
            return self.student(images, train=False)
        student, distances = _recorded(self.student, images, train)
        teacher, products = _recorded(self.teacher, images, train)
        _check(distances, products)
        total = jnp.zeros((), jnp.float32)
        for distance, product in zip(distances, products, strict=True):
            if distance.weights == _ADDER:
                terms = distance.terms
                h = _Kernel(terms, self.axis_name)(distance.output, train)
                t = _Kernel(math.sqrt(terms), self.axis_name)(
                    -lax.stop_gradient(product.output), train
                )
                total += jnp.mean(jnp.square(h - t))
        return Outputs(student, teacher, total)


def distillation_loss(
    alpha: float = 0.5, beta: float = 1.0, temperature: float = 1.0
) -> Callable[[Outputs, jax.Array], jax.Array]:
    """Return the loss (3) of `Outputs` against integer labels [batch], a mean over the batch.

    Args:
        alpha: weight of the teacher's probabilities against the labels, from 0 to 1.
        beta: weight of the distance between intermediate maps.
        temperature: divides both networks' logits in the cross-entropy against the teacher.

    Raises:
        InputError: an argument is negative, alpha above 1 or temperature 0; or, when the loss is
            called, shapes differ.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be from 0 to 1, not {alpha}.")
    if not beta >= 0:
        raise InputError(f"beta must be at least 0, not {beta}.")
    if not temperature > 0:
        raise InputError(f"temperature must be above 0, not {temperature}.")

    def loss(outputs: Outputs, labels: jax.Array) -> jax.Array:
        check_shape("the teacher's logits", outputs.teacher, outputs.student.shape)
        taught = jax.nn.softmax(lax.stop_gradient(outputs.teacher) / temperature)
        soft = optax.softmax_cross_entropy(outputs.student / temperature, taught).mean()
        hard = cross_entropy(outputs.student, labels)
        blend = (1 - alpha) * hard + alpha * temperature**2 * soft  # (2)
        return beta * outputs.distance + blend + cross_entropy(outputs.teacher, labels)  # (3)

    return loss


def student_accuracy(outputs: Outputs, labels: jax.Array) -> Metrics:
    """Return {"accuracy"}, that of the student."""
    return accuracy(outputs.student, labels)


class _Kernel(nn.Module):
    """The kernel (1) of exponents [batch, height, width, features] of typical size `scale`."""

    scale: float
    axis_name: str | None

    @nn.compact
    def __call__(self, exponents: jax.Array, train: bool) -> jax.Array:
        width = self.scale * jnp.exp(
            self.param("log_width", nn.initializers.zeros, (), jnp.float32)
        )
        y = jnp.exp(exponents.astype(jnp.float32) / width)
        y = Conv(y.shape[-1], (1, 1))(y)
        return nn.relu(batch_norm(train, axis_name=self.axis_name)(y))


_ADDER, _FLOAT = "adder_kernel", "kernel"


class _Record(NamedTuple):
    """One call of a convolution: the name of its weights, its output, and the terms of each sum."""

    weights: str
    output: jax.Array
    terms: int


def _recorded(
    network: nn.Module, images: jax.Array, train: bool
) -> tuple[jax.Array, list[_Record]]:
    """Return the outputs of `network`, and its convolutions in the order of their calls."""
    records = []

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            own = context.module.variables.get("params", {})
            kernels = [k for k in own if k.endswith("kernel") and jnp.ndim(own[k]) > 2]
            if kernels:  # the adder's, if a layer has several
                name = min(kernels, key=lambda k: k != _ADDER)
                records.append(_Record(name, output, math.prod(own[name].shape[:-1])))
        return output

    with nn.intercept_methods(record):
        return network(images, train=train), records


def _check(distances: list[_Record], products: list[_Record]) -> None:
    if not any(record.weights == _ADDER for record in distances):
        raise InputError("Distillation needs a student with adder convolutions, not one without.")
    shapes = [[record.output.shape for record in records] for records in (distances, products)]
    if shapes[0] != shapes[1]:
        raise InputError(
            "Distillation needs student and teacher of one architecture, not convolutions that "
            f"give {shapes[0]} and {shapes[1]}."
        )
    if strange := [r.weights for r in products if r.weights != _FLOAT]:
        raise InputError(
            f"Distillation needs a teacher whose convolutions have a kernel, not {strange[0]}."
        )
