"""VGG: PyTorch's logits from its weights, the order of its layers, and a training step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.files.borrowing import borrow
from nnlab.vision.vgg import (
    VGG,
    torch_names,
    vgg11,
    vgg11_bn,
)

NARROW: Any = {"widths": (4, 6, 8, 6, 4), "hidden": 10, "classes": 5}
ALL: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER, "norm_dense": True}
LAYERS = {  # torchvision's configurations A, B, D, E
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def variables(model: VGG, *size: int) -> Any:
    return jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    )


def test_intermediates_in_bfloat16(assert_intermediates):
    expected: dict[str, tuple[int, ...]] = {"features": (2, 4096)}
    for stage, features in enumerate((64, 128, 256, 512, 512), 1):
        size = 224 >> stage
        expected[f"stage{stage}"] = (2, 2 * size, 2 * size, features)
        expected[f"pool{stage}"] = (2, size, size, features)
    assert_intermediates(vgg11(norm=True, norm_dense=True), (2, 224, 224, 3), expected)


class Torchvision(torch.nn.Module):
    """vgg.py of torchvision, by the names of its modules."""

    def __init__(self, layers, norm, widths, hidden, classes):
        super().__init__()
        nn = torch.nn
        features, inputs = [], 3
        for width, count in zip(widths, layers, strict=True):
            for _ in range(count):
                features += [nn.Conv2d(inputs, width, 3, padding=1)]
                features += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
                inputs = width
            features += [nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            *(nn.Linear(inputs * 49, hidden), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
            nn.Linear(hidden, classes),
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


@pytest.mark.parametrize(
    "norm", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "norm"]
)
def test_logits_are_those_of_pytorch(norm, randomised, assert_borrowed_logits):
    model = VGG(11, norm=norm, **NARROW)
    size = (64, 96)  # 2×3 positions in the end, so that the order of flattened pixels matters
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    network = randomised(Torchvision(LAYERS[11], norm, **NARROW))
    assert_borrowed_logits(model, torch_names(model), network, images)


@pytest.mark.parametrize("depth", LAYERS)
@pytest.mark.parametrize(
    "norm", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "norm"]
)
def test_layers_of_pytorch_in_their_order(depth, norm, randomised):
    model = VGG(depth, norm=norm, **NARROW)
    network = randomised(Torchvision(LAYERS[depth], norm, **NARROW))
    arrays = {name: array.numpy() for name, array in network.state_dict().items()}
    params = borrow(variables(model, 32, 32), arrays, torch_names(model))["params"]
    convolutions = [m for m in network.features if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in network.features if isinstance(m, torch.nn.BatchNorm2d)]
    names = [
        f"{stage}_{i}" for stage in range(1, 6) for i in range(1, LAYERS[depth][stage - 1] + 1)
    ]
    for name, module in zip(names, convolutions, strict=True):
        expected = module.weight.detach().numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(params[f"conv{name}"]["kernel"], expected)
    for name, module in zip(names if norm else [], norms, strict=True):
        np.testing.assert_array_equal(params[f"bn{name}"]["scale"], module.weight.detach().numpy())


def test_first_and_classifier_have_arithmetics_of_their_own(marked):
    model = vgg11(arithmetic=marked("inner_kernel"), classifier=marked("last_kernel"), norm=True)
    params = variables(model, 32, 32)["params"]
    kinds = {name: set(leaves) for name, leaves in params.items() if not name.startswith("bn")}
    inner, last = {"inner_kernel", "bias"}, {"last_kernel", "bias"}
    names = ("2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2")
    assert kinds == {
        "conv1_1": {"kernel", "bias"},
        **{f"conv{name}": inner for name in names},
        **{f"fc{layer}": last for layer in (6, 7, 8)},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        vgg11(**NARROW),
        vgg11_bn(**NARROW, **ALL),
    ],
    ids=["float", "adder"],
)
def test_a_step_reaches_every_parameter(model, assert_a_step_moves_everything):
    def spared(names):  # BatchNorm takes it away
        return model.norm and names[0].startswith("conv") and names[-1] == "bias"

    assert_a_step_moves_everything(model, (4, 32, 32, 3), spared=spared)


def test_dropout_is_where_it_was_published(quick_jit):
    """With a rate of 1 only the bias of the last layer remains."""
    model = vgg11(**NARROW, dropout=1.0)
    images = np.ones((1, 32, 32, 3), np.float32)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), variables(model, 32, 32))
    run = quick_jit(lambda v: model.apply(v, images, train=True))
    np.testing.assert_array_equal(run(ones), np.ones((1, 5)))


def test_bad_arguments():
    for call in (lambda m: variables(m, 32, 32), torch_names):
        with pytest.raises(InputError):
            call(VGG(12))
    with pytest.raises(ValueError):
        variables(vgg11(**NARROW), 32, 31)
