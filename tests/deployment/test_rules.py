"""What stands between layers, in small models of one's own: as it deploys, or why it does not."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nnlab.arithmetics import ADDER, BINARY_CONNECT, NAMED, SQUARED_DISTANCE, XNOR, of_product
from nnlab.deployment import IntegerNetwork, accumulator_bounds, quantize, reference, run
from nnlab.errors import InputError
from nnlab.layers import AdderConv, AdderDense, BinaryConv, Conv, GroupedConv, PowerActivation
from nnlab.ops.adder import adder_conv
from nnlab.ops.binary import binary_weights
from nnlab.ops.pooling import max_pool
from nnlab.ops.response_normalization import local_response_norm
from nnlab.vision.segmentation import UNet

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 9, 8, 2)).astype(np.float32)


class Around(nn.Module):
    """A layer and a function."""

    after: Callable[..., Any] = nn.relu
    layer: Callable[..., nn.Module] = functools.partial(Conv, 4, 1)

    @nn.compact
    def __call__(self, x):
        return self.after(self.layer()(x))


def made(model, images=IMAGES):
    variables = jax.jit(model.init, compiler_options=QUICK)(jax.random.key(0), images)
    return shaken(variables)


def shaken(variables):
    """Scales of either sign, offsets, and statistics that are not those of a start."""
    rng = np.random.default_rng(1)

    def leaf(path, x):
        if x.ndim != 1:
            return x
        low = 0.5 if path[-1].key == "var" else -1.0
        return jnp.asarray(rng.uniform(low, 1.5, x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, variables)


def deployed(model, variables, images=IMAGES, **options):
    """The network's logits, which are the reference's to the bit, and the network."""
    network = quantize(model, variables, images, **options)
    logits = np.asarray(jax.jit(run(network), compiler_options=QUICK)(images))
    np.testing.assert_array_equal(logits[:2], reference(network, images[:2])["logits"])
    return logits, network


def off(logits, model, variables, images=IMAGES) -> float:
    """The mean error of logits, in their standard deviations."""
    expected = np.asarray(jax.jit(model.apply, compiler_options=QUICK)(variables, images))
    return float(np.sqrt(np.mean((logits - expected) ** 2)) / expected.std())


class Inception(nn.Module):
    """Parallel branches, poolings with padding and strides, numbers before the first layer."""

    arithmetic: Any

    @nn.compact
    def __call__(self, x):
        conv, norm = self.arithmetic.conv, nn.BatchNorm
        sides: Any = ((1, 1), (0, 1))
        x = (x + 0.25) / 2 - jnp.array([0.1, -0.2])
        x = nn.relu(norm(True)(Conv(6, (3, 3), padding="VALID", use_bias=True)(x)))
        pools = [
            max_pool(x, 3, 1, 1),
            nn.avg_pool(x, (3, 2), (1, 1), sides),
            nn.max_pool(x, (2, 3), (1, 1), "SAME"),
        ]
        ones = [norm(True)(conv(3, (1, 1))(y)) for y in pools]
        x = jnp.concatenate([*ones, x[..., 1:5:2]], axis=-1)
        x = norm(True)(max_pool(nn.relu6(x), 2, padding="CEIL"))  # of a maximum, of either sign
        y = norm(True)(conv(8, (3, 3), strides=2, padding=1)(x))
        x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, 0)))
        x = nn.relu(y - jnp.pad(x[..., :6], ((0, 0), (0, 0), (0, 0), (1, 1))))
        return nn.Dense(3)(jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], -1))


@pytest.mark.parametrize("name", [pytest.param("float", marks=pytest.mark.slow), "adder"])
def test_a_model_of_ones_own(name):
    model = Inception(NAMED[name])
    variables = made(model)
    logits, network = deployed(model, variables)
    assert off(logits, model, variables) < {"float": 0.05, "adder": 0.15}[name]
    ops = {node.op for node in network.nodes}
    assert ops >= {"concatenate", "max_pool", "sum_pool", "sum", "pad", "add"}


FUNCTIONS = {
    "hard tanh": nn.hard_tanh,
    "where": lambda x: jnp.where(x > 0.5, 0.5, x),
    "relu by where": lambda x: jnp.where(x >= 0, x, 0),
    "clip, then scale": lambda x: 3 - 2 * jnp.clip(x, -1, 1),
    "two sums": lambda x: nn.relu(x + x) + (x - nn.relu(x)),
    "means": lambda x: nn.avg_pool(x, (3, 4), (3, 4)),
    "cropped": lambda x: nn.relu(x[:, 2:7, 1:8:3]),
    "padded": lambda x: jnp.pad(nn.relu(x), ((0, 0), (1, 0), (0, 2), (0, 0))),
    "twice": lambda x: max_pool(max_pool(x, 2), 2),
    "dropout": lambda x: nn.Dropout(0.5, deterministic=True)(lax.stop_gradient(x)),
}


class Branches(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Conv(4, (3, 3))(x)
        images = [function(x) for function in FUNCTIONS.values()]
        return jnp.concatenate([nn.Dense(2)(y.reshape(y.shape[0], -1)) for y in images], axis=-1)


@pytest.mark.slow
def test_functions_between_layers():
    model = Branches()
    variables = made(model)
    logits, _ = deployed(model, variables)
    expected = np.asarray(jax.jit(model.apply, compiler_options=QUICK)(variables, IMAGES))
    parts = [np.split(z, len(FUNCTIONS), axis=-1) for z in (logits, expected)]
    for name, found, y in zip(FUNCTIONS, *parts, strict=True):
        assert np.sqrt(np.mean((found - y) ** 2)) < 0.03 * y.std(), name


def test_signs_of_pooled_and_concatenated_values():
    """Exact, as no number is rounded: padding of a maximum is -1, that of a product is 0."""

    class Signs(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(True)(BinaryConv(5, (3, 3))(x))
            x = jnp.concatenate([max_pool(x, 3, 2, 1), x[:, ::2, ::2]], axis=-1)
            return nn.BatchNorm(True)(BinaryConv(3, (5, 4), padding="VALID")(x))

    model = Signs()
    variables = made(model)
    logits, _ = deployed(model, variables, correct_means=False)
    expected: Any = model.apply(variables, IMAGES)
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def digest(network: IntegerNetwork) -> list[Any]:
    """All but names."""
    arrays = [[network.arrays[a].tobytes() for a in n.arrays.values()] for n in network.nodes]
    return [(n.op, n.attributes, own) for n, own in zip(network.nodes, arrays, strict=True)]


def test_names_of_classes_and_arithmetics_say_nothing():
    mine = of_product(functools.partial(adder_conv, filter_rule="sign"), kernel_name="adder_kernel")
    found = []
    for arithmetic in (ADDER, dataclasses.replace(mine, name="binary")):
        model = Around(nn.relu, functools.partial(arithmetic.conv, 4, 1, name="conv"))
        kernel = PLAIN["params"]["Conv_0"]["kernel"]
        variables = {"params": {"conv": {"adder_kernel": kernel}}}
        found.append(digest(quantize(model, variables, IMAGES, bits=5)))
    assert found[0] == found[1]


def test_vectors_and_a_layer_that_is_called_twice():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = AdderDense(6, use_bias=True, name="both")
            return nn.Dense(3)(nn.relu(layer(nn.relu(layer(x) + 5)) + 7))

    model, vectors = Twice(), IMAGES[:, 0, :3, :].reshape(8, 6)
    variables = made(model, vectors)
    logits, network = deployed(model, variables, vectors, scheme="shared")
    assert off(logits, model, variables, vectors) < 0.1
    assert {"both", "both_1"} <= {node.name for node in network.nodes}


class Powers(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x ** self.param("alpha", nn.initializers.ones, (1,))


class Scaled(nn.Module):
    """A dense layer that says it is one, and gives something else."""

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(x @ self.param("kernel", nn.initializers.normal(1.0), (2, 4)))


PLAIN = {"params": {"Conv_0": {"kernel": RNG.normal(size=(1, 1, 2, 4)).astype(np.float32)}}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        arithmetic.name: (
            dict(layer=functools.partial(arithmetic.conv, 4, 1, name="conv")),
            rf"^conv computes {op} with weights called \w+, expected {expected}\.$",
        )
        for arithmetic, op, expected in (
            (SQUARED_DISTANCE, "squared_distance_conv", "adder_conv"),
            (XNOR, "xnor_conv", "binary_conv"),
            (BINARY_CONNECT, "binary_connect_conv", "binary_conv"),
            (NAMED["ternary"], "ternary_conv", "conv"),
            (NAMED["posit16"], r"\w+", "conv"),
        )
    },
    "power": (dict(layer=Powers), r"^Powers_0 is a Powers with alpha, expected adder, binary or"),
    "learnt": (dict(after=lambda x: PowerActivation()(x)), r"^PowerActivation_0 is a"),
    "other": (dict(layer=Scaled), r"^Scaled_0 gives other numbers than conv with weights called"),
    "rms norm": (dict(layer=nn.RMSNorm), r"^RMSNorm_0 is a RMSNorm of other statistics than"),
    "groups": (
        dict(layer=functools.partial(GroupedConv, Conv, 2, 4, 1)),
        r"^GroupedConv_0/Conv_0 is mapped over groups of channels, expected a single layer\.$",
    ),
    "dilation": (
        dict(layer=functools.partial(AdderConv, 2, (2, 1), kernel_dilation=2)),
        r"^AdderConv_0 has a kernel dilation of \(2, 2\), expected 1\.$",
    ),
    "transposed": (
        dict(layer=functools.partial(nn.ConvTranspose, 4, (2, 2))),
        r"^ConvTranspose_0 is a transposed convolution, expected an ordinary one\.$",
    ),
    "quantizer": (
        dict(layer=functools.partial(BinaryConv, 2, 1, kernel_quantizer=binary_weights)),
        r"^BinaryConv_0 has a quantizer other than sign_ste",
    ),
    "softmax": (dict(after=nn.softmax), r"^the model has reduce_max over axes .*, expected one"),
    "response": (dict(after=local_response_norm), r"in _normalized, expected one by constants\.$"),
    "product": (
        dict(after=lambda x: x * jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :9]),
        r"of two values, expected one by constants\.$",
    ),
    "quotient": (dict(after=lambda x: 1 / x), r"^the model has a division by a value, expected"),
    "places": (
        dict(after=lambda x: x + jnp.arange(8.0)[:, None]),
        r"^the model has add by numbers of every position, expected finite ones a channel\.$",
    ),
    "transpose": (dict(after=lambda x: x.swapaxes(1, 2)), r"has the operation transpose, expec"),
    "columns": (dict(after=lambda x: x.mean(2)), r"reduce_sum over axes \(2,\) of 4, expected"),
    "pixels": (
        dict(after=lambda x: jnp.concatenate([x, x], axis=1)),
        r"^the model has a concatenation of pixels or constants, expected one of channels\.$",
    ),
    "ones": (
        dict(after=lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)),
        r"^the model has padding by 1 in _pad, expected by 0, or by -inf before a maximum\.$",
    ),
    "holes": (
        dict(after=lambda x: jnp.maximum(x[:, 0:7], x[:, 2:9])),
        r"^the model takes maxima of 2 pixels that are not a window, expected all pixels",
    ),
    "reshape": (
        dict(after=lambda x: x.reshape(x.shape[0], 36, 8).sum(1)),
        r"^the model has a reshape of \(9, 8, 4\) to \(36, 8\), expected one of an image to one",
    ),
}


CURVES: dict[str, Callable[[Any], Any]] = {
    "tanh": nn.tanh,
    "swish": nn.swish,
    "gelu": nn.gelu,
    "leaky": nn.leaky_relu,
    "elu": nn.elu,
    "hard swish": nn.hard_swish,
    "square": lambda x: x * x,
    "steps": lambda x: (x > 0) * 1.0 + x.astype(int) * 0.5,
    "two": lambda x: nn.sigmoid(jnp.maximum(x, 2 * x)) - nn.softplus(x),
}


class Curves(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Conv(4, (3, 3))(x)
        ys = [nn.max_pool(curve(x), (2, 2)) for curve in CURVES.values()]
        return jnp.concatenate([nn.Dense(2)(y.reshape(y.shape[0], -1)) for y in ys], axis=-1)


def test_functions_of_one_number():
    """Each is one table, of ten bits; the steps that it takes the place of leave no node."""
    model = Curves()
    variables = made(model)
    logits, network = deployed(model, variables)
    expected = np.asarray(jax.jit(model.apply, compiler_options=QUICK)(variables, IMAGES))
    errors = np.sqrt(np.mean((logits - expected) ** 2, axis=0)) / expected.std(axis=0)
    for name, error in zip(CURVES, errors.reshape(-1, 2).max(axis=1), strict=True):
        assert error < (0.2 if name == "steps" else 0.08), name  # which has jumps
    taken = {name for node in network.nodes for name in node.inputs}
    assert {node.name for node in network.nodes} - taken == {"logits"}
    assert sum(node.op == "table" for node in network.nodes) >= len(CURVES)
    assert accumulator_bounds(network).keys() == {node.name for node in network.nodes}


class Separable(nn.Module):
    """Convolutions of groups, of every channel, and of distant pixels; halves of channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (1, 1))(x))
        x = nn.relu(nn.Conv(16, (3, 3), strides=(2, 1), feature_group_count=8)(x))
        x = nn.relu(nn.Conv(6, (2, 3), feature_group_count=2, kernel_dilation=(1, 2))(x))
        left, right = jnp.split(x, 2, axis=-1)
        return nn.Dense(3)((left - right).mean((1, 2)))


