"""Both bodies of the integer kernels against their definitions in 64-bit integers: equal."""

import functools
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab import kernels
from nnlab.kernels.integer import adder_conv_uint8
from nnlab.kernels.packed import binary_conv_packed, pack_signs
from nnlab.kernels.window import POINT, Window

NATIVE = kernels.status()["adder_conv_uint8"]["cpu"] != "xla"
BODIES: list[Any] = ["xla", "native"] if NATIVE else ["xla"]
needs_library = pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
SAME = Window(padding=((1, 1), (1, 1)))
# Sizes (n, height, width, in, kh, kw, out) that reach every width of blocks and every road: items
# read in place, from a padded copy and from copies of windows; more items than are summed at once.
CASES = [
    (3, 8, 8, 32, 3, 3, 32, SAME),
    (2, 9, 7, 5, 3, 2, 37, Window((2, 3), ((1, 0), (2, 1)), (2, 1))),
    (2, 9, 7, 8, 3, 2, 17, Window((2, 1), ((1, 5), (2, 9)), (2, 2))),
    (300, 1, 1, 300, 1, 1, 10, POINT),
    (2, 5, 5, 64, 3, 3, 20, POINT),
    (1, 30, 40, 3, 7, 7, 16, Window((2, 2), ((3, 3), (3, 3)))),
    (1, 1, 700, 2, 1, 3, 9, Window((1, 2), ((0, 0), (4, 0)), (1, 3))),
    (2, 3, 3, 70, 2, 2, 40, Window((1, 1), ((7, 7), (7, 7)))),
    (2, 4, 4, 512, 3, 3, 33, SAME),
]


def window_sum(x, kernel, term, window, padding):
    """Sum of `term` over windows; `padding` [n] stands for padded pixels, or None skips them."""
    n, height, width, _ = x.shape
    (sh, sw), ((top, _), (left, _)), (dh, dw) = window
    oh, ow = window.positions(x.shape[1:], kernel.shape)
    y = np.zeros((n, oh, ow, kernel.shape[3]), np.int64)
    for i, j in np.ndindex(*kernel.shape[:2]):
        rows, columns = np.arange(oh) * sh + i * dh - top, np.arange(ow) * sw + j * dw - left
        inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
        pixels = x[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)]
        inside = inside[None, :, :, None]
        if padding is not None:
            pixels = np.where(inside, pixels, padding[:, None, None, None])
        for o in range(kernel.shape[3]):
            terms = term(pixels, kernel[i, j, :, o]).sum(axis=3)
            y[..., o] += terms if padding is not None else terms * inside[..., 0]
    return y


def wide(array):
    return array.astype(np.int64)


def bytes_of(sizes, seed=0):
    n, height, width, channels, kh, kw, features = sizes
    rng = np.random.default_rng(seed)
    shapes = (n, height, width, channels), (n,), (kh, kw, channels, features)
    return [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]


def signs_of(sizes, seed=0):
    x, _, kernel = bytes_of(sizes, seed)
    return [np.where(a >= 128, 1.0, -1.0).astype(np.float32) for a in (x, kernel)]


@jax.jit
def packed(x, kernel):
    return pack_signs(x), jnp.moveaxis(pack_signs(jnp.moveaxis(kernel, 2, -1)), -1, 2)


@functools.partial(jax.jit, static_argnames="window")
def both(x, padding, kernel, a, b, window):
    return (
        adder_conv_uint8(x, padding, kernel, window=window),
        binary_conv_packed(*packed(a, b), channels=x.shape[3], window=window),
    )


def check(sizes, window, seed=0, bodies=BODIES):
    x, padding, kernel = bytes_of(sizes, seed)
    a, b = signs_of(sizes, seed)
    distances = -window_sum(wide(x), wide(kernel), lambda x, w: abs(x - w), window, wide(padding))
    agreements = window_sum(wide(a), wide(b), np.multiply, window, None)
    for body in bodies:
        with kernels.use(body):
            results = both(x, padding, kernel, a, b, window)
        for y, expected in zip(results, (distances, agreements), strict=True):
            assert y.dtype == jnp.int32
            np.testing.assert_array_equal(y, expected, err_msg=body)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_definition(case):
    *sizes, window = case
    check(sizes, window, bodies=BODIES if case in CASES[1:3] else BODIES[-1:])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, top) for top in (5, 9, 9, 40, 4, 4, 40))),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pads=st.tuples(*(st.integers(0, 5) for _ in range(4))),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_any_window(sizes, strides, pads, dilation, seed):
    window = Window(strides, (pads[:2], pads[2:]), dilation)
    n, height, width, channels, kh, kw, features = sizes
    height = max(height, (kh - 1) * dilation[0] + 1 - sum(pads[:2]))
    width = max(width, (kw - 1) * dilation[1] + 1 - sum(pads[2:]))
    check((n, height, width, channels, kh, kw, features), window, seed)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("x, w", [(0, 255), (255, 0), (255, 255)])
