"""SqueezeNet: published sizes, PyTorch's logits from its weights, and a training step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import InputError
from nnlab.models.borrowing import borrow
from nnlab.models.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1, torch_names
from nnlab.optim import adder_recipe
from nnlab.training import State, train_step

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Inputs, squeezed and expanded channels of fire2 to fire9: table 1 of the paper.
FIRES = [
    *((96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)),
    *((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
]
both = pytest.mark.parametrize("model", [squeezenet1_0, squeezenet1_1], ids=["1.0", "1.1"])


def variables(model: SqueezeNet, *size: int) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, *size, 3)))


@pytest.mark.parametrize(
    ("model", "features", "taps", "published"),
    [(squeezenet1_0, 96, 49, 1_248_424), (squeezenet1_1, 64, 9, 1_235_496)],
)
def test_parameters(model, features, taps, published):
    expected = 3 * taps * features + features + 512 * 1000 + 1000
    for inputs, squeezed, expanded in [(features, 16, 64), *FIRES[1:]]:
        expected += inputs * squeezed + squeezed + 10 * squeezed * expanded + 2 * expanded
    assert expected == published
    for arithmetic in (FLOAT, ADDER):
        network = model(arithmetic=arithmetic, first=arithmetic, classifier=arithmetic)
        leaves = jax.tree.leaves(variables(network, 224, 224)["params"])
        assert sum(leaf.size for leaf in leaves) == published


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        (squeezenet1_0, ((109, 96), (54, 256), (27, 512), (13, 512))),
        (squeezenet1_1, ((111, 64), (55, 128), (27, 256), (13, 512))),
    ],
)
def test_intermediates_in_bfloat16(model, stages):
    images = jnp.ones((2, 224, 224, 3))
    model = model(norm=True)
    shapes = variables(model, 224, 224)
    model = model.clone(dtype=jnp.bfloat16)

    def run(variables):
        return model.apply(variables, images, mutable=["intermediates"])

    logits, updates = jax.eval_shape(run, shapes)
    assert logits.shape == (2, 1000) and logits.dtype == jnp.float32
    named = {name: values[0] for name, values in updates["intermediates"].items()}
    assert {name: value.shape for name, value in named.items()} == {
        "features": (2, 512),
        **{f"stage{i}": (2, size, size, width) for i, (size, width) in enumerate(stages, 1)},
    }
    assert {value.dtype for value in named.values()} == {jnp.dtype("bfloat16")}


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
def test_logits_are_those_of_pytorch(model):
    model = model(classes=5)
    torch.manual_seed(0)
    network = Torchvision(model.version, 5).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
        else:
            torch.nn.init.uniform_(parameter, -0.2, 0.2)
    # Windows of all maxima leave the image on one side: 12 and 16, 6 and 8, 3 and 4 pixels of
    # height and width in version 1.0, and 14 and 18, 7 and 9, 3 and 4 in version 1.1.
    size = (29, 37)
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    arrays = {name: array.numpy() for name, array in network.state_dict().items()}
    borrowed = borrow(variables(model, *size), arrays, torch_names(model))
    logits = jax.jit(model.apply)(borrowed, images)
    assert 0.2 < expected.std() < 3
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_first_and_classifier_have_arithmetics_of_their_own():
    model = squeezenet1_1(arithmetic=ADDER, classifier=BINARY)
    params = variables(model, 32, 32)["params"]
    assert set(params["conv1"]) == {"kernel", "bias"}
    assert set(params["conv10"]) == {"binary_kernel", "bias"}
    for number in range(2, 10):
        fire = params[f"fire{number}"]
        assert set(fire) == {"squeeze", "expand1x1", "expand3x3"}
        assert all(set(leaves) == {"adder_kernel", "bias"} for leaves in fire.values())


def at_random(shapes: Any) -> Any:
    """Parameters in the sizes with which training starts, but for biases and scales."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":  # He
            values = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif path[-1].key == "adder_kernel":
            values = rng.normal(size=leaf.shape)
        else:
            values = rng.uniform(-0.1, 0.1, leaf.shape) + (path[-1].key == "scale")
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize(
    "options",
    [{}, {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER, "norm": True}],
    ids=["float", "adder"],
)
def test_a_step_reaches_every_parameter(options):
    model = squeezenet1_1(classes=4, **options)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(4, 16, 16, 3)), jnp.float32)
    optimizer = adder_recipe(10, weight_decay=0.0)  # so that only a gradient moves a parameter
    shapes = variables(model, 16, 16)
    params = at_random(shapes["params"])
    stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes.get("batch_stats", {}))
    state = State(jnp.int32(0), params, stats, optimizer.init(params), jax.random.key(0))
    step = jax.jit(train_step(model, optimizer), compiler_options=QUICK)
    after, metrics = step(state, (images, jnp.arange(4)))
    assert np.isfinite(metrics["loss"]) and metrics["nonfinite"] == -1
    for before, now in ((params, after.params), (stats, after.batch_stats)):
        leaves = jax.tree_util.tree_leaves_with_path(before)
        for (path, old), new in zip(leaves, jax.tree.leaves(now), strict=True):
            assert np.isfinite(new).all() and (old != new).any(), path


def test_bad_arguments_are_named():
    for call in (lambda m: variables(m, 32, 32), torch_names):
        with pytest.raises(InputError, match=r'^version must be "1\.0" or "1\.1", not \'1\.2\'\.'):
            call(SqueezeNet("1.2"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"the window spans 7 pixels of height, but .* has 6\."):
        variables(squeezenet1_0(), 6, 7)
