"""SqueezeNet: PyTorch's logits from its weights, named intermediates, and a training step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.vision.squeezenet import (
    SqueezeNet,
    squeezenet1_0,
    squeezenet1_1,
    torch_names,
)

# Inputs, squeezed and expanded channels of fire2 to fire9: table 1 of the paper.
FIRES = [
    *((96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)),
    *((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
]
both = pytest.mark.parametrize(
    "model",
    [pytest.param(squeezenet1_0, marks=pytest.mark.slow), squeezenet1_1],
    ids=["1.0", "1.1"],
)


def variables(model: SqueezeNet, *size: int) -> Any:
    return jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    )


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        pytest.param(
            squeezenet1_0,
            ((109, 96), (54, 256), (27, 512), (13, 512)),
            marks=pytest.mark.slow,
        ),
        (squeezenet1_1, ((111, 64), (55, 128), (27, 256), (13, 512))),
    ],
)
def test_intermediates_in_bfloat16(model, stages, assert_intermediates):
    expected = {f"stage{i}": (2, size, size, width) for i, (size, width) in enumerate(stages, 1)}
    model = model(norm=True)
    assert_intermediates(model, (2, 224, 224, 3), expected | {"features": (2, 512)})


class TheirFire(torch.nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = torch.nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = torch.nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = torch.nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


class Torchvision(torch.nn.Module):
    """squeezenet.py of torchvision, by the names of its modules."""

    def __init__(self, version, classes):
        super().__init__()
        nn = torch.nn
        fires = [TheirFire(*widths) for widths in FIRES]
        pools = [nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3)]
        if version == "1.0":
            first = nn.Conv2d(3, 96, 7, stride=2)
            places = (*fires[:3], pools[1], *fires[3:7], pools[2], *fires[7:])
        else:
            first = nn.Conv2d(3, 64, 3, stride=2)
            fires[0] = TheirFire(64, 16, 64)
            places = (*fires[:2], pools[1], *fires[2:4], pools[2], *fires[4:])
        self.features = nn.Sequential(first, nn.ReLU(), pools[0], *places)
        last = nn.Conv2d(512, classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


@both
def test_logits_are_those_of_pytorch(model, randomised, assert_borrowed_logits):
    model = model(classes=5)
    # Windows of all maxima leave the image on one side: 12 and 16, 6 and 8, 3 and 4 pixels of
    # height and width in version 1.0, and 14 and 18, 7 and 9, 3 and 4 in version 1.1.
    images = np.random.default_rng(0).normal(size=(2, 29, 37, 3)).astype(np.float32)
    network = randomised(Torchvision(model.version, 5))
    assert_borrowed_logits(model, torch_names(model), network, images)


def test_first_and_classifier_have_arithmetics_of_their_own(marked):
    model = squeezenet1_1(arithmetic=marked("inner_kernel"), classifier=marked("last_kernel"))
    params = variables(model, 32, 32)["params"]
    assert set(params["conv1"]) == {"kernel", "bias"}
    assert set(params["conv10"]) == {"last_kernel", "bias"}
    for number in range(2, 10):
        fire = params[f"fire{number}"]
        assert set(fire) == {"squeeze", "expand1x1", "expand3x3"}
        assert all(set(leaves) == {"inner_kernel", "bias"} for leaves in fire.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        ({}, None),
        # By signs: behind eight fires of adders the gradient of bn1 is 1e-14, lost in rounding.
        ({"arithmetic": ADDER, "norm": True}, optax.sign_sgd(0.01)),
    ],
    ids=["float", "adder"],
)
def test_a_step_reaches_every_parameter(options, optimizer, assert_a_step_moves_everything):
    model = squeezenet1_1(classes=4, **options)
    assert_a_step_moves_everything(model, (8, 32, 32, 3), optimizer)


def test_bad_arguments():
    for call in (lambda m: variables(m, 32, 32), torch_names):
        with pytest.raises(InputError):
            call(SqueezeNet("1.2"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError):
        variables(squeezenet1_0(), 6, 7)