def test_separable_convolutions():
    model = Separable()
    variables = made(model)
    logits, network = deployed(model, variables)
    assert off(logits, model, variables) < 0.05
    groups = [node.attributes.get("groups") for node in network.nodes if node.op == "conv"]
    assert groups == [None, 8, 2]
    bounds = accumulator_bounds(network)
    values = reference(network, IMAGES)
    for node in network.nodes[:-1]:
        assert bounds[node.name].low <= values[node.name].min()
        assert values[node.name].max() <= bounds[node.name].high


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_deploy_is_named(name):
    options, message = REFUSED[name]
    model = Around(**options)
    plain = set(options) == {"after"} and name != "learnt"
    variables = PLAIN if plain else model.init(jax.random.key(0), IMAGES[:2])
    with pytest.raises(InputError, match=message):
        quantize(model, variables, IMAGES[:2], correct_means=False)


def test_inputs_that_do_not_fit():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    model, few = Model(), IMAGES[:2]
    dense = {"kernel": np.ones((144, 3), np.float32), "bias": np.ones(3, np.float32)}
    variables = {"params": {"Dense_0": dense}}
    bad = {"params": {"Dense_0": dense | {"bias": np.full(3, np.nan, np.float32)}}}
    other = {"params": {"Dense_1": dense}}
    cases: Any = (
        ((model, variables, few[:0]), {}, r"^calibration takes at least one image .* not 0 images"),
        (
            (model, variables, few),
            {"quantile": 0.3},
            r"a quantile from 0\.5 to 1, not 2 .* 0\.3\.$",
        ),
        (
            (model, variables, few),
            {"quantile": 1.5},
            r"a quantile from 0\.5 to 1, not 2 .* 1\.5\.$",
        ),
        ((model, variables, few[0]), {}, r"not of shape \(9, 8, 2\)\.$"),
        ((model, variables, few * np.inf), {}, r"^an image has a number that is not finite"),
        ((model, bad, few), {}, r"^params/Dense_0/bias has a number that is not finite"),
        ((model, other, few), {}, r"^Model cannot be called with images \(2, 9, 8, 2\) and these"),
        ((model, variables, few[:, 1:]), {}, r"^Model cannot be called with images \(2, 8, 8, 2\)"),
        ((model, variables, few), {"bits": 4}, r"^the model has no adder layers, expected bits"),
        ((model, variables, few), {"bits": 9}, r"takes 2 to 8 bits, 1 group or more .* not 9, 4 "),
    )
    for arguments, options, message in cases:
        with pytest.raises(InputError, match=message):
            quantize(*arguments, **options)


