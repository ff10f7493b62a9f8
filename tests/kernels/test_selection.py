"""Which body serves: by platform, by request, and where the native library is missing."""

import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from nnlab import kernels
from nnlab.errors import InputError
from nnlab.kernels import adder
from nnlab.kernels.window import POINT

X: Any = np.ones((1, 4, 4, 2), np.float32)
KERNEL: Any = np.zeros((2, 2, 2, 3), np.float32)
TARGET = "nnlab_conv"

needs_library = pytest.mark.skipif(
    kernels.status()["adder_conv"]["cpu"] == "xla", reason="the native kernels are not built"
)


def forward(x, kernel):
    return adder.adder_conv(x, kernel, window=POINT)


def test_status_names_every_kernel_and_platform():
    status = kernels.status()
    assert {"adder_conv", "adder_conv_input_gradient", "binary_conv"} <= status.keys()
    assert all(bodies.keys() == {"cpu", "gpu", "tpu"} for bodies in status.values())


@needs_library
def test_the_platform_decides():
    traced = jax.jit(forward).trace(X, KERNEL)
    for platform, native in (("cpu", True), ("rocm", False), ("tpu", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert (TARGET in text) == native, platform
    assert TARGET in traced.lower(lowering_platforms=("cpu", "tpu")).as_text()
    with kernels.use("xla"):  # Pallas has no programs for a CPU and a GPU at once
        traced = jax.jit(forward).trace(X, KERNEL)
        assert TARGET not in traced.lower(lowering_platforms=("cpu", "cuda")).as_text()


@needs_library
def test_a_program_for_a_cpu_alone_holds_one_body_with_the_same_results():
    def chooses():
        return "platform_index" in str(jax.make_jaxpr(forward)(X, KERNEL))

    expected = forward(X, KERNEL)
    assert chooses()
    with kernels.use("cpu"):
        assert not chooses() and "pallas" not in kernels.status()["adder_conv"].values()
        np.testing.assert_array_equal(jax.jit(forward)(X, KERNEL), expected)


@needs_library
def test_a_choice_ends_with_its_context():
    jitted = jax.jit(forward)

    def is_native():
        return TARGET in jitted.lower(X, KERNEL).as_text()

    with kernels.use("xla"):
        jitted(X, KERNEL)
        assert not is_native()
        assert kernels.status()["adder_conv"]["cpu"] == "xla"
        with kernels.use("native"):
            assert is_native()
        assert not is_native()
    assert is_native()
    assert kernels.status()["adder_conv"]["cpu"].startswith("native")


@needs_library
def test_float64_stays_with_xla():
    with jax.enable_x64(True):
        x, kernel = X.astype(np.float64), KERNEL.astype(np.float64)
        assert TARGET not in jax.jit(forward).lower(x, kernel).as_text()


def test_unknown_body():
    body: Any = "cuda"
    with pytest.raises(InputError, match="'cuda'"):
        kernels.use(body)


def run(code, **env):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""), **env},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


WITHOUT_LIBRARY = """
import sys, warnings

class Hide:
    def find_spec(self, name, *_):
        if name == "nnlab.kernels._native":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
import jax, numpy as np
from nnlab import kernels
from nnlab.errors import InputError
from nnlab.ops.adder import adder_conv

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    kernel = np.zeros((2, 2, 2, 3), "f4")
    y = adder_conv(np.ones((1, 3, 3, 2), "f4"), kernel, padding="VALID")
    assert (np.asarray(y) == -8).all()
    jax.eval_shape(adder_conv, np.ones((1, 4, 4, 2), "f4"), kernel)
print(len(caught), "notice:", caught[0].message)
print(kernels.status()["adder_conv"])
try:
    kernels.use("native")
except InputError as error:
    print(error)
"""


def test_without_the_library_xla_serves_and_one_notice_says_so():
    out = run(WITHOUT_LIBRARY)
    assert "1 notice: nnlab runs on XLA's bodies" in out, out
    assert "two to four times as long" in out
    assert "{'cpu': 'xla', 'gpu': 'pallas', 'tpu': 'xla'}" in out
    assert "use() needs the native kernels, but the native ones were not built." in out


@needs_library
def test_an_instruction_set_that_is_not_there():
    out = run("from nnlab import kernels; kernels.status()", NNLAB_KERNELS_ISA="mmx")
    assert "InputError: NNLAB_KERNELS_ISA" in out
