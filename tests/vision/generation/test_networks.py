"""Generators and critics: published counts, blocks against PyTorch's, bounds of slopes."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.arithmetics import ADDER, FLOAT, NAMED
from nnlab.errors import InputError
from nnlab.layers import AdderConv, AdderDense, BinaryDense
from nnlab.ops.adder import adder_conv
from nnlab.vision.generation.dcgan import DCGANCritic, DCGANGenerator, published_start
from nnlab.vision.generation.normalization import SpectralNorm, adder_slope
from nnlab.vision.generation.resnet_gan import DownBlock, ResNetCritic, ResNetGenerator, UpBlock
from nnlab.vision.generation.sn_gan import SNGANCritic
from nnlab.vision.generation.upsampling import Upsample, subpixel_kernel, twice

RNG = np.random.default_rng(0)
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def of(*shape) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def shapes(model, inputs):
    make = functools.partial(model.init, train=False)
    return jax.eval_shape(make, jax.random.key(0), jax.ShapeDtypeStruct(inputs, jnp.float32))


@pytest.mark.parametrize(
    ("model", "inputs", "parameters"),
    [
        slow(DCGANGenerator(32), (1, 100), 1_068_928),
        (DCGANCritic(), (1, 32, 32, 3), 663_296),
        slow(DCGANGenerator(32, 1), (1, 100), 1_066_880),
        slow(DCGANCritic(), (1, 32, 32, 1), 661_248),
        (DCGANGenerator(32, 1, 32), (1, 64), 295_872),
        slow(DCGANCritic(32), (1, 32, 32, 1), 166_784),
        slow(ResNetGenerator(features=256), (1, 128), 4_276_739),
    ],
)
def test_counts_of_other_sizes(model, inputs, parameters):
    """Those of the sizes of the papers are in `tests/contracts/test_models.py`."""
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes(model, inputs)["params"]))
    assert found == parameters


@pytest.mark.parametrize("name", ["adder", *map(slow, ("binary", "bitnet", "shift_ps", "bibert"))])
def test_any_arithmetic(name):
    """With any layer between the first and the last, by class; images and logits as in float."""
    arithmetic = NAMED[name]
    latents = (jax.ShapeDtypeStruct((2, 5), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32))
    generators = (
        DCGANGenerator(16, 1, 4, 3, arithmetic),
        DCGANGenerator(16, 1, 4, 3, arithmetic, upsampling="nearest"),
        ResNetGenerator(8, 1, 4, 3, arithmetic),
    )
    critics = (
        DCGANCritic(4, 3, arithmetic),
        ResNetCritic(4, 3, arithmetic, normalization="layer"),
        SNGANCritic(4, 3, arithmetic, normalization="batch"),
    )
    for generator, critic in zip(generators, critics, strict=True):

        def both(key, latents, generator=generator, critic=critic):
            images, _ = generator.init_with_output(key, latents, train=True)
            logits, _ = critic.init_with_output(key, (images, latents[1]), train=True)
            return images, logits

        images, logits = jax.eval_shape(both, jax.random.key(0), latents)
        assert images.shape == (2, generator.size, generator.size, 1) and logits.shape == (2,)


def torch_of(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def of_torch(y):
    return np.moveaxis(y.detach().numpy(), 1, -1)


def weights_of(kernel):  # [h, w, in, out] to [out, in, h, w]
    return torch.from_numpy(np.ascontiguousarray(np.asarray(kernel).transpose(3, 2, 0, 1)))


def test_a_subpixel_convolution_is_a_transposed_one():
    x, weight, bias = of(2, 3, 2, 3), of(3, 5, 4, 4), of(5)
    layer = Upsample(FLOAT.conv, 5, use_bias=True)
    params = {"bias": bias, "conv": {"kernel": subpixel_kernel(weight)}}
    theirs = torch.nn.functional.conv_transpose2d(
        torch_of(x), torch.from_numpy(weight), torch.from_numpy(bias), stride=2, padding=1
    )
    ours: Any = layer.apply({"params": params}, x)
    np.testing.assert_allclose(ours, of_torch(theirs), 1e-4, 1e-5)


def test_an_adder_upsamples_by_distances_to_four_pixels():
    """No zeros stand between the pixels: each output is a distance to 2×2 of the padded image."""
    x, kernel = of(1, 2, 3, 2), of(2, 2, 2, 12)
    y: Any = Upsample(ADDER.conv, 3).apply({"params": {"conv": {"adder_kernel": kernel}}}, x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[0]
    for row, column, feature in np.ndindex(4, 6, 3):
        a, b = row % 2, column % 2
        window = padded[row // 2 + a :, column // 2 + b :][:2, :2]
        filters = kernel.reshape(2, 2, 2, 2, 2, 3)[:, :, :, a, b, feature]
        expected = -np.abs(window - filters).sum()
        np.testing.assert_allclose(y[0, row, column, feature], expected, 1e-5)


def perturbed(variables, seed=1):
    """Every leaf moved, so that no norm or bias is what it is by default."""
    leaves, tree = jax.tree.flatten(variables["params"])
    rng = np.random.default_rng(seed)
    moved = [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return {**variables, "params": jax.tree.unflatten(tree, moved)}


def norm(x, params):
    scale, bias = (torch.from_numpy(np.asarray(params[name])) for name in ("scale", "bias"))
    return torch.nn.functional.batch_norm(x, None, None, scale, bias, True, 0.1, 1e-5)


def conv(x, params, **options):
    bias = torch.from_numpy(np.asarray(params["bias"])) if "bias" in params else None
    return torch.nn.functional.conv2d(x, weights_of(params["kernel"]), bias, **options)


@pytest.mark.slow
def test_dcgan_against_pytorch():
    z, generator = of(4, 5), DCGANGenerator(16, 3, 4)
    variables = perturbed(generator.init(jax.random.key(0), z))
    p = variables["params"]
    x = z @ p["Dense_0"]["kernel"]
    x = torch_of(np.asarray(x.reshape(4, 4, 4, 8)))
    for number in range(2):
        x = torch.relu(norm(x, p[f"BatchNorm_{number}"]))
        kernel = np.asarray(p[f"Upsample_{number}"]["conv"]["kernel"])
        features = kernel.shape[-1] // 4
        taps = kernel.reshape(2, 2, -1, 2, 2, features).transpose(2, 5, 0, 3, 1, 4)
        weight: Any = taps.reshape(-1, features, 4, 4)[:, :, ::-1, ::-1].copy()
        np.testing.assert_array_equal(subpixel_kernel(weight), kernel)
        x = torch.nn.functional.conv_transpose2d(x, torch.from_numpy(weight), stride=2, padding=1)
    images, _ = generator.apply(variables, z, train=True, mutable="batch_stats")
    np.testing.assert_allclose(images, of_torch(torch.tanh(x)), 1e-3, 1e-4)

    critic = DCGANCritic(4)
    variables = perturbed(critic.init(jax.random.key(0), images))
    p, lrelu = (
        variables["params"],
        functools.partial(torch.nn.functional.leaky_relu, negative_slope=0.2),
    )
    x = lrelu(conv(torch_of(np.asarray(images)), p["Conv_0"], stride=2, padding=1))
    x = lrelu(norm(conv(x, p["Conv_1"], stride=2, padding=1), p["BatchNorm_0"]))
    theirs = of_torch(x).reshape(4, -1) @ np.asarray(p["Dense_0"]["kernel"])
    logits, _ = critic.apply(variables, images, train=True, mutable="batch_stats")
    np.testing.assert_allclose(logits, theirs[:, 0], 1e-3, 1e-4)


@pytest.mark.slow
def test_residual_blocks_against_pytorch():
    x, block = of(3, 2, 2, 4), UpBlock(5, FLOAT, None)
    variables = perturbed(block.init(jax.random.key(0), x, train=False))
    p = variables["params"]
    up = torch.nn.Upsample(scale_factor=2)
    np.testing.assert_array_equal(twice(x), of_torch(up(torch_of(x))))
    y = conv(up(torch.relu(norm(torch_of(x), p["BatchNorm_0"]))), p["Conv_0"], padding=1)
    y = conv(torch.relu(norm(y, p["BatchNorm_1"])), p["Conv_1"], padding=1)
    theirs = y + conv(up(torch_of(x)), p["Conv_2"])
    ours: Any = block.apply(variables, x, train=True, mutable="batch_stats")[0]
    np.testing.assert_allclose(ours, of_torch(theirs), 1e-3, 1e-4)

    x, half = of(3, 4, 4, 4), functools.partial(torch.nn.functional.avg_pool2d, kernel_size=2)
    for first in (None, FLOAT):
        block = DownBlock(4, FLOAT, "none", None, True, first)
        variables = perturbed(block.init(jax.random.key(0), x, train=False))
        p, start = variables["params"], torch_of(x)
        y = conv(start if first else torch.relu(start), p["Conv_0"], padding=1)
        y = half(conv(torch.relu(y), p["Conv_1"], padding=1))
        theirs = y + (conv(half(start), p["Conv_2"]) if first else half(conv(start, p["Conv_2"])))
        ours: Any = block.apply(variables, x, train=False)
        np.testing.assert_allclose(ours, of_torch(theirs), 1e-3, 1e-4)


def test_spectral_norm_of_a_matrix():
    """The published example: two steps of power iteration from u = 1/√3."""
    kernel = jnp.array([[1.0, 2], [3, 4], [0, 1]]).T
    layer = SpectralNorm(nn.Dense(3, use_bias=False))
    variables = layer.init(jax.random.key(0), jnp.ones((1, 2)), train=False)
    stats = jax.tree.map(lambda a: a if a.ndim == 0 else jnp.full((1, 3), 3**-0.5), variables)
    params = jax.tree.map(lambda _: kernel, variables["params"])
    variables = {"params": params, "batch_stats": stats["batch_stats"]}
    for sigma in (5.5094325, 5.5264425):
        y, new = layer.apply(variables, jnp.ones((1, 2)), train=True, mutable="batch_stats")
        np.testing.assert_allclose(y, kernel.sum(0)[None] / sigma, 1e-5)
        variables = {**variables, **new}


def test_the_slope_of_an_adder_is_bounded():
    x, kernel = of(5, 3, 2), of(3, 2, 2, 3)  # windows of 3×2 at stride 2, without padding
    slope = np.zeros((2, 1, 3, *x.shape))
    for row, place in np.ndindex(2, 3):
        window = x[2 * row : 2 * row + 3, :2, :, None]
        slope[row, 0, place, 2 * row : 2 * row + 3, :2] = np.sign(kernel - window)[..., place]
    norm = np.linalg.norm(slope.reshape(6, -1), 2)
    bound = adder_slope((3, 2), (2, 2), 2, 3)
    assert bound == (6 * 2 * 3 * 2) ** 0.5 and norm < bound
    # Inputs above all weights meet the bound of a dense layer, and the ends of a step show it.
    kernel = of(6, 4)
    step = -np.abs(9 - kernel).sum(0) + np.abs(10 - kernel).sum(0)
    np.testing.assert_allclose(
        np.linalg.norm(step), adder_slope((), (), 6, 4) * np.linalg.norm(np.ones(6)), 1e-5
    )


def test_an_adder_within_spectral_norm_is_centred_and_divided():
    x = of(2, 3, 3, 2)
    layer = SpectralNorm(AdderConv(3, (2, 2), strides=2))
    y, variables = layer.init_with_output(jax.random.key(0), x, train=True)
    [kernel] = jax.tree.leaves(variables)
    plain = adder_conv(x, kernel, strides=2)
    plain -= plain.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, plain / adder_slope((2, 2), (2, 2), 2, 3), 1e-4, 1e-6)
    dense = SpectralNorm(AdderDense(3)).init_with_output(jax.random.key(0), x[:, 0, 0], train=True)
    np.testing.assert_allclose(dense[0].sum(1), 0, atol=1e-5)


def test_what_they_refuse():
    key, images = jax.random.key(0), jnp.zeros((1, 28, 28, 1))
    with pytest.raises(InputError, match="28 pixels a side"):
        DCGANCritic().init(key, images)
    for size in (4, 24, 28):
        with pytest.raises(InputError, match=f"{size} pixels a side"):
            DCGANGenerator(size).init(key, jnp.zeros((1, 5)))
    with pytest.raises(InputError, match="a pair of them and classes"):
        DCGANGenerator(8, classes=3).init(key, jnp.zeros((1, 5)))
    with pytest.raises(InputError, match="expected an array"):
        DCGANGenerator(8).init(key, (jnp.zeros((1, 5)), jnp.zeros(1, jnp.int32)))
    with pytest.raises(InputError, match="normalization must be"):
        DCGANCritic(normalization="instance").init(key, jnp.zeros((1, 8, 8, 1)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="kind must be"):
        DCGANGenerator(8, upsampling="bilinear").init(key, jnp.zeros((1, 5)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="BinaryDense has no spectral norm"):
        SpectralNorm(BinaryDense(3)).init(key, jnp.zeros((1, 5)), train=False)
    with pytest.raises(InputError, match="arithmetic is 'adder'"):
        DCGANCritic(arithmetic="adder")  # pyright: ignore[reportArgumentType]


def test_weights_start_as_published():
    drawn = shapes(DCGANCritic(32, arithmetic=ADDER), (1, 16, 16, 3))["params"]
    before = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), drawn)
    after = published_start(jax.random.key(1), before)
    kernel, scale = after["Conv_0"]["kernel"], after["BatchNorm_0"]["scale"]
    assert abs(float(kernel.std()) / 0.02 - 1) < 0.05
    assert abs(float(scale.mean()) - 1) < 0.02 and 0.01 < float(scale.std()) < 0.03
    np.testing.assert_array_equal(
        after["AdderConv_0"]["adder_kernel"], before["AdderConv_0"]["adder_kernel"]
    )
