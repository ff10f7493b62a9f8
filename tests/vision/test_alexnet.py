"""AlexNet: PyTorch's logits from its weights, dropout where it was published, options."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.vision.alexnet import (
    AlexNet,
    original_alexnet,
    torch_names,
)

NARROW: Any = {"widths": (8, 12, 8, 4, 6), "hidden": 10, "classes": 5}
EVERYTHING_ADDER: Any = {
    **{"arithmetic": ADDER, "first": ADDER, "classifier": ADDER},
    **{"norm": True, "norm_dense": True},
}


def variables(model: AlexNet, *size: int) -> Any:
    return jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    )


@pytest.mark.parametrize(
    ("model", "size", "widths"),
    [
        (AlexNet(), 224, (64, 192)),
        (original_alexnet(padding=2, norm=True, norm_dense=True), 224, (96, 256)),  # the paper's
    ],
)
def test_intermediates_in_bfloat16(model, size, widths, assert_intermediates):
    expected = {
        "pool1": (2, 27, 27, widths[0]),
        "pool2": (2, 13, 13, widths[1]),
        "pool5": (2, 6, 6, 256),
        "features": (2, 4096),
    }
    assert_intermediates(model, (2, size, size, 3), expected)


class Torchvision(torch.nn.Module):
    """alexnet.py of torchvision, by the names of its modules."""

    def __init__(self, widths, hidden, classes):
        super().__init__()
        nn, (a, b, c, d, e) = torch.nn, widths
        self.features = nn.Sequential(
            *(nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(e * 36, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, classes),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Caffe(torch.nn.Module):
    """The original network, by the names of Caffe's layers."""

    def __init__(self, widths, hidden, classes):
        super().__init__()
        nn, (a, b, c, d, e) = torch.nn, widths
        self.conv1 = nn.Conv2d(3, a, 11, stride=4)
        self.conv2 = nn.Conv2d(a, b, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(b, c, 3, padding=1)
        self.conv4 = nn.Conv2d(c, d, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(d, e, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(e * 36, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, classes)
        # Its alpha is divided by the size, the paper's is not.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    def forward(self, x):
        def pool(x):
            return torch.nn.functional.max_pool2d(x, 3, 2)

        x = pool(self.norm(self.conv1(x).relu()))
        x = pool(self.norm(self.conv2(x).relu()))
        x = self.conv4(self.conv3(x).relu()).relu()
        x = torch.nn.functional.adaptive_avg_pool2d(pool(self.conv5(x).relu()), 6)
        x = self.fc7(self.fc6(torch.flatten(x, 1)).relu()).relu()
        return self.fc8(x)


@pytest.mark.parametrize(
    ("model", "theirs", "size", "scale"),
    [(AlexNet, Torchvision, (95, 127), 1.0), (original_alexnet, Caffe, (99, 131), 50.0)],
)
def test_logits_are_those_of_pytorch(
    model, theirs, size, scale, randomised, assert_borrowed_logits
):
    network = randomised(theirs(**NARROW))
    # Bright images, so that response normalisation divides by more than its constant, and small
    # weights of the last layer for logits near 1.
    *_, weight, _ = network.parameters()
    weight.data /= scale
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32) * scale
    ours = model(**NARROW)
    assert_borrowed_logits(ours, torch_names(ours), network, images)


def test_first_and_classifier_have_arithmetics_of_their_own(marked):
    model = AlexNet(arithmetic=marked("inner_kernel"), classifier=marked("last_kernel"))
    params = variables(model, 63, 63)["params"]
    inner, last = {"inner_kernel", "bias"}, {"last_kernel", "bias"}
    assert {name: set(leaves) for name, leaves in params.items()} == {
        "conv1": {"kernel", "bias"},
        **{f"conv{layer}": inner for layer in (2, 3, 4, 5)},
        **{f"fc{layer}": last for layer in (6, 7, 8)},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [AlexNet(**NARROW), original_alexnet(**NARROW, **EVERYTHING_ADDER, padding=2)],
    ids=["float", "adder"],
)
def test_a_step_reaches_every_parameter(model, assert_a_step_moves_everything):
    assert_a_step_moves_everything(model, (4, 63, 63, 3))


@pytest.mark.parametrize(
    ("model", "logit"),
    [
        (AlexNet, 10 * 1 + 1),  # all inputs of fc7 are dropped, and its biases remain
        (original_alexnet, 1),  # all inputs of fc8
    ],
)
def test_dropout_is_where_it_was_published(model, logit, quick_jit):
    images = np.ones((1, 63, 63, 3), np.float32)
    model = model(**NARROW, padding=2, dropout=1.0)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), variables(model, 63, 63))
    run = quick_jit(functools.partial(model.apply, train=True))
    np.testing.assert_array_equal(run(ones, images), np.full((1, 5), logit))


def test_bad_arguments():
    with pytest.raises(InputError):
        variables(AlexNet(**NARROW, groups=3), 63, 63)
    with pytest.raises(ValueError):
        variables(AlexNet(**NARROW), 62, 63)