def test_a_model_that_gives_several_arrays_or_nothing_of_the_images():
    class Pair(nn.Module):
        same: bool = False

        @nn.compact
        def __call__(self, x):
            y = nn.Dense(3)(x)
            return jnp.zeros(3) if self.same else (y, y)

    vectors = IMAGES[:2, 0, 0]
    for model, message in (
        (Pair(), r"^Pair gives .*, expected one array\.$"),
        (Pair(same=True), r"^the model gives the same for all images, expected a function of them"),
    ):
        variables = model.init(jax.random.key(0), vectors)
        with pytest.raises(InputError, match=message):
            quantize(model, variables, vectors)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float", "adder"])
def test_what_tells_pixels_apart_from_skipped_levels(name):
    """Transposed convolutions are pads between pixels and convolutions; channels are joined."""
    model = UNet(3, NAMED[name], features=4, levels=2, norm_up=True)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 19, 16, 3)).astype(np.float32)  # an odd side
    learn = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    for _ in range(40):  # until the statistics are those of the images
        _, stats = learn(variables, images)
        variables = {**variables, **stats}
    network = quantize(model, variables, images)
    expected, found = model.apply(variables, images), run(network)(images)
    assert found.shape == (8, 19, 16, 3)
    wanted = np.asarray(expected)
    error = np.linalg.norm(np.asarray(found) - wanted) / np.linalg.norm(wanted)
    assert error < {"float": 0.08, "adder": 0.3}[name]  # of weights that have learnt nothing
    assert any(node.attributes.get("between") == [1, 1] for node in network.nodes)
