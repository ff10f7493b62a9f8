"""Both bodies of the packed ternary product against its definition in 64-bit integers: equal."""

import itertools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import kernels
from nnlab.kernels.ternary import pack, ternary_dense_packed, unpack

NATIVE = kernels.status()["ternary_dense_packed"]["cpu"] != "xla"
BODIES: list[Any] = ["xla", "native"] if NATIVE else ["xla"]
needs_library = pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
CPP = Path(kernels.__file__).parent / "cpp"


def codes_of(digits):
    """Weights of one line: byte i holds `digits[i]`, the first of them that of the first input."""
    each = np.zeros((64, digits.shape[1]), np.int8)
    each[: len(digits)] = digits - 1
    return each.reshape(16, 4, -1).transpose(2, 1, 0).reshape(-1, 16)


def test_goldens_of_five_in_a_byte():
    golden = np.array([[2, 0, 1, 2, 1], [1, 1, 1, 1, 1], [2, 2, 2, 2, 2], [0, 0, 0, 0, 0]])
    assert pack(jnp.array(codes_of(golden)), 5)[0, 0, :5].tolist() == [203, 124, 248, 0, 124]


def test_goldens_of_four_in_a_byte():
    golden = np.array([[2, 0, 1, 2], [1, 1, 1, 1], [2, 2, 2, 2], [0, 1, 0, 0]])
    assert pack(jnp.array(codes_of(golden)), 4)[0, 0, :4].tolist() == [146, 85, 170, 4]


def test_all_bytes_come_back():
    every = np.array(list(itertools.product(range(3), repeat=5)))
    lines = [codes_of(every[at : at + 64]) for at in range(0, 243, 64)]
    codes = np.concatenate(lines)
    packed = pack(jnp.array(codes), 5)
    assert len(np.unique(packed)) == 243
    np.testing.assert_array_equal(unpack(packed, 80, 16, 5), codes)


def operands(sizes, kind="random"):
    rows, inputs, outputs = sizes
    rng = np.random.default_rng(inputs)
    if kind == "random":
        w = rng.integers(-1, 2, (inputs, outputs))
        x = rng.integers(-128, 128, (rows, inputs))
    else:
        w, x = np.ones((inputs, outputs)), np.full((rows, inputs), kind)
    return x.astype(np.int8), w.astype(np.int8)


def check(sizes, digits, kind, bodies):
    x, w = operands(sizes, kind)
    _, inputs, outputs = sizes
    packed = pack(jnp.array(w), digits)
    np.testing.assert_array_equal(unpack(packed, inputs, outputs, digits), w)
    for body in bodies:
        with kernels.use(body):
            y = ternary_dense_packed(x, packed, features=outputs, digits=digits)
        assert y.dtype == jnp.int32
        expected = x.astype(np.int64) @ w.astype(np.int64)
        np.testing.assert_array_equal(y, expected, err_msg=body)


# Odd numbers of inputs, one row, tiles of unequal sizes, a block without a second.
@pytest.mark.parametrize("digits", [4, 5])
@pytest.mark.parametrize("sizes", [(1, 333, 40), (29, 77, 33)], ids=str)
def test_definition(sizes, digits):
    check(sizes, digits, "random", BODIES if sizes == (29, 77, 33) else BODIES[-1:])


@pytest.mark.parametrize("digits", [4, 5])
@pytest.mark.parametrize("kind", [127, -128])
@pytest.mark.parametrize("rows", [1, 2])
def test_no_sum_wraps(rows, kind, digits):
    """Where every weight is 1: sums of 16 bits would wrap from 65 products on."""
    check((rows, 4096, 16), digits, kind, BODIES if rows == 2 else BODIES[-1:])


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("digits, inputs", [(4, 530_000), (5, 170_001)])
@pytest.mark.parametrize("kind", [127, -128, "random"])
def test_more_inputs_than_are_summed_at_once(digits, inputs, kind):
    check((1, inputs, 17), digits, kind, ["native"])


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("digits", [4, 5])
def test_every_tile(digits):
    for rows in range(1, 14):
        check((rows, 121, 50), digits, "random", ["native"])
    for sizes in ((1, 1, 1), (25, 64, 300), (300, 40, 16)):
        check(sizes, digits, "random", ["native"])


@pytest.mark.parametrize("body", BODIES[-1:])
def test_vmap_equals_a_loop(body):
    x, w = operands((6, 45, 20))
    x, w = x.reshape(3, 2, 45), np.stack([w, -w, w * 0])
    packed = jax.vmap(lambda w: pack(w, 5))(w)

    def op(x, packed):
        return ternary_dense_packed(x, packed, features=20, digits=5)

    with kernels.use(body):
        shared = jax.vmap(op, (0, None))(x, packed[0])
        own = jax.vmap(op)(x, packed)
    wide = w.astype(np.int64)
    np.testing.assert_array_equal(shared, x @ wide[0])
    np.testing.assert_array_equal(own, x @ wide)


@pytest.mark.parametrize("sizes", [(2, 0, 3), (2, 5, 0)])
def test_empty_arrays(sizes):
    check(sizes, 5, "random", BODIES[-1:])


@needs_library
def test_the_platform_decides_and_nothing_is_copied():
    x, w = operands((1, 320, 64))
    traced = ternary_dense_packed.trace(x, pack(jnp.array(w), 5), features=64, digits=5)
    for target, native in (("cpu", True), ("cuda", False), ("tpu", False)):
        text = traced.lower(lowering_platforms=(target,)).as_text()
        assert ("nnlab_ternary_dense_packed" in text) == native
    memory = traced.lower().compile().memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes <= x.nbytes


@needs_library
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one set")
@pytest.mark.parametrize("name", ["sse2", "avx2", "avx512", "avx512vnni", "avx512vbmi"])
def test_every_instruction_set(name):
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "sse2"
    flag = {"avx512": "avx512bw", "avx512vnni": "avx512_vnni"}.get(name) or name
    if flag not in cpuinfo:
        pytest.skip(f"this processor has no {name}")
    code = (
        "import pytest, sys; from nnlab import kernels;"
        f"sys.exit(pytest.main(['-q', '-p', 'no:xdist', {__file__!r}, '-k',"
        " 'definition or wraps or tile or at_once']))"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "NNLAB_KERNELS_ISA": name}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_loops_of_an_arm_processor_in_an_emulator(tmp_path):
    """Those that an aarch64 build has, with everything around them left out."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64")
    sources = CPP / "ternary_loops.cc", Path(__file__).with_name("ternary_loops_test.cc")
    flags = ["-std=c++17", "-O3", "-static", "-Wall", "-Wextra", "-DNNLAB_LOOPS=kBaselineLoops"]
    program = tmp_path / "test"
    subprocess.run([compiler, *flags, f"-I{CPP}", *map(str, sources), "-o", program], check=True)
    done = subprocess.run([emulator, program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "neon: 0 of 2592 sums are wrong\n", done.stdout
