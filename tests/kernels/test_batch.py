"""Kernels on four simulated devices: every device computes its images, and the results are one's.

Operands are multiples of 1/4 of magnitude at most 2, so that sums are exact in any order.
"""

import os
import subprocess
import sys

import pytest

from nnlab import kernels

BODIES = ["xla", *(["native"] if "native" in kernels.status()["adder_conv"]["cpu"] else [])]

SETUP = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from nnlab import kernels
from nnlab.ops.adder import adder_conv, adder_dense
from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.convolution import conv
from nnlab.ops.integer import adder_conv_uint8, adder_dense_uint8
from nnlab.ops.packed import binary_conv_packed, binary_dense_packed, pack_signs
from nnlab.ops.packed_ternary import pack_ternary, ternary_dense_packed
from nnlab.ops.pooling import max_pool

assert jax.device_count() == 4
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
everywhere = NamedSharding(mesh, PartitionSpec())

def quarters(seed, *shape):
    return np.float32(np.random.default_rng(seed).integers(-8, 9, shape) / 4)

def sign_rules(x, kernel):
    return adder_conv(x, kernel, filter_rule="sign", input_rule="sign")

def full_rules(x, kernel):
    return adder_conv(x, kernel, input_rule="full")

def words(*shape):
    return np.random.default_rng(4).integers(0, 2**8, shape).astype(np.uint32)

def strided(x, kernel):
    return adder_conv(x, kernel, strides=2)

def value_and_cotangents(op):
    def function(*operands):
        y, pull = jax.vjp(op, *operands)
        return y, *pull(y)
    return function

IMAGES = quarters(0, 8, 5, 4, 3), quarters(1, 3, 3, 3, 5)
VECTORS = quarters(2, 8, 6), quarters(3, 6, 5)
CASES = [
    (sign_rules, IMAGES), (strided, IMAGES), (adder_conv, IMAGES), (conv, IMAGES),
    (binary_conv, IMAGES), (adder_dense, VECTORS),
]

def assert_equal(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)

def compiled(function, x, kernel, axes):
    split = NamedSharding(mesh, PartitionSpec(axes))
    jitted = jax.jit(function, in_shardings=(split, everywhere))
    return jitted.lower(x, kernel).compile()

def assert_no_images_travel(program):
    text = program.as_text()
    assert "all-gather" not in text and "all-to-all" not in text
"""

ON_A_MESH = """
for op, operands in CASES:
    function = value_and_cotangents(op)
    expected = jax.jit(function)(*operands)
    for axes in ("data", ("data", "model")):
        program = compiled(function, *operands, axes)
        assert_equal(program(*operands), expected)
        assert_no_images_travel(program)
"""

IN_LOOPS_AND_UNDER_VMAP = """
x, kernel = IMAGES

def twice(x, kernel):
    def step(total, scale):
        return total + adder_conv(scale * x, kernel), None
    return jax.lax.scan(step, adder_conv(x, kernel), np.float32([1, 2]))[0]

def over_sets(x, kernel):
    return jax.vmap(adder_conv, (1, None), 1)(x.reshape(4, 2, *x.shape[1:]), kernel)

for function in (twice, over_sets, value_and_cotangents(twice)):
    expected = jax.jit(function)(x, kernel)
    program = compiled(function, x, kernel, "data")
    assert_equal(jax.tree.leaves(program(x, kernel)), jax.tree.leaves(expected))
"""

ON_AN_EXPLICIT_MESH = """
explicit = jax.make_mesh((4,), ("data",))  # the types of its arrays say how they are split
assert explicit.axis_types == (AxisType.Explicit,)
WEIGHTS = adder_conv, conv, binary_conv, sign_rules, strided, full_rules, adder_dense
PACKED = {
    binary_conv_packed: (words(8, 5, 4, 2), words(3, 3, 2, 5), 40),
    binary_dense_packed: (words(8, 2), words(2, 5), 64),
}
BYTES = np.uint8(IMAGES[0] + 2), np.uint8(IMAGES[1] + 2)

def check(function, x, *others):
    expected = jax.tree.leaves(function(x, *others))
    x = jax.device_put(x, NamedSharding(explicit, PartitionSpec("data")))
    others = jax.device_put(others, NamedSharding(explicit, PartitionSpec()))
    results = jax.tree.leaves(jax.jit(function)(x, *others))
    assert_equal(results, expected)
    assert_equal(jax.tree.leaves(function(x, *others)), expected)
    spec = jax.typeof(results[0]).sharding.spec
    assert spec[0] == "data" and not any(spec[1:]), spec
    assert_no_images_travel(jax.jit(function).lower(x, *others).compile())

