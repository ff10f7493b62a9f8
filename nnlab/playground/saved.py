"""Lessons in Python: the page's network, data and training, and networks that the page has saved.

    lesson = load("network.json")       # written by the page's button "Save"
    lesson = train(lesson, steps=100)   # the same numbers as 100 steps in the page
    outputs = lesson.model.apply(lesson.variables, lesson.inputs)

The page computes with functions printed from nnlab and sums in another order, so numbers agree up
to the last digits of float32. A step at which a rounding or a sign falls to the other side may be
another one; the tests say how rare that is.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError, check_count
from nnlab.paths import reading, user_path
from nnlab.playground import data
from nnlab.playground.network import (
    FEATURES,
    LOSSES,
    OPTIMIZERS,
    REGRESSION,
    Layer,
    Settings,
    network,
    optimizer,
)
from nnlab.training import State, init, train_step

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A network in training.

    Attributes:
        settings: what it was made from.
        state: of the training (`nnlab.training.State`).
        inputs, targets: the training set, [n, inputs] and [n, outputs], float32.
        epoch, at: the epoch, and how many of its examples were seen.
        own: points [x, y, label] of one's own, for `data="own"`.
    """

    settings: Settings
    state: State
    inputs: np.ndarray
    targets: np.ndarray
    epoch: int = 0
    at: int = 0
    own: tuple[tuple[float, ...], ...] = ()

    @property
    def model(self) -> nn.Module:
        """The network."""
        return network(self.settings)

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.state.params, "batch_stats": self.state.batch_stats}


def begin(settings: Settings, own: Sequence[Sequence[float]] = ()) -> Lesson:
    """Return the lesson that the page begins with these settings.

    Raises:
        InputError: the page has no such settings, or there are no points.
    """
    settings.check()
    inputs, targets = _examples(settings, own)
    model, rule = network(settings), optimizer(settings)
    state = init(jax.random.key(settings.seed), model, rule, inputs[:1])
    params = {name: dict(arrays) for name, arrays in state.params.items()}
    arithmetics = [*(layer.arithmetic for layer in settings.layers), settings.last]
    for number, arithmetic in enumerate(arithmetics, 1):
        layer = params[f"layer{number}"]
        [kernel] = [name for name in layer if name != "bias"]
        fan_in, fan_out = layer[kernel].shape
        if settings.start == "zeros":
            layer[kernel] = jnp.zeros_like(layer[kernel])
        else:
            layer[kernel] = data.start(arithmetic, fan_in, fan_out, number, settings.seed)
    state = state._replace(params=params, opt_state=rule.init(params))
    return Lesson(settings, state, inputs, targets, own=tuple(map(tuple, own)))


def train(lesson: Lesson, steps: int) -> Lesson:
    """Return the lesson after some steps, each on the next batch.

    Raises:
        InputError: `steps` is not a positive integer.
    """
    check_count("steps", steps)
    step = _step(lesson.settings)
    state, epoch, at = lesson.state, lesson.epoch, lesson.at
    count = len(lesson.inputs)
    order = data.order(count, lesson.settings.seed, data.ORDER + epoch)
    for _ in range(steps):
        chosen = order[at : at + lesson.settings.batch]
        state, _ = step(state, (lesson.inputs[chosen], lesson.targets[chosen]))
        at += len(chosen)
        if at >= count:
            epoch, at = epoch + 1, 0
            order = data.order(count, lesson.settings.seed, data.ORDER + epoch)
    return dataclasses.replace(lesson, state=state, epoch=epoch, at=at)


@functools.lru_cache(16)
def _step(settings: Settings) -> Any:
    loss = LOSSES[settings.loss]
    step = train_step(network(settings), optimizer(settings), loss, metrics=lambda *_: {})
    return jax.jit(step)


