"""The native bodies of the convolutions against their definitions in float64."""

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab import kernels
from nnlab.kernels import adder, convolution, native
from nnlab.kernels.window import POINT, Window

pytestmark = pytest.mark.skipif(
    kernels.status()["adder_conv"]["cpu"] == "xla", reason="the native kernels are not built"
)
U = 2.0**-24  # half the distance of 1 to the next float32
VALUE_RULES = {"distance": lambda x, w: -abs(x - w), "product": np.multiply}
# Of cotangents of images and kernel: what multiplies the cotangent of the output.
INPUT_RULES = {
    "clip": lambda x, w: np.clip(w - x, -1, 1),
    "sign": lambda x, w: np.sign(w - x),
    "product": lambda x, w: w + np.zeros(x.shape),
}
FILTER_RULES = {"sign": lambda x, w: np.sign(x - w), "product": lambda x, w: x + np.zeros(w.shape)}
SAME = Window(padding=((1, 1), (1, 1)))
# Sizes (n, height, width, in, kh, kw, out) that reach every width of vectors and every road.
CASES = [
    (3, 8, 8, 32, 3, 3, 32, SAME),
    (2, 9, 7, 5, 3, 2, 37, Window((2, 3), ((1, 0), (2, 1)), (2, 1))),
    (5, 1, 1, 300, 1, 1, 10, POINT),
    (9, 12, 12, 1, 5, 5, 6, Window(padding=((2, 2), (2, 2)))),
    (4, 14, 14, 6, 5, 5, 16, POINT),
    (1, 40, 70, 3, 7, 7, 24, Window((2, 2), ((3, 3), (3, 3)))),
    (2, 6, 5, 70, 1, 1, 70, Window((3, 3))),
    (1, 1, 700, 2, 1, 3, 9, Window((1, 2), ((0, 0), (4, 0)), (1, 3))),
    (2, 40, 61, 7, 3, 3, 5, SAME),
    (9, 5, 15, 3, 5, 4, 4, Window(padding=((6, 7), (5, 9)))),
    (2, 16, 30, 2, 2, 3, 1, Window(padding=((1, 0), (3, 2)), dilation=(2, 3))),
]


BODIES: list[Any] = [native.conv, native.conv_input_gradient, native.conv_filter_gradient]


def windows_of(x, kernel, window):
    """(tap, slice of the padded image under it, pixels [n, oh, ow, in, 1], weights [in, out])."""
    (sh, sw), pads, (dh, dw) = window
    oh, ow = window.positions(x.shape[1:], kernel.shape)
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *pads, (0, 0)))
    for i, j in np.ndindex(*kernel.shape[:2]):
        rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
        columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
        seen = slice(None), rows, columns
        yield (i, j), seen, x[seen][..., None], kernel[i, j].astype(np.float64)


def forward(x, kernel, term, window):
    return sum(term(x, w).sum(axis=3) for _, _, x, w in windows_of(x, kernel, window))


def input_gradient(g, x, kernel, rule, window):
    n, height, width, channels = x.shape
    (top, bottom), (left, right) = window.padding
    dx = np.zeros((n, height + top + bottom, width + left + right, channels))
    for _, seen, pixels, weights in windows_of(x, kernel, window):
        dx[seen] += (g[:, :, :, None] * rule(pixels, weights)).sum(axis=4)
    return dx[:, top : top + height, left : left + width]


def filter_gradient(g, x, kernel, rule, window):
    dw = np.zeros(kernel.shape)
    for tap, _, pixels, weights in windows_of(x, kernel, window):
        dw[tap] = (g[:, :, :, None] * rule(pixels, weights)).sum(axis=(0, 1, 2))
    return dw


@functools.partial(jax.jit, static_argnames="window")
def native_results(g, x, kernel, window):
    conv, conv_input, conv_filter = BODIES
    return (
        [conv(x, kernel, rule=rule, window=window) for rule in VALUE_RULES],
        [conv_input(g, x, kernel, rule=rule, window=window) for rule in INPUT_RULES],
        [conv_filter(g, x, kernel, rule=rule, window=window) for rule in FILTER_RULES],
    )


