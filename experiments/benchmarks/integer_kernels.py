"""How fast is inference in bytes and in bits, against PyTorch's float32 convolution?

The 8-bit adder convolution and the binary convolution on packed signs, the latter also with the
packing of its float32 input, beside PyTorch's convolution (channels last, as many threads) of the
same shape, in one process and in turn. The limit is what a loop without memory sums on as many
threads. A word holds 32 signs: with 16 channels half of it is empty, and counts as such.

Batch 64 on one core of an AMD EPYC (Zen 4, AVX-512 with VPOPCNTDQ; the other was busy), jax 0.10.2,
torch 2.13.0, best of 250 in milliseconds, and its share of PyTorch's time:

===================  ============  ============  ===================  =======
ResNet-20, 3x3       8-bit adder   binary        packing and binary   PyTorch
===================  ============  ============  ===================  =======
32 x 32 x 16         0.97 (0.34)   0.39 (0.14)   0.51 (0.18)          2.83
16 x 16 x 32         0.87 (0.34)   0.21 (0.08)   0.25 (0.10)          2.58
8 x 8 x 64           0.83 (0.36)   0.18 (0.08)   0.20 (0.09)          2.30
===================  ============  ============  ===================  =======

The limit of bytes, 177 thousand million terms a second, would be 0.85 ms for each.

    taskset -c 0 python experiments/benchmarks/integer_kernels.py
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from measure import INTEGER_LIMITS, in_turn, limits

from nnlab import kernels
from nnlab.ops.integer import adder_conv_uint8
from nnlab.ops.packed import binary_conv_packed, pack_signs

LAYERS = {  # height and width, channels of inputs and outputs; taps are 3 x 3
    "ResNet-20, first stage": (32, 16),
    "ResNet-20, second stage": (16, 32),
    "ResNet-20, third stage": (8, 64),
}


@dataclass(frozen=True)
class Config:
    batch: int = 64
    repeats: int = 150  # of every measurement

    def __post_init__(self):
        if min(self.batch, self.repeats) < 1:
            raise ValueError(f"batch and repeats must be positive, not {self}.")


def programs(batch: int, size: int, channels: int):
    """{name: call} of one layer, compiled."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, size, size, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels, channels)).astype(np.float32)

    def compiled(function, *operands):
        operands = jax.device_put(operands)
        program = jax.jit(function).lower(*operands).compile()
        return lambda: program(*operands).block_until_ready()

    binary = functools.partial(binary_conv_packed, channels=channels)
    words, kernel_words = pack_signs(jnp.asarray(x)), pack_signs(jnp.asarray(kernel), axis=2)
    calls = {
        "8-bit adder": compiled(
            adder_conv_uint8, x.view(np.uint8)[..., ::4], kernel.astype(np.uint8)
        ),
        "binary": compiled(binary, words, kernel_words),
        "packing and binary": compiled(lambda x, w: binary(pack_signs(x), w), x, kernel_words),
        "packing": compiled(pack_signs, x),
    }
    try:
        import torch
    except ImportError:
        return calls
    image = torch.from_numpy(x).permute(0, 3, 1, 2)  # channels last in memory
    weight = (
        torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    )
    conv = functools.partial(torch.nn.functional.conv2d, image, weight, padding=1)
    return calls | {"PyTorch float32": torch.no_grad()(conv)}


def main(config: Config):
    of_bytes, of_bits = limits(INTEGER_LIMITS).values()
    print(f"limits: {of_bytes / 1e9:.0f} Gterm/s of bytes, {of_bits / 1e9:.0f} of bits")
    print(f"native bodies: {kernels.status()['adder_conv_uint8']['cpu']}\n")
    print(f"{'':20}{'ms, median / best':>19}{'of limit':>10}{'of PyTorch':>12}")
    for layer, (size, channels) in LAYERS.items():
        steps = config.batch * size * size * 9 * channels
        work = {
            "8-bit adder": steps * channels / of_bytes,
            "binary": steps * 32 * -(-channels // 32) / of_bits,
        }
        print(f"{layer}, batch {config.batch}, {steps * channels / 1e6:.0f} M terms")
        calls = programs(config.batch, size, channels)
        times = in_turn(calls, config.repeats, patience=10)
        for name in calls:
            median, best = np.median(times[name]), min(times[name])
            limit = f"{work[name] / best:10.2f}" if name in work else " " * 10
            peer = f"{best / min(times['PyTorch float32']):12.2f}" if len(calls) > 4 else ""
            print(f"{name:20}{1e3 * median:10.3f} /{1e3 * best:7.3f}{limit}{peer}")


if __name__ == "__main__":
    main(tyro.cli(Config))