@pytest.mark.parametrize("channels", [7, 512])
def test_extreme_values(body, x, w, channels):
    images = np.full((2, 4, 4, channels), x, np.uint8)
    kernel = np.full((3, 3, channels, 10), w, np.uint8)
    terms = 9 * channels
    with kernels.use(body):
        a, b = (np.where(v == 255, 1.0, -1.0).astype(np.float32) for v in (images, kernel))
        distances, agreements = both(images, np.full(2, x, np.uint8), kernel, a, b, SAME)
    np.testing.assert_array_equal(distances, np.full((2, 4, 4, 10), -terms * abs(x - w)))
    inside = np.asarray(agreements)[:, 1:-1, 1:-1]  # windows without padding, which adds nothing
    np.testing.assert_array_equal(inside, np.full((2, 2, 2, 10), terms if x == w else -terms))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("channels", [3, 31, 32, 100])
def test_packing(body, channels):
    x = np.random.default_rng(channels).normal(size=(3, 5, channels)).astype(np.float32)
    x.flat[:7] = 0.0, -0.0, np.nan, np.inf, -np.inf, 2e-38, -2e-38  # normal
    expected = np.zeros((3, 5, -(-channels // 32)), np.uint32)
    for c in range(channels):
        expected[..., c // 32] |= (x[..., c] >= 0).astype(np.uint32) << np.uint32(c % 32)
    with kernels.use(body):
        np.testing.assert_array_equal(pack_signs(x), expected)
        np.testing.assert_array_equal(jax.vmap(pack_signs)(x), expected)
    np.testing.assert_array_equal(pack_signs(jnp.bfloat16(x)), expected)


@needs_library
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one set")
@pytest.mark.parametrize("name", ["sse2", "avx2", "avx512"])
def test_every_instruction_set(name):
    cpuinfo = Path("/proc/cpuinfo")
    if name != "sse2" and not (cpuinfo.exists() and f"{name[:6]}" in cpuinfo.read_text()):
        pytest.skip(f"this processor has no {name}")
    code = (
        "import pytest, sys; from nnlab import kernels;"
        "print(kernels.status()['binary_conv_packed']['cpu']);"
        f"sys.exit(pytest.main(['-q', '-p', 'no:xdist', {__file__!r}, '-k',"
        " 'test_definition or test_extreme or test_packing']))"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "NNLAB_KERNELS_ISA": name}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"native ({name})" in done.stdout


def test_concurrent_calls():
    *sizes, window = CASES[0]
    x, padding, kernel = bytes_of(sizes)
    a, b = packed(*signs_of(sizes))

    @jax.jit
    def both(x, a):
        return [
            adder_conv_uint8(x + i, padding, kernel, window=window)
            + binary_conv_packed(a ^ i, b, channels=32, window=window)
            for i in range(8)
        ]

    expected = both(x, a)
    with ThreadPoolExecutor(4) as threads:
        for call in [threads.submit(both, x, a) for _ in range(25)]:
            for y, alone in zip(call.result(), expected, strict=True):
                np.testing.assert_array_equal(y, alone)


@pytest.mark.parametrize("body", BODIES[-1:])
def test_vmap_equals_a_loop(body):
    *sizes, window = CASES[1]
    bytes_, words = [bytes_of(sizes, s) for s in range(3)], [signs_of(sizes, s) for s in range(3)]
    words = [packed(*pair) for pair in words]
    for f, sets in (
        (lambda *a: adder_conv_uint8(*a, window=window), bytes_),
        (lambda *a: binary_conv_packed(*a, channels=5, window=window), words),
    ):
        stacked = [np.stack(arrays) for arrays in zip(*sets, strict=True)]
        last = len(stacked) - 1
        for axes in ((1, *[0] * last), (*[0] * last, 1), (1,) * len(stacked)):
            picked = [many if axis else many[0] for many, axis in zip(stacked, axes, strict=True)]
            with kernels.use(body):
                mapped = jax.vmap(f, [0 if axis else None for axis in axes])(*picked)
                for i in range(3):
                    alone = [many[i * axis] for many, axis in zip(stacked, axes, strict=True)]
                    np.testing.assert_array_equal(mapped[i], f(*alone))


@pytest.mark.parametrize("body", BODIES)
def test_scan(body):
    x, padding, kernel = bytes_of((2, 5, 5, 4, 3, 3, 4))

    def step(x, _):
        return adder_conv_uint8(x, padding, kernel, window=SAME).astype(jnp.uint8), None

    with kernels.use(body):
        looped = jax.jit(lambda x: jax.lax.scan(step, x, length=3)[0])(x)
        for _ in range(3):
            x = step(x, None)[0]
    np.testing.assert_array_equal(looped, x)


@pytest.mark.parametrize("body", BODIES[-1:])
@pytest.mark.parametrize(
    "sizes", [(0, 4, 4, 2, 3, 3, 5), (2, 4, 4, 0, 3, 3, 5), (2, 4, 4, 2, 3, 3, 0)]
)
def test_empty_arrays(body, sizes):
    n, height, width, _, _, _, features = sizes
    with kernels.use(body):
        results = both(*bytes_of(sizes), *signs_of(sizes), SAME)
    for y in map(np.asarray, results):
        assert y.shape == (n, height, width, features) and not np.any(y)


@needs_library
def test_the_platform_decides_and_nothing_is_copied():
    *sizes, window = CASES[0]
    traced = adder_conv_uint8.trace(*bytes_of(sizes), window=window)
    for target, native in (("cpu", True), ("cuda", False), ("tpu", False)):
        text = traced.lower(lowering_platforms=(target,)).as_text()
        assert ("nnlab_adder_conv_uint8" in text) == native
    memory = traced.lower().compile().memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes == 0
