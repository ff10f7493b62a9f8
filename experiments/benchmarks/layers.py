"""One layer, forward and with its gradients, in every body and beside its peers."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab import kernels
from nnlab.kernels import adder
from nnlab.kernels.window import Window
from nnlab.ops.adder import adder_conv
from nnlab.ops.convolution import conv
from nnlab.ops.integer import adder_conv_uint8
from nnlab.ops.packed import binary_conv_packed, pack_signs

Call = Callable[[], object]


class Layer(NamedTuple):
    size: int  # height and width of the images
    inputs: int
    taps: int  # a side
    outputs: int
    padding: int

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.padding, self.padding), (self.padding, self.padding)

    def terms(self, batch: int) -> int:
        positions = self.size + 2 * self.padding - self.taps + 1
        return batch * positions**2 * self.taps**2 * self.inputs * self.outputs


LAYERS = {
    "resnet20-16": Layer(32, 16, 3, 16, 1),
    "resnet20-32": Layer(16, 32, 3, 32, 1),
    "resnet20-64": Layer(8, 64, 3, 64, 1),
    "lenet5-6": Layer(32, 1, 5, 6, 0),
    "lenet5-16": Layer(14, 6, 5, 16, 0),
}
FORWARD, GRADIENT, BOTH = "forward", "input gradient", "forward + backward"
DISTANCE, CLIPPED, PRODUCT = "distance", "clipped gradient", "product"
BYTES, BITS = "distance of bytes", "agreement of bits"

PEERS = {
    FORWARD: ["PyTorch published adder", "torch.cdist", "PyTorch conv2d", "PyTorch int8 conv2d"],
    BOTH: ["PyTorch published adder", "PyTorch conv2d"],
}


def operands(layer: Layer, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, kernel and cotangent of the output, float32."""
    rng = np.random.default_rng(0)
    size = layer.size + 2 * layer.padding - layer.taps + 1
    shapes = (
        (batch, layer.size, layer.size, layer.inputs),
        (layer.taps, layer.taps, layer.inputs, layer.outputs),
        (batch, size, size, layer.outputs),
    )
    x, kernel, g = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, kernel, g


def jax_conv(x, kernel, layer):
    order = ("NHWC", "HWIO", "NHWC")
    pads = layer.pads
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=order)


def broadcast_adder(x, kernel, layer):
    """What one would write first, differentiated as it is."""
    order = ("NHWC", "HWIO", "NHWC")
    patches = lax.conv_general_dilated_patches(
        x, kernel.shape[:2], (1, 1), layer.pads, dimension_numbers=order
    )
    filters = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[3])
    return -jnp.abs(patches[..., None] - filters).sum(-2)


def nnlab_adder(x, kernel, layer):
    return adder_conv(x, kernel, padding=layer.pads)


def nnlab_conv(x, kernel, layer):
    return conv(x, kernel, padding=layer.pads)


def bytes_adder(x, kernel, layer):
    return adder_conv_uint8(x, kernel, padding=layer.pads, padding_value=128)


def binary(x, kernel, layer):
    return binary_conv_packed(x, kernel, channels=layer.inputs, padding=layer.pads)


def to_bytes(a):
    return jnp.clip(32 * a + 128, 0, 255).astype(jnp.uint8)


class Body(NamedTuple):
    """A function of (images, kernel, layer), and what each of its passes has to sum.

    `work` names the limits that bound a pass, each once for every term. `prepare(x, kernel)` gives
    what the function takes, outside of what is measured.
    """

    function: Callable[..., jax.Array]
    forced: kernels.Body
    work: dict[str, list[str]]
    prepare: Callable[..., tuple] = lambda x, kernel: (x, kernel)


GRADIENTS = {BOTH: [DISTANCE, CLIPPED, PRODUCT]}
ADDER_WORK = GRADIENTS | {FORWARD: [DISTANCE], GRADIENT: [CLIPPED]}
CONV_WORK = {FORWARD: [PRODUCT], BOTH: [PRODUCT] * 3}
BODIES = {
    "nnlab adder": Body(nnlab_adder, "native", ADDER_WORK),
    "nnlab adder, XLA body": Body(nnlab_adder, "xla", ADDER_WORK),
    "JAX broadcasting adder": Body(broadcast_adder, "xla", GRADIENTS | {FORWARD: [DISTANCE]}),
    "nnlab conv": Body(nnlab_conv, "native", CONV_WORK),
    "JAX conv": Body(jax_conv, "xla", CONV_WORK),
    "nnlab 8-bit adder": Body(
        bytes_adder,
        "native",
        {FORWARD: [BYTES]},
        lambda x, kernel: (to_bytes(x), to_bytes(kernel)),
    ),
    "nnlab binary, packed": Body(
        binary,
        "native",
        {FORWARD: [BITS]},
        lambda x, kernel: (pack_signs(x), pack_signs(kernel, axis=-2)),
    ),
    "nnlab binary, with packing": Body(
        lambda x, kernel, layer: binary(pack_signs(x), kernel, layer),
        "native",
        {FORWARD: [BITS]},
        lambda x, kernel: (x, pack_signs(kernel, axis=-2)),
    ),
}


def bodies(which: str, peers: bool) -> dict[str, list[str]]:
    """Who runs a pass, and the limits that bound them; PyTorch only with `peers`."""
    ours = {name: body.work[which] for name, body in BODIES.items() if which in body.work}
    return ours | ({name: [] for name in PEERS.get(which, [])} if peers else {})


def call(layer_name: str, body: str, which: str, batch: int) -> tuple[Call, int]:
    """The compiled call of a layer, and the bytes of its results."""
    layer = LAYERS[layer_name]
    x, kernel, g = operands(layer, batch)
    size = g.nbytes + (x.nbytes + kernel.nbytes if which == BOTH else 0)
    if body not in BODIES:
        import torch_peers

        return torch_peers.layer(body, which == BOTH, x, kernel, g, layer.padding), size
    function, forced, _, prepare = BODIES[body]

    def run(x, kernel, g):
        if which == FORWARD:
            return function(x, kernel, layer)
        if which == GRADIENT:
            window = Window(padding=layer.pads)
            return adder.adder_conv_input_gradient(g, x, kernel, rule="clip", window=window)
        y, gradients = jax.vjp(lambda x, kernel: function(x, kernel, layer), x, kernel)
        return y, gradients(g)

    arrays = (*prepare(*jax.device_put((x, kernel))), jax.device_put(g))
    with kernels.use(forced):
        program = jax.jit(run).lower(*arrays).compile()
    return lambda: jax.block_until_ready(program(*arrays)), size