def load(path: str | os.PathLike[str]) -> Lesson:
    """Return the lesson in a JSON file that the page has saved.

    Raises:
        InputError: the file cannot be read, or is none of the page's.
    """
    with reading(path):
        text = user_path(path).read_bytes()
    try:
        saved = json.loads(text)
        if saved["nnlab_playground"] != FORMAT:
            raise InputError(
                f"{path} is of the format {saved['nnlab_playground']}, expected {FORMAT}."
            )
        return filled(begin(settings_of(saved["settings"]), saved["own"]), saved)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path} is not a network that the playground has saved ({error!r})."
        ) from error


def settings_of(tree: Any) -> Settings:
    """Return the settings in the page's tree; names that Python does not need are left out."""
    known = {field.name for field in dataclasses.fields(Settings)}
    values = {name: value for name, value in tree.items() if name in known}
    values["layers"] = tuple(Layer(**layer) for layer in values["layers"])
    values["inputs"] = tuple(values["inputs"])
    return Settings(**values)


def filled(lesson: Lesson, saved: Any) -> Lesson:
    """Return a lesson of the same settings whose numbers are those of the page's tree."""
    fields = _state_fields(lesson.settings.optimizer)

    def like(leaf: jax.Array, numbers: Any) -> jax.Array:
        return jnp.asarray(numbers, leaf.dtype).reshape(leaf.shape)

    def weights(path: Any, leaf: jax.Array) -> jax.Array:
        layer, name = _place(path)
        return like(leaf, saved["layers"][layer][name])

    def moments(path: Any, leaf: jax.Array) -> jax.Array:
        field = next(key.name for key in reversed(path) if isinstance(key, _Attribute))
        named = [key for key in path if getattr(key, "key", None) in lesson.state.params]
        layer, name = _place(path) if named else (0, "w")  # counts are those of all arrays
        return like(leaf, saved["layers"][layer]["state"][name][fields.index(field)])

    mapped = jax.tree_util.tree_map_with_path
    state = lesson.state._replace(
        step=jnp.int32(saved["step"]),
        params=mapped(weights, lesson.state.params),
        batch_stats=mapped(weights, lesson.state.batch_stats),
        opt_state=mapped(moments, lesson.state.opt_state),
    )
    return dataclasses.replace(lesson, state=state, epoch=saved["epoch"], at=saved["at"])


_Attribute = jax.tree_util.GetAttrKey


def _place(path: Any) -> tuple[int, str]:
    """The layer and the page's name of an array, such as (0, "w") for layer1/kernel."""
    layer, name = (key.key for key in path[-2:])
    known = {"bias": "bias", "scale": "scale", "mean": "mean", "var": "variance"}
    return int(layer.removeprefix("layer").removeprefix("norm")) - 1, known.get(name, "w")


def _state_fields(name: str) -> list[str]:
    """The fields of an optimiser's state in the order of its leaves."""
    state = OPTIMIZERS[name](0.1).init(jnp.ones(3))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return [next(k.name for k in reversed(path) if isinstance(k, _Attribute)) for path in paths]


def _examples(settings: Settings, own: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """The training set: inputs and targets."""
    if settings.data == "own":
        if not own:
            raise InputError("There are no points of one's own; expected one or more.")
        numbers = np.asarray(own, np.float32).reshape(len(own), 3)
        xy, labels = numbers[:, :2], numbers[:, 2]
        if labels.max() >= settings.classes:
            raise InputError(
                f"The points are of {int(labels.max()) + 1} classes, expected {settings.classes}."
            )
    else:
        xy, labels = data.data(settings)
    count = max(1, len(xy) * settings.share // 100)
    xy, labels = xy[:count], labels[:count]
    chosen = [FEATURES.index(name) for name in settings.inputs]
    inputs = np.asarray(data.features(jnp.asarray(xy)))[chosen].T
    if settings.data in REGRESSION:
        return inputs, labels[:, None].astype(np.float32)
    targets = np.eye(settings.outputs, dtype=np.float32)[labels.astype(int)]
    return inputs, 2 * targets - 1 if settings.output in ("tanh", "hard_tanh") else targets
