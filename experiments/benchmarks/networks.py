"""Whole networks: a training step and the inference of a batch, ours beside JAX's and PyTorch's."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab import kernels, training
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.costs import count
from nnlab.models import LeNet5, VGGSmall, resnet20
from nnlab.optim import adder_recipe

Call = Callable[[], object]

NETWORKS = {  # the model, the shape of its images, the batch, and steps in one measurement
    "resnet20": (resnet20, (32, 32, 3), 128, 4),
    "vgg_small": (VGGSmall, (32, 32, 3), 32, 2),
    "lenet5": (LeNet5, (32, 32, 1), 256, 16),
}
INFERENCE, STEP = "inference", "training step"
EPOCH = "training step in an epoch"  # of some steps compiled as one program

_INIT = nn.initializers.he_normal()
FLAX = Arithmetic(  # Flax's own layers on JAX's own convolution and its gradients
    conv=functools.partial(nn.Conv, use_bias=False, kernel_init=_INIT),
    dense=functools.partial(nn.Dense, use_bias=False, kernel_init=_INIT),
    activation=nn.relu,
)
BODIES: dict[
    str, tuple[Arithmetic, Arithmetic, kernels.Body]
] = {  # the arithmetic of all layers but the first and the last, theirs, and the kernels' body
    "nnlab AdderNet": (ADDER, FLOAT, "native"),
    "nnlab AdderNet, XLA bodies": (ADDER, FLOAT, "xla"),
    "nnlab CNN": (FLOAT, FLOAT, "native"),
    "JAX CNN": (FLAX, FLAX, "xla"),
}
PEERS = {"PyTorch CNN": False, "PyTorch CNN, channels last": True}


def bodies(which: str, peers: bool) -> list[str]:
    """Who runs a pass; PyTorch only with `peers`."""
    if which == EPOCH:  # JAX's own gradients take minutes in a loop
        return ["nnlab AdderNet", "nnlab CNN"]
    return [*BODIES, *(PEERS if peers else ())]


def steps(network: str, which: str) -> int:
    return NETWORKS[network][3] if which == EPOCH else 1


def call(network: str, body: str, which: str) -> Call:
    """The logits of a batch, a training step, or an epoch of `steps(network, EPOCH)`."""
    build, shape, batch, _ = NETWORKS[network]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(steps(network, which) * batch, *shape)).astype(np.float32)
    labels = rng.integers(0, 10, len(images))
    if body in PEERS:
        import torch_peers

        return torch_peers.network(network, which == STEP, images, labels, PEERS[body])
    layers, ends, forced = BODIES[body]
    model = build(arithmetic=layers, first=ends, classifier=ends)
    optimizer = adder_recipe(steps=100_000)
    with kernels.use(forced):
        state = training.init(jax.random.key(0), model, optimizer, jnp.asarray(images))
        data = jax.device_put((images, labels.astype(np.int32)))
        if which == INFERENCE:
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            infer = jax.jit(lambda v, x: model.apply(v, x, train=False))
            program = infer.lower(variables, data[0]).compile()
            return lambda: jax.block_until_ready(program(variables, data[0]))
        step = training.train_step(model, optimizer)
        train = step if which == STEP else training.train_epoch(step, batch)
        program = jax.jit(train, donate_argnums=0).lower(state, data).compile()

    def run():
        nonlocal state
        state, metrics = program(state, data)
        return jax.block_until_ready((state, metrics))

    return run


def terms(network: str) -> tuple[int, int]:
    """Distances of the AdderNet and products of both networks for one batch, forward."""
    model, shape, batch, _ = NETWORKS[network]
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def multiplications(arithmetic):
        net = model(arithmetic=arithmetic)
        variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), images)
        counts = count(lambda v, x: net.apply(v, x, train=False), variables, images)
        return sum(counts.multiplications.values())

    products = multiplications(ADDER)
    return batch * (multiplications(FLOAT) - products), batch * products
