"""The Pallas bodies, interpreted, against loops in float64; and what they are compiled to.

The machine code itself runs where there is a GPU: `experiments/benchmarks/adder_gpu.py` checks it
against XLA's bodies before it measures.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from nnlab import kernels
from nnlab.arithmetics import ADDER
from nnlab.kernels import adder, adder_gpu
from nnlab.kernels.adder_triton import Tile
from nnlab.kernels.window import POINT, Window
from nnlab.models import LeNet5
from nnlab.ops.adder import adder_conv, adder_dense
from nnlab.ops.windows import window_of
from nnlab.optim import adder_recipe
from nnlab.training import init, train_step

SAME = Window(padding=((1, 1), (1, 1)))
SMALL = Tile(16, 8, 2, 2, 1, 4)  # several programs and ragged tiles on small arrays
SHARED = (2, 4, 4, 5), (3, 3, 5, 7)  # shapes of one compiled program for two tests


def loops(g, x, kernel, window):
    """Value and input gradients by clip and by sign, in float64."""
    g, x, kernel = (np.asarray(a, np.float64) for a in (g, x, kernel))
    (sh, sw), pads, (dh, dw) = window
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    y, clip, sign = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(padded.shape)
    for i, j, a, b in np.ndindex(*g.shape[1:3], *kernel.shape[:2]):
        row, column = i * sh + a * dh, j * sw + b * dw
        d = kernel[a, b] - padded[:, row, column, :, None]  # [batch, in, out]
        cotangents = g[:, i, j, None, :]
        y[:, i, j] -= np.abs(d).sum(1)
        clip[:, row, column] += (cotangents * np.clip(d, -1, 1)).sum(2)
        sign[:, row, column] += (cotangents * np.sign(d)).sum(2)
    (top, _), (left, _) = pads
    inside = np.s_[:, top : top + x.shape[1], left : left + x.shape[2]]
    return y, clip[inside], sign[inside]


@functools.partial(jax.jit, static_argnames=("window", "tile"))
def interpreted(g, x, kernel, window, tile=SMALL):
    options = {"window": window, "tile": tile, "interpret": True}
    return (
        adder_gpu.adder_conv(x, kernel, **options),
        adder_gpu.adder_conv_input_gradient(g, x, kernel, rule="clip", **options),
        adder_gpu.adder_conv_input_gradient(g, x, kernel, rule="sign", **options),
    )


def operands(shape, kernel_shape, window, dtype=np.float32) -> Any:
    """Multiples of 1/4: their sums are exact, ties and edges of HardTanh are frequent."""
    rng = np.random.default_rng(0)
    out = shape[0], *window.positions(shape[1:], kernel_shape), kernel_shape[3]
    return [(rng.integers(-8, 9, s) / 4).astype(dtype) for s in (out, shape, kernel_shape)]


def assert_equal_to_loops(arrays, window, tile=SMALL):
    g, x, kernel = arrays
    results = interpreted(g, x, kernel, window, tile)
    for result, expected in zip(results, loops(g, x, kernel, window), strict=True):
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result, expected.astype(result.dtype))


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.data())
def test_equals_loops_over_shapes_and_windows(convolutions, data):
    shape, kernel_shape, options = data.draw(convolutions)
    window = window_of(shape, kernel_shape, **options)
    assert_equal_to_loops(operands(shape, kernel_shape, window), window)


@pytest.mark.parametrize("tile", [pytest.param(Tile(), marks=pytest.mark.slow), SMALL])
def test_equals_loops_for_a_dense_layer(tile):
    arrays = operands((70, 1, 1, 33), (1, 1, 33, 21), POINT)
    assert_equal_to_loops(arrays, POINT, tile=tile)


def test_bfloat16_is_summed_in_float32_and_rounded_once():
    # Sums around 300: halves of a rounded unit would be lost one by one.
    arrays = operands((3, 4, 4, 30), (3, 3, 30, 10), SAME, jnp.bfloat16)
    assert_equal_to_loops(arrays, SAME)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("argument", ["g", "x", "kernel", "x and kernel"])
def test_nan_and_infinity_come_out_where_loops_have_them(argument, value):
    # In the kernel a tap that every pixel meets, as in `tests/kernels/test_adder.py`.
    window = Window((2, 1), ((1, 0), (1, 1)), (1, 1))
    g, x, kernel = operands((2, 4, 4, 2), (3, 3, 2, 3), window)
    if argument == "g":
        g[0, 0, 0, 0] = value
    if "x" in argument:
        x[0, 0, 0, 0] = value
    if "kernel" in argument:
        kernel[1, 1, 0, 0] = value
    with np.errstate(invalid="ignore"):
        assert_equal_to_loops((g, x, kernel), window)


@pytest.mark.parametrize("offset", [10.0, 1e3, 1e6])
def test_a_shared_offset_costs_no_digits(offset):
    g, x, kernel = operands(*SHARED, POINT)
    centred, moved = (
        interpreted(g, x, kernel, POINT),
        interpreted(g, x + offset, kernel + offset, POINT),
    )
    for result, expected in zip(moved, centred, strict=True):
        np.testing.assert_array_equal(result, expected)


SLOW_AXES = (None, 0, None), (0, None, 0), (0, 0, 0)


@pytest.mark.parametrize(
    "axes", [(0, 0, None), *(pytest.param(axes, marks=pytest.mark.slow) for axes in SLOW_AXES)]
)
def test_vmap_equals_a_loop(axes):
    sets = [operands(*SHARED, POINT) for _ in range(2)]
    sets = [[a + i / 4 for a in arrays] for i, arrays in enumerate(sets)]
    many = [np.stack(arrays) for arrays in zip(*sets, strict=True)]
    picked = [a if axis == 0 else a[0] for a, axis in zip(many, axes, strict=True)]
    mapped = jax.vmap(functools.partial(interpreted, window=POINT), axes)(*picked)
    for i in range(2):
        alone = [a[i] if axis == 0 else a[0] for a, axis in zip(many, axes, strict=True)]
        for result, expected in zip(mapped, interpreted(*alone, window=POINT), strict=True):
            np.testing.assert_array_equal(np.asarray(result)[i], expected)


def lowered(function, *arguments, platform="cuda"):
    """The program's text for a platform that need not be here."""
    gpu = AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
    mesh = AbstractMesh((1,), ("one",), axis_types=(AxisType.Auto,), abstract_device=gpu)
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(function).trace(*arguments)
        return traced.lower(lowering_platforms=(platform,)).as_text()


