"""VGG: published sizes, PyTorch's logits from its weights, and a training step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.arithmetics import ADDER, BINARY
from nnlab.errors import InputError
from nnlab.models.borrowing import borrow
from nnlab.models.vgg import VGG, torch_names, vgg11, vgg11_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from nnlab.optim import adder_recipe
from nnlab.training import State, train_step

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
NARROW: Any = {"widths": (4, 6, 8, 6, 4), "hidden": 10, "classes": 5}
LAYERS = {  # torchvision's configurations A, B, D, E
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def variables(model: VGG, *size: int) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, *size, 3)))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (vgg11, 132_863_336),  # by the sum below
        (vgg16, 138_357_544),
        (vgg16_bn, 138_365_992),
        (vgg19, 143_667_240),
        (vgg19_bn, 143_678_248),
    ],
)
def test_parameters(model, parameters):
    network = model()
    expected, inputs = 25_088 * 4096 + 4096**2 + 4096 * 1000 + 4096 + 4096 + 1000, 3
    for features, layers in zip((64, 128, 256, 512, 512), LAYERS[network.depth], strict=True):
        for _ in range(layers):
            expected += 9 * inputs * features + features + 2 * features * network.norm
            inputs = features
    assert expected == parameters
    for network in (network, model(arithmetic=ADDER, first=ADDER, classifier=ADDER)):
        leaves = jax.tree.leaves(variables(network, 224, 224)["params"])
        assert sum(leaf.size for leaf in leaves) == parameters


def test_intermediates_in_bfloat16():
    images = jnp.ones((2, 224, 224, 3))
    model = vgg16(norm=True, norm_dense=True)
    shapes = variables(model, 224, 224)
    model = model.clone(dtype=jnp.bfloat16)

    def run(variables):
        return model.apply(variables, images, mutable=["intermediates"])

    logits, updates = jax.eval_shape(run, shapes)
    assert logits.shape == (2, 1000) and logits.dtype == jnp.float32
    named = {name: values[0] for name, values in updates["intermediates"].items()}
    expected = {"features": (2, 4096)}
    for stage, features in enumerate((64, 128, 256, 512, 512), 1):
        size = 224 >> stage
        expected[f"stage{stage}"] = (2, 2 * size, 2 * size, features)
        expected[f"pool{stage}"] = (2, size, size, features)
    assert {name: value.shape for name, value in named.items()} == expected
    assert {value.dtype for value in named.values()} == {jnp.dtype("bfloat16")}


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


def theirs(model: VGG) -> Torchvision:
    """The network in PyTorch with random weights and statistics."""
    torch.manual_seed(0)
    network = Torchvision(LAYERS[model.depth], model.norm, **NARROW).eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
        else:
            positive = model.norm and name.startswith("features") and name.endswith("weight")
            torch.nn.init.uniform_(parameter, 0.5 if positive else -0.5, 1.5 if positive else 0.5)
    for name, buffer in network.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.nn.init.uniform_(buffer, *((0.5, 1.5) if "var" in name else (-0.5, 0.5)))
    return network


def arrays(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in network.state_dict().items()}


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_logits_are_those_of_pytorch(norm):
    model = VGG(11, norm=norm, **NARROW)
    size = (64, 96)  # 2×3 positions in the end, so that the order of flattened pixels matters
    network = theirs(model)
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    borrowed = borrow(variables(model, *size), arrays(network), torch_names(model))
    logits = jax.jit(model.apply)(borrowed, images)
    assert 0.3 < expected.std() < 3
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("depth", LAYERS)
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_layers_of_pytorch_in_their_order(depth, norm):
    model = VGG(depth, norm=norm, **NARROW)
    network = theirs(model)
    params = borrow(variables(model, 32, 32), arrays(network), torch_names(model))["params"]
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


def test_first_and_classifier_have_arithmetics_of_their_own():
    params = variables(vgg11(arithmetic=ADDER, classifier=BINARY, norm=True), 32, 32)["params"]
    kinds = {name: set(leaves) for name, leaves in params.items() if not name.startswith("bn")}
    inner, last = {"adder_kernel", "bias"}, {"binary_kernel", "bias"}
    names = ("2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2")
    assert kinds == {
        "conv1_1": {"kernel", "bias"},
        **{f"conv{name}": inner for name in names},
        **{f"fc{layer}": last for layer in (6, 7, 8)},
    }


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
    "model",
    [
        vgg11(**NARROW),
        vgg11_bn(**NARROW, arithmetic=ADDER, first=ADDER, classifier=ADDER, norm_dense=True),
    ],
    ids=["float", "adder"],
)
def test_a_step_reaches_every_parameter(model):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(4, 32, 32, 3)), jnp.float32)
    optimizer = adder_recipe(10, weight_decay=0.0)  # so that only a gradient moves a parameter
    shapes = variables(model, 32, 32)
    params = at_random(shapes["params"])
    stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes.get("batch_stats", {}))
    state = State(jnp.int32(0), params, stats, optimizer.init(params), jax.random.key(0))
    step = jax.jit(train_step(model, optimizer), compiler_options=QUICK)
    after, metrics = step(state, (images, jnp.arange(4)))
    assert np.isfinite(metrics["loss"]) and metrics["nonfinite"] == -1
    for before, now in ((params, after.params), (stats, after.batch_stats)):
        leaves = jax.tree_util.tree_leaves_with_path(before)
        for (path, old), new in zip(leaves, jax.tree.leaves(now), strict=True):
            if model.norm and path[0].key.startswith("conv") and path[-1].key == "bias":
                continue  # BatchNorm takes it away
            assert np.isfinite(new).all() and (old != new).any(), path


def test_dropout_is_where_it_was_published():
    """With a rate of 1 only the bias of the last layer remains."""
    model = vgg11(**NARROW, dropout=1.0)
    images = jnp.ones((1, 32, 32, 3))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), variables(model, 32, 32))
    run = jax.jit(lambda v: model.apply(v, images, train=True), compiler_options=QUICK)
    np.testing.assert_array_equal(run(ones), np.ones((1, 5)))


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match=r"^depth must be one of 11, 13, 16, 19, not 12\."):
        variables(VGG(12), 32, 32)
    with pytest.raises(InputError, match=r"^depth must be one of 11, 13, 16, 19, not 12\."):
        torch_names(VGG(12))
    with pytest.raises(ValueError, match=r"the window spans 2 pixels of width, but .* has 1\."):
        variables(vgg11(**NARROW), 32, 31)
