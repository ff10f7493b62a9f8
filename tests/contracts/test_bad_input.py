"""What users give in place of what is meant is said in one sentence, before anything compiles."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import layers, training, vision
from nnlab.arithmetics import ADDER
from nnlab.classics.hopfield import recall
from nnlab.classics.mlp import MLP
from nnlab.classics.perceptron import perceptron
from nnlab.errors import InputError
from nnlab.models import ZOO, SmallCNN
from nnlab.networks import Network
from nnlab.ops.binary import stochastic_binary_weights
from nnlab.ops.binary_connect import stochastic_binary_connect_conv
from nnlab.ops.dorefa import dorefa_conv, quantize_gradient
from nnlab.ops.pooling import stochastic_pool
from nnlab.runs.evaluating import Examination
from nnlab.sequences import algorithmic_tasks, generation
from nnlab.training import State
from nnlab.vision import augment

IMAGES: Any = np.ones((4, 6, 6, 1), np.float32)
LABELS: Any = np.arange(4)
KERNEL = jnp.ones((3, 3, 1, 2))
NOTHING: Any = None


def sentence(action, *parts):
    with pytest.raises(InputError) as raised:
        action()
    said = str(raised.value)
    assert "\n" not in said and all(part in said for part in parts), said


TAKE_KEYS = {
    "init": lambda key: training.init(key, MLP(), optax.sgd(0.1), IMAGES),
    "random_crop": lambda key: augment.random_crop(key, IMAGES),
    "random_flip": lambda key: augment.random_flip(key, IMAGES),
    "random_crop_and_flip": lambda key: augment.random_crop_and_flip(key, IMAGES),
    "cutout": lambda key: augment.cutout(key, IMAGES, 2),
    "mixup": lambda key: vision.mixup(key, IMAGES, LABELS, classes=10),
    "cutmix": lambda key: vision.cutmix(key, IMAGES, LABELS, classes=10),
    "rand_augment": lambda key: vision.rand_augment(key, IMAGES),
    "random_resized_crop": lambda key: vision.random_resized_crop(key, IMAGES),
    "recall": lambda key: recall(key, jnp.eye(2), jnp.ones(2)),
    "perceptron": lambda key: perceptron(jnp.ones((2, 2)), jnp.ones(2), 1, key=key),
    "stochastic_pool": lambda key: stochastic_pool(key, IMAGES),
    "stochastic_binary_weights": lambda key: stochastic_binary_weights(key, KERNEL),
    "binary_connect": lambda key: stochastic_binary_connect_conv(IMAGES, KERNEL, key=key),
    "dorefa_conv": lambda key: dorefa_conv(IMAGES, KERNEL, key=key),
    "quantize_gradient": lambda key: quantize_gradient(key, IMAGES, 2),
    "draw": lambda key: generation.draw(key, jnp.ones((2, 3))),
    "decode": lambda key: generation.decode(MLP(), {}, key, NOTHING, 2),
    **{
        name: lambda key, name=name: getattr(algorithmic_tasks, name)(key, 2)
        for name in (
            *("copy", "repeat_copy", "associative_recall", "ngrams"),
            *("priority_sort", "binary_addition"),
        )
    },
}


@pytest.mark.parametrize("name", TAKE_KEYS)
def test_a_number_in_place_of_a_key(name):
    sentence(lambda: TAKE_KEYS[name](7), "key is 7, expected a random key, jax.random.key(7).")
    keys = jax.random.split(jax.random.key(0))
    sentence(lambda: TAKE_KEYS[name](keys), "key is keys of shape [2], expected a random key")


def test_old_keys_are_keys():
    augment.random_flip(jax.random.PRNGKey(0), IMAGES)


SIZES = {"classes", "outputs", "symbols", "events", "features", "hidden", "width", "layers"}

# One row of the zoo for each class.
KINDS = {entry.kind: entry for entry in ZOO.values()}


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetics_and_sizes_of_a_model(kind):
    assert issubclass(kind, Network)
    made: Any = KINDS[kind].make()
    make, options = made.clone, KINDS[kind].options
    for name in options & {"arithmetic", "first", "classifier"}:
        sentence(lambda name=name: make(**{name: "adder"}), f"{name} is 'adder'", "NAMED['adder']")
    sentence(lambda: make(arithmetic=nn.Dense), "arithmetic is", "such as ADDER")
    for name in options & SIZES:
        for size in (0, -3, 2.5, True, "10"):
            sentence(
                lambda name=name, size=size: make(**{name: size}),
                f"{name} must be an integer of at least 1, not {size!r}.",
            )


@pytest.mark.parametrize(
    "make",
    [
        lambda wrong: layers.GroupedConv(wrong, 2, 4, 3),
        lambda wrong: layers.ConvTranspose(wrong, 4, 3),
        lambda wrong: layers.Maxout(4, dense=wrong),
        lambda wrong: layers.LSTMCell(4, dense=wrong),
    ],
)
def test_makers_of_layers(make):
    sentence(lambda: make("adder"), "'adder', expected what makes a layer, such as nnlab.arith")
    sentence(lambda: make(ADDER), "expected what makes a layer, such as nnlab.arithmetics.ADDER.")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ("images.npy", "is the text 'images.npy', expected an array of numbers"),
        (np.array(["a", "b"]), "holds <U1, expected numbers"),
        ({"image": IMAGES}, "MLP does not take inputs that are a dict"),
        ((IMAGES, IMAGES), "MLP does not take inputs that are a tuple"),
    ],
)
def test_inputs(inputs, said):
    sentence(lambda: training.init(jax.random.key(0), MLP(), optax.sgd(0.1), inputs), said)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("sgd", "optimizer is 'sgd'; expected an optax transformation, such as optax.sgd(0.1)"),
        (0.1, "optimizer is 0.1;"),
        (optax.sgd, "optimizer is the function sgd, not yet called;"),
    ],
)
def test_optimizers(optimizer, said):
    sentence(lambda: training.init(jax.random.key(0), MLP(), optimizer, IMAGES), said)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"image": IMAGES, "label": LABELS}, "a pair (inputs, labels), not a dict of image, label"),
        ((IMAGES, LABELS, LABELS), "a pair (inputs, labels), not a tuple of 3"),
        (IMAGES, "a pair (inputs, labels), not a ndarray"),
        (("images", "labels"), "is the text 'images'"),
    ],
)
def test_batches(batch, said):
    step = training.train_step(MLP(), optax.sgd(0.1))
    sentence(lambda: step(NOTHING, batch), said)
    sentence(lambda: training.in_memory(batch, 2), said)


def test_what_is_exchanged_or_of_another_kind():
    optimizer, model, state, width = optax.sgd(0.1), MLP(), {}, 8
    step: Any = training.train_step
    evaluate: Any = training.evaluation(model)
    make: Any = SmallCNN
    sentence(lambda: step(optimizer, model), "expected a flax.linen.Module")
    sentence(lambda: evaluate(state, (IMAGES, LABELS)), "state is a dict, expected")
    sentence(lambda: make(10, widths=width), "widths is 8, expected (16, 32, 64)")


def test_examples_that_the_network_does_not_take():
    model = MLP(classes=4, norm=False)
    state = training.init(jax.random.key(0), model, optax.sgd(0.1), IMAGES)
    evaluate = training.evaluation(model)
    Examination(evaluate, "test", (IMAGES, LABELS), None).check(state)
    wide = np.ones((4, 7, 7, 1), np.float32)
    examined = Examination(evaluate, "test", (wide, LABELS), None)
    sentence(lambda: examined.check(state), "MLP does not take the inputs of test: ")


def test_one_hot_labels_are_measured_as_classes():
    model = MLP(classes=4, norm=False)
    images = np.random.default_rng(0).normal(size=IMAGES.shape).astype(np.float32)
    state = training.init(jax.random.key(0), model, optax.sgd(0.1), images)
    examined = Examination(training.evaluation(model), "test", (images, np.eye(4)[LABELS]), None)
    found = examined(state)
    assert found is not None and examined.measures is not None
    assert examined.measures.confusion.sum(axis=1).tolist() == [1] * 4
    assert examined.measures.accuracy == found["accuracy"]


def test_labels_that_are_no_classes():
    state = State(NOTHING, {}, {}, (), NOTHING)
    evaluate = training.evaluation(MLP(classes=4))
    evaluate.check_labels(state, IMAGES, LABELS)
    sentence(
        lambda: evaluate.check_labels(state, IMAGES, LABELS + 1),
        "labels go from 1 to 4, expected 0 to 3 for the 4 outputs of MLP; give labels - 1.",
    )
    sentence(lambda: evaluate.check_labels(state, IMAGES, LABELS - 1), "from -1 to 2, expected 0")
    other = training.evaluation(MLP(classes=4), lambda outputs, labels: outputs.mean())
    other.check_labels(state, IMAGES, LABELS + 1)


def test_data_as_they_are_in_files_or_for_other_libraries():
    model = MLP(classes=4, norm=False)
    state = training.init(jax.random.key(0), model, optax.sgd(0.1), IMAGES)
    epoch = training.train_epoch(training.train_step(model, optax.sgd(0.1)), 4)
    stored, one_hot = IMAGES.astype(np.uint8), np.eye(4, dtype=int)
    states = training.stack_states([state, state])
    measured: dict[str, Any] = {
        "epoch": functools.partial(epoch, state),
        "evaluation": functools.partial(training.evaluation(model), state),
        "states": functools.partial(training.over_states(epoch), states),
    }
    for name in measured:

        def on(*batch, name=name):
            return lambda: measured[name](batch)

        sentence(on(IMAGES, LABELS + 1), "expected 0 to 3", "give labels - 1.")
        sentence(on(stored, LABELS), "was given uint8", "nnlab.vision.to_float")
        sentence(on(IMAGES, one_hot), "[4, 4], expected [4]; give labels.argmax(-1)")
        sentence(on(IMAGES, LABELS[:, None]), "give labels[..., 0].")
    sentence(lambda: training.measure(np.eye(4), one_hot), "give labels.argmax(-1).")

    def scaled(key, images):
        return images / 255

    step = training.train_step(model, optax.sgd(0.1), augment=scaled)
    jax.eval_shape(step, state, (stored, LABELS))  # what the network sees are floats


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first(channels):
    images: Any = np.ones((2, channels, 6, 6), np.float32)
    said = f"have shape [2, {channels}, 6, 6], channels first, expected [n, height, width, channels"
    init = functools.partial(training.init, jax.random.key(0), optimizer=optax.sgd(0.1))
    sentence(lambda: init(SmallCNN(4), inputs=images), said, "give jnp.moveaxis(images, 1, -1).")
    sentence(lambda: vision.check_arrays(images, LABELS[:2], 4), said)

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(4)(jnp.moveaxis(x, 1, -1).mean((1, 2)))

    init(Own(), inputs=images)