def calls(text):
    """How many calls of Triton kernels, and of the native library."""
    return text.count("@__gpu$xla.gpu.triton("), text.count("@nnlab_conv")


def value_and_cotangents(op, x, kernel, **options):
    y, pull = jax.vjp(functools.partial(op, **options), x, kernel)
    return y, pull(y)


def zeros(*shape, dtype) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


LAYERS = {
    "ResNet-20, first stage": (adder_conv, (128, 32, 32, 16), (3, 3, 16, 16), {}),
    "ResNet-20, into the second stage": (
        adder_conv,
        (128, 32, 32, 16),
        (3, 3, 16, 32),
        {"strides": 2},
    ),
    "ResNet-20, its shortcut": (adder_conv, (128, 32, 32, 16), (1, 1, 16, 32), {"strides": 2}),
    "ResNet-20, third stage": (adder_conv, (128, 8, 8, 64), (3, 3, 64, 64), {}),
    "LeNet-5, first layer": (adder_conv, (256, 28, 28, 1), (5, 5, 1, 6), {}),
    "LeNet-5, second layer": (adder_conv, (256, 14, 14, 6), (5, 5, 6, 16), {"padding": "VALID"}),
    "LeNet-5, dense": (adder_dense, (256, 400), (400, 120), {}),
}


FAST = {("ResNet-20, into the second stage", "bfloat16"), ("LeNet-5, dense", "float32")}


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
        for case in itertools.product(LAYERS, ("float32", "bfloat16"))
    ],
)
def test_layers_are_compiled_to_triton_on_a_gpu_alone(layer, dtype):
    op, shape, kernel_shape, options = LAYERS[layer]
    arrays = zeros(*shape, dtype=dtype), zeros(*kernel_shape, dtype=dtype)
    function = functools.partial(value_and_cotangents, op, **options)
    triton, ffi = calls(lowered(function, *arrays))
    phases = options.get("strides", 1) ** 2 if kernel_shape[:2] == (3, 3) else 1
    assert (triton, ffi) == (1 + phases, 0)
    assert calls(lowered(function, *arrays, platform="tpu")) == (0, 0)
    library = kernels.status()["adder_conv"]["cpu"] != "xla"
    triton, ffi = calls(lowered(function, *arrays, platform="cpu"))
    assert triton == 0 and (ffi > 0) == library


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_kernels_take_narrow_floats_as_they_are(dtype):
    g, x, kernel = (zeros(*s, dtype=dtype) for s in ((2, 4, 4, 5), (2, 4, 4, 3), (3, 3, 3, 5)))
    forward = functools.partial(adder.adder_conv, window=SAME)
    gradient = functools.partial(adder.adder_conv_input_gradient, rule="sign", window=SAME)
    assert calls(lowered(forward, x, kernel)) == (1, 0)
    assert calls(lowered(gradient, g, x, kernel)) == (1, 0)
    with kernels.use("xla"):
        assert calls(lowered(forward, x, kernel)) == (0, 0)


def test_too_large_an_array_stays_with_xla():
    x, kernel = zeros(2**12, 64, 64, 32, dtype="float32"), zeros(3, 3, 32, 2, dtype="float32")
    assert calls(lowered(functools.partial(adder.adder_conv, window=SAME), x, kernel)) == (0, 0)


@pytest.mark.slow
def test_a_training_step_of_lenet5_is_compiled_to_triton():
    model = LeNet5(arithmetic=ADDER, first=ADDER, classifier=ADDER)
    optimizer = adder_recipe(10)
    images, labels = zeros(8, 32, 32, 1, dtype="float32"), zeros(8, dtype="int32")
    state = jax.eval_shape(lambda x: init(jax.random.key(0), model, optimizer, x), images)
    triton, _ = calls(lowered(train_step(model, optimizer), state, (images, labels)))
    assert triton >= 2 * 5 - 1  # five layers; the images need no cotangent


def test_status_and_the_names_of_bodies():
    status = kernels.status()
    assert status["adder_conv"]["gpu"] == status["adder_conv_input_gradient"]["gpu"] == "pallas"
    assert status["adder_conv_filter_gradient"]["gpu"] == status["convolve"]["gpu"] == "xla"
    with kernels.use("xla"):
        assert kernels.status()["adder_conv"]["gpu"] == "xla"