for op in WEIGHTS:
    check(value_and_cotangents(op), *(VECTORS if op is adder_dense else IMAGES))
check(value_and_cotangents(adder_conv), quarters(5, 8, 5, 3), quarters(6, 3, 3, 2))
check(value_and_cotangents(conv), quarters(5, 8, 3, 2, 4, 3), quarters(6, 2, 1, 2, 3, 2))
for op in (max_pool, sign_ste):
    check(value_and_cotangents(op), IMAGES[0])
check(pack_signs, IMAGES[0])
check(pack_signs, VECTORS[0])
check(adder_conv_uint8, *BYTES)
check(adder_dense_uint8, np.uint8(VECTORS[0] + 2), np.uint8(VECTORS[1] + 2))
for op, (x, kernel, channels) in PACKED.items():
    check(lambda x, kernel: op(x, kernel, channels=channels), x, kernel)
check(
    lambda x, weights: value_and_cotangents(lambda x: ternary_dense_packed(x, weights))(x),
    VECTORS[0], pack_ternary(np.int8(VECTORS[1] > 0)),
)
"""

IN_GROUPS_AND_IN_SPACE = """
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.layers import GroupedConv

def grouped(conv, size, **options):
    layer = GroupedConv(conv, 2, 4, size, **options)
    weights = "adder_kernel" if conv is ADDER.conv else "kernel"

    def op(x, kernel):
        return layer.apply({"params": {f"{conv.__name__}_0": {weights: kernel}}}, x)
    return op

def of_sets_and_kernels(x, kernels):
    sets = x.reshape(4, 2, *x.shape[1:])
    return jax.vmap(lambda x: jax.vmap(sign_rules, (None, 0), 1)(x, kernels), 1, 1)(sets)

cases = [
    (adder_conv, (quarters(5, 8, 5, 3), quarters(6, 3, 3, 2))),
    (adder_conv, (quarters(5, 8, 3, 3, 4, 3), quarters(6, 2, 2, 2, 3, 2))),
    (of_sets_and_kernels, (IMAGES[0], quarters(6, 2, 3, 3, 3, 5))),
    (
        grouped(FLOAT.conv, (2, 3), kernel_dilation=(2, 1)),
        (quarters(5, 8, 4, 4, 6), quarters(6, 2, 2, 3, 3, 2)),
    ),
    (
        grouped(ADDER.conv, (2, 3), kernel_dilation=(2, 1)),
        (quarters(5, 8, 4, 4, 6), quarters(6, 2, 2, 3, 3, 2)),
    ),
    (
        grouped(ADDER.conv, (2, 1, 2)),
        (quarters(5, 8, 3, 2, 3, 6), quarters(6, 2, 2, 1, 2, 3, 2)),
    ),
]
for op, operands in cases:
    function = value_and_cotangents(op)
    program = compiled(function, *operands, "data")
    assert_equal(program(*operands), jax.jit(function)(*operands))
    if sys.argv[1] == "native":  # XLA gathers the images of groups for its own convolution
        assert_no_images_travel(program)
"""

A_BATCH_THAT_DOES_NOT_DIVIDE = """
x, kernel = IMAGES

def function(x, kernel):
    return value_and_cotangents(sign_rules)(x[1:], kernel)

assert_equal(compiled(function, x, kernel, "data")(x, kernel), jax.jit(function)(x, kernel))
"""

IN_SHARD_MAP = """
for op, operands in CASES:
    function = value_and_cotangents(op)
    expected = jax.jit(function)(*operands)
    specs = PartitionSpec("data"), PartitionSpec()
    for check_vma in (True, False):
        def mine(x, kernel):
            y, dx, dw = function(x, kernel)
            return y, dx, dw if check_vma else jax.lax.psum(dw, "data")
        mapped = jax.shard_map(
            mine, mesh=mesh, in_specs=specs, out_specs=(specs[0], *specs), check_vma=check_vma
        )
        assert_equal(jax.jit(mapped)(*operands), expected)
"""


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    "program",
    [
        ON_A_MESH,
        ON_AN_EXPLICIT_MESH,
        IN_LOOPS_AND_UNDER_VMAP,
        IN_GROUPS_AND_IN_SPACE,
        A_BATCH_THAT_DOES_NOT_DIVIDE,
        IN_SHARD_MAP,
    ],
)
def test_on_four_simulated_devices(program, body):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    indented = "".join(f"    {line}\n" for line in program.splitlines())
    code = f"{SETUP}\nwith kernels.use(sys.argv[1]):\n{indented}"
    run = subprocess.run(
        [sys.executable, "-c", code, body], env=os.environ | flags, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
