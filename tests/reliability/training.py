"""A small run for the tests of this folder, with everything in it that a resumed run can get wrong.

Dropout, BatchNorm, an adder layer, random crops, an order of images for each epoch, momentum and a
learning rate that depends on the step. It says on standard output when it starts to compile, to
take steps and to evaluate, and at its end, as JSON, the SHA-256 of the final state and the history
without times. It can be told to be slow, to stop itself, or to meet a NaN.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import signal
import time
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import io_callback

from nnlab import runs, training
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.layers.normalization import batch_norm
from nnlab.optim import adder_recipe
from nnlab.runs.fields import Positive
from nnlab.runs.script import run
from nnlab.training.feeds import Feed
from nnlab.training.steps import Batch
from nnlab.vision import random_crop

IMAGES, BATCH, STEPS_PER_EPOCH = 26, 6, 4
NAME = "small"


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    epochs: int = 5
    learning_rate: Positive = 0.1
    seed: int = 0
    on_nan: Literal["stop", "skip"] = "stop"
    checkpoint_steps: int | None = None
    keep: int = 2
    test_images: int = 7
    pause: float = 0.0
    """Seconds between programs, in Python."""
    step_seconds: float = 0.0
    """That each step takes at least, inside its program."""
    evaluation_seconds: float = 0.0
    """That each piece of an evaluation takes at least, inside its program."""
    stop_after: int | None = None
    """Programs after which the process sends itself a signal."""
    stop_by: Literal["SIGTERM", "SIGKILL"] = "SIGTERM"
    nan_at: int | None = None
    """The step, counted from 1, that meets a NaN in one gradient."""
    nan_steps: int = 1
    """How many steps in a row meet one."""


# What may be otherwise in a process that resumes: it has no effect on the numbers.
MAY_DIFFER = {field.name for field in dataclasses.fields(Config)} - {
    *("epochs", "learning_rate", "seed", "on_nan", "test_images")
}


@jax.custom_vjp
def spoil(scale: jax.Array, mark: jax.Array) -> jax.Array:
    """The first argument; one number of its cotangent is NaN where the mark is one."""
    return scale


def _spoil_bwd(mark, g):
    return g.at[1].set(jnp.where(mark == 1, jnp.nan, g[1])), jnp.zeros_like(mark)


spoil.defvjp(lambda scale, mark: (scale, mark), _spoil_bwd)


class Net(nn.Module):
    """Of images [batch, 8, 8, 1], or with a second channel that marks those that bring a NaN."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        mark = x[..., 1:].max(initial=0.0)
        x = nn.relu(batch_norm(train)(FLOAT.conv(4, (3, 3))(x[..., :1])))
        x = nn.relu(batch_norm(train)(ADDER.conv(4, (3, 3))(x))).mean(axis=(1, 2))
        x = x * spoil(self.param("scale", nn.initializers.ones, (4,)), mark)
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(x))


def images(count: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    pixels = jnp.asarray(rng.normal(size=(count, 8, 8, 1)), jnp.float32)
    return pixels, jnp.asarray(rng.integers(0, 3, count), jnp.int32)


def crop(key: jax.Array, images: jax.Array) -> jax.Array:
    return random_crop(key, images, padding=1)


def marked(step: Any, config: Config) -> Any:
    """The step, slower, on images with their marks."""

    def of_marked(state, batch):
        if config.step_seconds:
            io_callback(lambda: time.sleep(config.step_seconds), None)
        if config.nan_at is None:
            return step(state, batch)
        pixels, labels = batch
        before = state.step - (config.nan_at - 1)
        mark = jnp.full_like(pixels, (before >= 0) & (before < config.nan_steps))
        return step(state, (jnp.concatenate([pixels, mark], -1), labels))

    return of_marked


def slowed(evaluate: Any, seconds: float) -> Any:
    def after_a_while(state, data):
        if seconds:
            io_callback(lambda: time.sleep(seconds), None)
            jax.debug.callback(lambda: print("evaluating", flush=True))
        return evaluate(state, data)

    return after_a_while


def talking(feed: Feed, config: Config) -> Feed:
    """The feed; its programs say where they start, and are followed by a pause."""

    @contextlib.contextmanager
    def compile(step, state, mesh):
        print("compiling", flush=True)
        with feed.compile(step, state, mesh) as advance:
            programs = itertools.count(1)

            def told(state, count):
                print("step", int(state.step), flush=True)
                made = advance(state, count)
                time.sleep(config.pause)
                if next(programs) == config.stop_after:
                    os.kill(os.getpid(), signal.Signals[config.stop_by])
                return made

            yield told

    return feed._replace(compile=compile)


def sha256(state: Any) -> str:
    """Of every leaf's path, dtype, shape and bytes, those of keys too."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        described = f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape} "
        digest.update(described.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def parts(config: Config) -> tuple[training.State, Any]:
    """The state at the start, and the step."""
    optimizer = adder_recipe(config.epochs * STEPS_PER_EPOCH, config.learning_rate)
    if config.on_nan == "skip":
        optimizer = optax.apply_if_finite(optimizer, max_consecutive_errors=10)
    state = training.init(jax.random.key(config.seed), Net(), optimizer, images(1, 1)[0])
    return state, marked(training.train_step(Net(), optimizer, augment=crop), config)


def main(config: Config) -> None:
    state, step = parts(config)
    with config.open(*MAY_DIFFER) as record:
        trained = runs.fit(
            NAME,
            state,
            step,
            slowed(training.evaluation(Net()), config.evaluation_seconds),
            talking(training.in_memory(images(IMAGES, 1), BATCH), config),
            images(config.test_images, 2),
            epochs=config.epochs,
            folder=record.folder,
            checkpoint_steps=config.checkpoint_steps,
            keep=config.keep,
        )
    history = {key: values for key, values in trained.history.items() if key != "seconds"}
    print(json.dumps({"sha256": sha256(trained.last), "history": history}), flush=True)


if __name__ == "__main__":
    run(main, Config)
