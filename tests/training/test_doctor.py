"""Networks that cannot learn, each with its fault, and the zoo, which has none."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import models, training
from nnlab.arithmetics import ADDER, BINARY, FLOAT, NAMED, XNOR
from nnlab.models import ZOO, SmallCNN
from nnlab.training.doctor import diagnose

IMAGES = np.random.default_rng(0).normal(size=(12, 6, 6, 2)).astype(np.float32)
LABELS = np.arange(12) % 4


class Network(nn.Module):
    """Two layers and a classifier of 4 classes; options put a fault into it."""

    first: Any = FLOAT.conv
    second: Any = FLOAT.conv
    classifier: Any = FLOAT.dense
    between: Any = nn.relu
    normalized: bool = True
    momentum: float = 0.9
    frozen_statistics: bool = False
    end: Any = staticmethod(lambda x: x)

    @nn.compact
    def __call__(self, x, train: bool = False):
        for layer in (self.first, self.second):
            x = layer(8, (3, 3))(x)
            if self.normalized:
                running = self.frozen_statistics or not train
                x = nn.BatchNorm(running, momentum=self.momentum)(x)
            x = self.between(x)
        return self.end(self.classifier(4)(x.reshape(len(x), -1)))


class Unused(nn.Module):
    """A parameter that the outputs do not depend on."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        nn.Dense(3, name="forgotten")(x)
        return Network()(x, train)


class Spare(Unused):
    """The same, which says so."""

    idle_parameters = ("forgotten",)


def constant(*shape):
    return nn.initializers.constant(*shape)


def dense(**options):
    return lambda features: nn.Dense(features, **options)


def hard_sign(x):
    return jnp.sign(x)


FAULTS = {
    "binary after a ReLU": (Network(second=BINARY.conv), "BinaryConv_0", "never negative"),
    "binary with scales after a ReLU": (Network(second=XNOR.conv), "ProductConv_0", "multiples"),
    "adders without a normalisation before a ReLU": (
        Network(ADDER.conv, ADDER.conv, normalized=False),
        "AdderConv_1",
        "AdderConv_0 gives no positive number",
    ),
    "adders without a normalisation": (
        Network(ADDER.conv, ADDER.conv, ADDER.dense, between=lambda x: x, normalized=False),
        "AdderDense_0",
        "around -984.3 that differ by 65",
    ),
    "biases that kill a ReLU": (
        Network(lambda n, size: nn.Conv(n, size, bias_init=constant(-99.0)), normalized=False),
        "Conv_1",
        "same input for every example",
    ),
    "statistics that lag": (Network(momentum=0.999), "BatchNorm_0", "90 % of its first statistics"),
    "statistics that stand still": (
        Network(frozen_statistics=True),
        "BatchNorm_0",
        "does not take the statistics",
    ),
    "a layer without effect": (Unused(), "forgotten/bias and 1 more", "get no gradient"),
    "an activation without a slope": (Network(between=hard_sign), "", "no gradient"),
    "held features": (Network(between=jax.lax.stop_gradient), "", "no gradient"),
    "a saturated sigmoid": (
        Network(lambda n, size: nn.Conv(n, size, bias_init=constant(200.0)), normalized=False,
                between=nn.sigmoid),
        "Conv_1",
        "same input for every example",
    ),
    "equal filters": (
        Network(classifier=dense(kernel_init=constant(0.1)),
                second=lambda n, size: nn.Conv(n, size, kernel_init=constant(0.1))),
        "Conv_1/kernel",
        "same filter",
    ),
    "logits of thousands": (
        Network(classifier=dense(kernel_init=nn.initializers.normal(50.0))),
        "The network",
        "where a guess has 1.39",
    ),
    "a softmax before the loss": (Network(end=nn.softmax), "The network", "probabilities"),
    "a weight of NaN": (
        Network(classifier=dense(bias_init=constant(jnp.nan))), "Dense_0/bias", "not finite"
    ),
    "a logarithm of nothing": (
        Network(between=lambda x: jnp.log(x * 0)), "Conv_1", "gets numbers that are not finite"
    ),
    "a constant network": (Network(end=lambda x: x * 0 + 1), "The network", "the same for every"),
}  # fmt: skip


