"""Calls of the native bodies: from many threads, under transformations, with arrays of no size."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import kernels
from nnlab.kernels import adder
from nnlab.kernels.window import Window
from nnlab.ops.adder import adder_conv

pytestmark = pytest.mark.skipif(
    kernels.status()["adder_conv"]["cpu"] == "xla", reason="the native kernels are not built"
)
SAME = Window(padding=((1, 1), (1, 1)))
WIDE = 3, 8, 8, 32, 3, 3, 32  # n, height, width, in, kh, kw, out
UNEVEN = 2, 9, 7, 5, 3, 2, 37, Window((2, 3), ((1, 0), (2, 1)), (2, 1))


def operands(sizes, window, seed=0) -> Any:
    """Cotangent, images and kernel of float32."""
    n, height, width, channels, kh, kw, features = sizes
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, height, width, channels))
    kernel = rng.normal(size=(kh, kw, channels, features))
    g = rng.normal(size=(n, *window.positions(x.shape[1:], kernel.shape), features))
    return g.astype(np.float32), x.astype(np.float32), kernel.astype(np.float32)


def test_concurrent_calls():
    g, x, kernel = operands(WIDE, SAME)
    expected = adder.adder_conv(x, kernel, window=SAME)

    def eight(x, kernel):
        return [
            adder.adder_conv(x + i, kernel + i, window=SAME)
            + adder.adder_conv_input_gradient(g, x + i, kernel + i, rule="clip", window=SAME)
            for i in range(8)
        ]

    together = jax.jit(eight)
    alone = [np.sum(f) for f in map(np.asarray, together(x, kernel))]
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(adder.adder_conv, x, kernel, window=SAME) for _ in range(50)]
        programs = [threads.submit(together, x, kernel) for _ in range(10)]
        for call in calls:
            np.testing.assert_array_equal(call.result(), expected)
        for program in programs:
            assert [np.sum(y) for y in map(np.asarray, program.result())] == alone


def test_vmap_equals_a_loop():
    *sizes, window = UNEVEN
    sets = [operands(sizes, window, seed) for seed in range(3)]
    stacked = [np.stack(arrays) for arrays in zip(*sets, strict=True)]

    def passes(g, x, kernel):
        return (
            adder.adder_conv(x, kernel, window=window),
            adder.adder_conv_input_gradient(g, x, kernel, rule="clip", window=window),
            adder.adder_conv_filter_gradient(g, x, kernel, window=window),
        )

    alone = jax.jit(passes)
    for axes in ((1, 1, 0), (0, 0, 1), (1, 1, 1)):
        picked = [many if axis else many[0] for many, axis in zip(stacked, axes, strict=True)]
        together = jax.jit(jax.vmap(passes, [0 if axis else None for axis in axes], axis_size=3))
        with kernels.use("cpu"):
            mapped = [np.asarray(array) for array in together(*picked)]
        for i in range(3):
            own = [many[i * axis] for many, axis in zip(stacked, axes, strict=True)]
            for which, (got, expected) in enumerate(zip(mapped, alone(*own), strict=True)):
                np.testing.assert_array_equal(got[i], expected, err_msg=str(which))


def test_scan_and_donated_buffers():
    _, x, kernel = operands((2, 5, 5, 4, 3, 3, 4), SAME)

    def step(x, _):
        return adder.adder_conv(x, kernel, window=SAME) / 36, None

    looped = jax.jit(lambda x: jax.lax.scan(step, x, length=3)[0], donate_argnums=0)
    expected = x
    for _ in range(3):
        expected = step(expected, None)[0]
    np.testing.assert_allclose(looped(jnp.array(x)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "sizes", [(0, 4, 4, 2, 3, 3, 5), (2, 4, 4, 0, 3, 3, 5), (2, 4, 4, 2, 3, 3, 0)]
)
def test_empty_arrays(sizes):
    g, x, kernel = operands(sizes, SAME)
    with kernels.use("native"):
        assert not np.any(adder.adder_conv(x, kernel, window=SAME))
        dx = adder.adder_conv_input_gradient(g, x, kernel, rule="clip", window=SAME)
        dw = adder.adder_conv_filter_gradient(g, x, kernel, window=SAME)
    assert dx.shape == x.shape and not np.any(dx)
    assert dw.shape == kernel.shape and not np.any(dw)


def test_a_second_call_compiles_nothing(caplog):
    g, x, kernel = operands(WIDE, SAME)

    def passes(g, x, kernel):
        y, gradients = jax.vjp(lambda x, kernel: adder_conv(x, kernel), x, kernel)
        return y, gradients(g)

    compiled = jax.jit(passes)
    for already in (False, True):
        caplog.clear()
        with jax.log_compiles():
            jax.block_until_ready(compiled(g, x, kernel))
        assert any("Compiling" in record.message for record in caplog.records) != already


def test_no_temporary_arrays():
    g, x, kernel = operands(WIDE, SAME)
    compiled = adder.adder_conv_input_gradient.lower(g, x, kernel, rule="clip", window=SAME)
    memory = compiled.compile().memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes == 0