def every_kernel(g, x, kernel, window):
    """(name, result, definition, definition with all terms positive) of each native body."""

    def size(rule):
        return lambda x, w: np.abs(rule(x, w))

    g64 = g.astype(np.float64)
    ys, dxs, dws = jax.device_get(native_results(g, x, kernel, window))
    for (name, rule), y in zip(VALUE_RULES.items(), ys, strict=True):
        yield name, y, *(forward(x, kernel, f, window) for f in (rule, size(rule)))
    for (name, rule), dx in zip(INPUT_RULES.items(), dxs, strict=True):
        if name == "clip":  # d is rounded before it is clipped: that error is of the size of 1
            bound = input_gradient(abs(g64), x, kernel, lambda x, w: 0 * (w - x) + 1, window)
        else:
            bound = input_gradient(abs(g64), x, kernel, size(rule), window)
        yield f"input {name}", dx, input_gradient(g64, x, kernel, rule, window), bound
    for (name, rule), dw in zip(FILTER_RULES.items(), dws, strict=True):
        bound = filter_gradient(abs(g64), x, kernel, size(rule), window)
        yield f"filter {name}", dw, filter_gradient(g64, x, kernel, rule, window), bound


def operands(sizes, window, seed=0, offset=0.0, scale=1.0):
    """Cotangent, images and kernel of float32."""
    n, height, width, channels, kh, kw, features = sizes
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, height, width, channels)) + offset) * scale
    kernel = (rng.normal(size=(kh, kw, channels, features)) + offset) * scale
    g = rng.normal(size=(n, *window.positions(x.shape[1:], kernel.shape), features))
    return g.astype(np.float32), x.astype(np.float32), kernel.astype(np.float32)


def check(g, x, kernel, window):
    """All kernels against their definitions, to the bounds that the docstrings state."""
    terms = max(kernel.size // kernel.shape[2], kernel.size // kernel.shape[3])
    for name, result, expected, size in every_kernel(g, x, kernel, window):
        steps = 300 + g.size / 256 if "filter" in name else 146 + terms / 144
        assert np.all(np.abs(result - expected) <= steps * U * size + 1e-43), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_definition(case):
    *sizes, window = case
    check(*operands(sizes, window), window)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, top) for top in (5, 9, 9, 21, 4, 4, 40))),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pads=st.tuples(*(st.integers(0, 5) for _ in range(4))),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_any_window(sizes, strides, pads, dilation, seed):
    window = Window(strides, (pads[:2], pads[2:]), dilation)
    n, height, width, channels, kh, kw, features = sizes
    extents = (kh - 1) * dilation[0] + 1, (kw - 1) * dilation[1] + 1
    height = max(height, extents[0] - sum(pads[:2]))
    width = max(width, extents[1] - sum(pads[2:]))
    sizes = n, height, width, channels, kh, kw, features
    check(*operands(sizes, window, seed), window)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, top) for top in (4, 12, 40, 8, 4, 4, 8))),
    pads=st.tuples(*(st.integers(0, 6) for _ in range(4))),
    dilation=st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 1)]),
    seed=st.integers(0, 99),
)
def test_few_channels(sizes, pads, dilation, seed):
    n, height, width, channels, kh, kw, features = sizes
    height, width = max(height, 2 * kh), max(width, 2 * kw)
    window = Window(padding=(pads[:2], pads[2:]), dilation=dilation)
    check(*operands((n, height, width, channels, kh, kw, features), window, seed), window)


@pytest.mark.parametrize(("offset", "scale"), [(10.0, 1e-6), (1e3, 1.0), (0.0, 1e6)])
def test_accuracy_of_many_terms(offset, scale):
    check(*operands((1, 3, 3, 512, 3, 3, 20), SAME, offset=offset, scale=scale), SAME)


