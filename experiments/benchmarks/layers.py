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

Call = Callable[[], object]


class Layer(NamedTuple):
    size: int  # height and width of the images
    inputs: int
    taps: int  # a side
    outputs: int
    padding: int

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

# What a pass has to sum: the limits that bound it, each once for every term.
ADDER_WORK = {FORWARD: [DISTANCE], BOTH: [DISTANCE, CLIPPED, PRODUCT]}
CONV_WORK = {FORWARD: [PRODUCT], BOTH: [PRODUCT] * 3}
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


def jax_conv(x, kernel, padding):
    order = ("NHWC", "HWIO", "NHWC")
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=order)


def broadcast_adder(x, kernel, padding):
    """What one would write first, differentiated as it is."""
    pads = [(padding, padding)] * 2
    order = ("NHWC", "HWIO", "NHWC")
    patches = lax.conv_general_dilated_patches(
        x, kernel.shape[:2], (1, 1), pads, dimension_numbers=order
    )
    filters = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[3])
    return -jnp.abs(patches[..., None] - filters).sum(-2)


def nnlab_adder(x, kernel, padding):
    return adder_conv(x, kernel, padding=((padding, padding),) * 2)


def nnlab_conv(x, kernel, padding):
    return conv(x, kernel, padding=((padding, padding),) * 2)


FUNCTIONS: dict[
    str, tuple[Callable[..., jax.Array], kernels.Body]
] = {  # name: the function and which of the kernels' bodies it runs on
    "nnlab adder": (nnlab_adder, "native"),
    "nnlab adder, XLA body": (nnlab_adder, "xla"),
    "JAX broadcasting adder": (broadcast_adder, "xla"),
    "nnlab conv": (nnlab_conv, "native"),
    "JAX conv": (jax_conv, "xla"),
}


def call(layer_name: str, body: str, which: str, batch: int) -> tuple[Call, int]:
    """The compiled call of a layer, and the bytes of its results."""
    layer = LAYERS[layer_name]
    x, kernel, g = operands(layer, batch)
    size = g.nbytes + (x.nbytes + kernel.nbytes if which == BOTH else 0)
    if body not in FUNCTIONS:
        import torch_peers

        return torch_peers.layer(body, which == BOTH, x, kernel, g, layer.padding), size
    function, forced = FUNCTIONS[body]

    def run(x, kernel, g):
        if which == FORWARD:
            return function(x, kernel, layer.padding)
        if which == GRADIENT:
            pads = layer.padding, layer.padding
            window = Window(padding=(pads, pads))
            return adder.adder_conv_input_gradient(g, x, kernel, rule="clip", window=window)
        y, gradients = jax.vjp(lambda x, kernel: function(x, kernel, layer.padding), x, kernel)
        return y, gradients(g)

    arrays = jax.device_put((x, kernel, g))
    with kernels.use(forced):
        program = jax.jit(run).lower(*arrays).compile()
    return lambda: jax.block_until_ready(program(*arrays)), size


def bodies(which: str, peers: bool) -> dict[str, list[str]]:
    """Who runs a pass, and the limits that bound them; PyTorch only with `peers`."""
    if which == GRADIENT:
        return {body: [CLIPPED] for body in ("nnlab adder", "nnlab adder, XLA body")}
    work = {body: (CONV_WORK if "conv" in body else ADDER_WORK)[which] for body in FUNCTIONS}
    return work | ({body: [] for body in PEERS[which]} if peers else {})