def faults_of(model, inputs: Any = IMAGES, labels=LABELS):
    variables = jax.jit(model.init)(jax.random.key(0), inputs)
    return diagnose(model, variables, (inputs, labels))


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_named(name):
    model, where, what = FAULTS[name]
    found = faults_of(model)
    assert found and where in found[0].where and what in str(found[0]), found


def test_data_as_they_are_in_files():
    assert "go from 1 to 4, those of 4 outputs from 0 to 3" in str(
        faults_of(Network(), IMAGES, LABELS + 1)[0]
    )
    assert "standardise them" in str(faults_of(Network(), (IMAGES * 9 + 99).astype(np.uint8))[0])


def after_a_step(model, inputs, labels, loss=training.cross_entropy):
    """What is found before and after a step of the model's."""
    optimizer = optax.sgd(1e-4)
    state = training.init(jax.random.key(0), model, optimizer, inputs)
    step = training.train_step(model, optimizer, loss, metrics=lambda outputs, labels: {})
    state, _ = jax.jit(step)(state, (inputs, labels))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return step.diagnose(variables, (inputs, labels))  # pyright: ignore[reportFunctionMemberAccess]


def test_what_is_idle_by_design_is_passed_over():
    assert faults_of(Spare()) == []


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "adder" else pytest.mark.slow) for n in NAMED]
)
def test_every_arithmetic_is_silent(name):
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)
    assert after_a_step(SmallCNN(arithmetic=NAMED[name]), images, np.arange(16) % 10) == []


SHALLOW = {
    models.CifarResNet: {"depth": 8},
    models.PlainNet: {"layers": 1},
    models.ResNet: {"stage_sizes": (1, 1)},
    models.VisionTransformer: {"layers": 1},
    models.GPT2: {"layers": 1, "symbols": 10, "features": 48},
    models.Llama: {"layers": 1, "symbols": 10, "features": 48, "hidden": 64, "heads": 4},
    models.MatMulFreeLM: {"layers": 2, "symbols": 10, "features": 48},
    models.BertClassifier: {"layers": 1, "symbols": 10, "features": 48},
}
KINDS = {entry.kind: entry for entry in reversed(ZOO.values())}
# Detectors give trees and learn by losses of their own, as tests/vision/detection has them do.
KINDS = {k: e for k, e in KINDS.items() if not k.__module__.startswith("nnlab.vision.detection")}


def squared(outputs, labels):
    return jnp.square(outputs - labels).mean()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_network_of_the_zoo_is_silent(kind):
    entry, rng = KINDS[kind], np.random.default_rng(0)
    make = functools.partial(kind, **SHALLOW[kind]) if kind in SHALLOW else entry.make
    model, shape = make(), entry.shape
    if len(shape) == 3 and shape[0] > 200:
        shape = (96, 96, 3)
    if kind is models.GPT2:
        shape = (64,)
    inputs = rng.normal(size=(4, *shape)).astype(np.float32)
    if entry.dtype == jnp.int32:
        inputs = rng.integers(0, 10, inputs.shape, np.int32)
    outputs = jax.eval_shape(model.init_with_output, jax.random.key(0), inputs)[0]
    labels: Any = rng.integers(0, min(10, outputs.shape[-1]), outputs.shape[:-1])
    loss: Any = training.cross_entropy
    floats = outputs.ndim != 2 and entry.dtype == jnp.float32  # images, or a critic's numbers
    if floats or kind is models.AutoEncoder:
        labels = rng.normal(size=outputs.shape).astype(np.float32)
        loss = squared
    assert after_a_step(model, inputs, labels, loss) == []