@pytest.mark.parametrize(
    "case",
    [CASES[1], *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[2:])],
    ids=str,
)
def test_equals_xla(case):
    *sizes, window = case

    @jax.jit
    def every(g, x, kernel):
        return (
            adder.adder_conv(x, kernel, window=window),
            adder.adder_conv_input_gradient(g, x, kernel, rule="clip", window=window),
            adder.adder_conv_filter_gradient(g, x, kernel, window=window),
            convolution.convolve(x, kernel, window),
            convolution.convolve_input_gradient(g, x, kernel, window),
            convolution.convolve_filter_gradient(g, x, kernel, window),
        )

    found = []
    for body in ("xla", "native"):
        with kernels.use(body):
            found.append(map(np.asarray, every(*operands(sizes, window, seed=1))))
    for expected, result in zip(*found, strict=True):
        atol = 5e-6 * float(abs(expected).max())
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("place", ["g", "x", "kernel", "x and kernel"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("window", [SAME, Window((2, 2)), POINT])
@pytest.mark.parametrize("channels, features", [(20, 19), (4, 5)])
def test_not_finite(place, value, window, channels, features):
    kernel_size = 1 if window == POINT else 3
    sizes = (2, 6, 14, channels, kernel_size, kernel_size, features)
    g, x, kernel = operands(sizes, window)
    g[0, 0, 1, 3] = value if place == "g" else 0.5
    if "x" in place:
        x[0, 0, 1, 3] = x[1, 5, 5, -3] = value
    if "kernel" in place:
        kernel[0, 0, 3, 2] = kernel[-1, -1, -3, -1] = value
    with np.errstate(invalid="ignore"):
        for name, result, expected, _ in every_kernel(g, x, kernel, window):
            np.testing.assert_allclose(result, expected, 2e-5, 2e-5, err_msg=name)


def test_zeros_of_either_sign():
    with kernels.use("native"):
        x = np.array([0.0, -0.0, 1.0], np.float32).reshape(3, 1, 1, 1)
        kernel = np.array([-0.0, 0.0, 1.0], np.float32).reshape(1, 1, 1, 3)
        g = np.ones((3, 1, 1, 3), np.float32)
        dx = adder.adder_conv_input_gradient(g, x, kernel, rule="sign", window=POINT)
        # x = 0 differs from the third weight only: sgn(1 - 0) = 1; x = 1 from the first two.
        np.testing.assert_array_equal(np.ravel(dx), [1, 1, -2])
        dw = adder.adder_conv_filter_gradient(g, x, kernel, window=POINT)
        np.testing.assert_array_equal(np.ravel(dw), [1, 1, -2])


def in_another_process(code, **env):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **env}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one set")
@pytest.mark.parametrize("name", ["sse2", "avx2", "avx512"])
def test_every_instruction_set(name):
    cpuinfo = Path("/proc/cpuinfo")
    if name != "sse2" and not (cpuinfo.exists() and f"{name[:6]}" in cpuinfo.read_text()):
        pytest.skip(f"this processor has no {name}")
    values = "definition or few_channels or accuracy or not_finite or zeros"
    out = in_another_process(
        "import pytest, sys; from nnlab import kernels;"
        "print(kernels.status()['adder_conv']['cpu']);"
        f"sys.exit(pytest.main(['-q', '-p', 'no:xdist', {__file__!r}, '-k', {values!r}]))",
        NNLAB_KERNELS_ISA=name,
    )
    assert f"native ({name})" in out


@pytest.mark.slow
def test_number_of_threads_does_not_matter():
    code = (
        "import os, hashlib, importlib.util\n"
        "if {one}: os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
        "spec = importlib.util.spec_from_file_location('cases', {file!r})\n"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "digest = hashlib.sha256()\n"
        "for *sizes, w in t.CASES:\n"
        "    g, x, k = t.operands(sizes, w)\n"
        "    for y in (t.adder.adder_conv(x, k, window=w),\n"
        "              t.adder.adder_conv_input_gradient(g, x, k, rule='clip', window=w),\n"
        "              t.adder.adder_conv_filter_gradient(g, x, k, window=w)):\n"
        "        digest.update(t.np.asarray(y).tobytes())\n"
        "print(digest.hexdigest())"
    )
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not bind processes to processors")
    one, all_ = (in_another_process(code.format(one=one, file=__file__)) for one in (True, False))
    assert one == all_
