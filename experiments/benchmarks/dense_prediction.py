"""How fast are YOLO v3 tiny, U-Net and DCGAN, in float and in adders, against PyTorch?

Answer: Not measured yet.

Each network runs here in float and in adders (all layers but the first and the last), and in
PyTorch in both layouts of its images. Times are medians of rounds in which each body is called in
turn after an untimed call, one process on one core; "of PyTorch" is the time over that of its
faster layout. A training step of YOLO v3 tiny (416 pixels, 80 classes) and of U-Net (16 features in
the first level, 256 pixels, 2 classes) takes SGD with momentum and the mean square of the outputs,
so that networks alone are compared; "with its loss" is YOLO's step here with its own. DCGAN's
(32 pixels, colour) is one update of the critic and one of the generator, with Adam; its inference
makes a batch of images. BatchNorm stays a layer in inference on both sides.

Goals: float at most 1.1 times PyTorch's time, adders at most 1.6 times.

    pip install -e '.[benchmark]'
    python experiments/benchmarks/dense_prediction.py
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax

from nnlab import kernels, training
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError, needs
from nnlab.models import DCGANCritic, DCGANGenerator, YOLOv3Tiny
from nnlab.runs import Run
from nnlab.runs.fields import PositiveInt, SomeOf
from nnlab.runs.script import run
from nnlab.training.adversarial import NON_SATURATING
from nnlab.training.two_player import generate, init_players, two_player_step
from nnlab.vision.datasets.labelled import Boxes
from nnlab.vision.detection.detectors import total_loss
from nnlab.vision.detection.yolo_detectors import yolo_v3_tiny_detector
from nnlab.vision.segmentation import UNet

Call = Callable[[], object]
WHAT = ("YOLO v3 tiny", "U-Net", "DCGAN")
ARITHMETICS = {"nnlab float": FLOAT, "nnlab adder": ADDER}
LAYOUTS = {"PyTorch": False, "PyTorch channels last": True}
LATENTS = 100


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/dense_prediction"
    what: Annotated[tuple[str, ...], SomeOf(WHAT)] = WHAT
    yolo_size: PositiveInt = 416
    unet_size: PositiveInt = 256
    batch: PositiveInt = 4
    """Images of YOLO and U-Net."""
    gan_batch: PositiveInt = 64
    repeats: PositiveInt = 9
    """Rounds of timing."""


def main(config: Config) -> None:
    with needs("benchmark"):
        import torch_dense  # noqa: F401
    if config.yolo_size % 32 or config.unet_size % 16:
        sizes = f"{config.yolo_size} and {config.unet_size}"
        raise InputError(f"sizes must be multiples of 32 and of 16, not {sizes}.")
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # calls are waited for, as PyTorch's
    with config.open() as record:
        record.result({"kernels": kernels.status(), "load": os.getloadavg()})
        for what in config.what:
            inference, steps = calls(what, config)
            for name, of in (("inference", inference), ("training step", steps)):
                median = measure.alternately(of, config.repeats)
                peer = min(median[layout] for layout in LAYOUTS)
                for body, seconds in median.items():
                    row: dict[str, Any] = {"network": what, "what": name, "body": body}
                    row |= {"milliseconds": 1e3 * seconds, "of PyTorch": seconds / peer}
                    record.row(row)
                    print(f"{what}, {name}, {body}: {1e3 * seconds:.4g} ms, {seconds / peer:.3g}")
        record.result({"load after": os.getloadavg()})


def calls(what: str, config: Config) -> tuple[dict[str, Call], dict[str, Call]]:
    """Return the inferences and the training steps of a network, by body."""
    import torch_dense

    rng, inference, steps = np.random.default_rng(0), {}, {}
    if what == "DCGAN":
        images = rng.uniform(-1, 1, (config.gan_batch, 32, 32, 3)).astype(np.float32)
        for body, arithmetic in ARITHMETICS.items():
            inference[body], steps[body] = our_gan(arithmetic, images)
        for body, last in LAYOUTS.items():
            inference[body], steps[body] = torch_dense.gan_calls(images, LATENTS, 64, last)
        return inference, steps
    size = config.yolo_size if what == "YOLO v3 tiny" else config.unet_size
    images = rng.uniform(0, 1, (config.batch, size, size, 3)).astype(np.float32)
    for body, arithmetic in ARITHMETICS.items():
        if what == "YOLO v3 tiny":
            model: Any = YOLOv3Tiny(arithmetic=arithmetic)
            detector = yolo_v3_tiny_detector((size, size))
            steps[f"{body} with its loss"] = our_step(
                model, images, objects(rng, config.batch, size), total_loss(detector)
            )
        else:
            model = UNet(2, features=16, arithmetic=arithmetic, norm_up=arithmetic.needs_norm)
        inference[body] = our_inference(model, images)
        steps[body] = our_step(model, images, np.zeros(config.batch), mean_squares)
    kind = torch_dense.YOLOv3Tiny if what == "YOLO v3 tiny" else torch_dense.UNet
    for body, last in LAYOUTS.items():
        inference[body], steps[body] = torch_dense.network_calls(kind, images, last)
    return inference, steps


def mean_squares(outputs: Any, labels: Any) -> jax.Array:
    return sum((each**2).mean() for each in jax.tree.leaves(outputs))  # pyright: ignore


def objects(rng: np.random.Generator, images: int, size: int, most: int = 30) -> Boxes:
    low = rng.uniform(0, 0.8 * size, (images, most, 2))
    corners = np.concatenate([low, low + rng.uniform(8, 0.2 * size, low.shape)], -1)
    there = np.ones((images, most), bool)
    labels = rng.integers(0, 80, (images, most)).astype(np.int32)
    return Boxes(corners.astype(np.float32), labels, there, ~there)


def our_inference(model: Any, images: np.ndarray) -> Call:
    x = jnp.asarray(images)
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
    infer = jax.jit(model.apply).lower(variables, x).compile()
    return lambda: jax.block_until_ready(infer(variables, x))


def our_step(model: Any, images: np.ndarray, labels: Any, loss: Any) -> Call:
    optimizer = optax.sgd(1e-3, momentum=0.9)
    batch = jax.device_put((images, labels))
    state = training.init(jax.random.key(0), model, optimizer, images)
    made = training.train_step(model, optimizer, loss, metrics=lambda outputs, labels: {})
    return advancing(made, state, batch)


def our_gan(arithmetic: Any, images: np.ndarray) -> tuple[Call, Call]:
    size, channels = images.shape[1], images.shape[3]
    generator = DCGANGenerator(size, channels, 64, arithmetic=arithmetic)
    critic = DCGANCritic(64, arithmetic=arithmetic)
    optimizers = (optax.adam(2e-4, 0.5), optax.adam(2e-4, 0.5))
    key, latents = jax.random.key(0), jax.random.normal(jax.random.key(1), (len(images), LATENTS))
    players = init_players(key, generator, critic, optimizers, latents[:2], images[:2])
    make = jax.jit(functools.partial(generate, generator)).lower(players.generator, latents)
    make = make.compile()
    step = two_player_step(generator, critic, optimizers, NON_SATURATING, latents=LATENTS)
    batch = jax.device_put((images, np.zeros(len(images), np.int32)))
    own = jax.tree.map(jnp.copy, players.generator)
    return (lambda: jax.block_until_ready(make(own, latents))), advancing(step, players, batch)


def advancing(step: Any, state: Any, batch: Any) -> Call:
    """Return a call that takes the next step, in the memory of the state before."""
    program = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    states = [state]

    def call() -> object:
        after, _ = program(states.pop(), batch)
        states.append(jax.block_until_ready(after))
        return None

    return call


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):  # one thread of XLA, which starts after it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    run(main, Config)
