"""What the layers of a trained network are and what they get, recorded on example images.

Nothing in a model has to be written for it: `nnlab.deployment.program` sees every layer called.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.deployment.program import Program, traced
from nnlab.deployment.recognition import Known, Layer, recognized
from nnlab.deployment.texts import first_of, inputs_of
from nnlab.errors import InputError
from nnlab.optim.freezing import path_name

QUANTILE = 0.9997  # of the redistribution paper's code
EXAMPLES = 256  # images that means are taken over
_BATCH = 128
_TEXTS = 16  # texts of a batch, whose values are many


class Record(NamedTuple):
    """A model's program with what was seen of it.

    Attributes:
        program: for images of the shape of the first batch.
        calls: its layers in order, by the number of what they give.
        most: largest abs of every value that is not inside a layer, by its number.
    """

    program: Program
    calls: dict[int, Known]
    most: dict[int, float]


def recorded(model: nn.Module, variables: Any, images: Any, quantile: float = QUANTILE) -> Record:
    """The program of `model`, its layers and their ranges.

    Args:
        model: of convolutions, dense layers, BatchNorm and functions between them.
        variables: its trained "params" and "batch_stats".
        images: for calibration [n, height, width, channels] or [n, features], as the model takes
            them; or integers of texts [n, time], or `Tokens`.
        quantile: of an input that a range leaves in, from 0.5 to 1.

    Raises:
        InputError: a layer is of another kind, the variables or images do not fit or are not
            finite, or no image, images of zeros or no sensible quantile is given.
    """
    _check(variables, images, quantile)
    count, size = len(inputs_of(images)["images"]), _TEXTS if _are_texts(images) else _BATCH
    batches = [first_of(images, start, start + size) for start in range(0, count, size)]
    program = traced(model, variables, jax.tree.map(jnp.asarray, batches[0]))

    @jax.jit
    def seen(variables, images):
        same = jax.tree.map(jnp.shape, images) == jax.tree.map(np.shape, batches[0])
        here = program if same else traced(model, variables, images)
        values = here.evaluate(variables, images)
        layers, masks = {}, []
        for step in here.outline:
            if step.outputs[0] in here.layers:
                x, y = values[step.inputs[0]], values[step.outputs[0]]
                value = y if here.layers[step.outputs[0]].normalizes else x
                mean = y.mean(axis=tuple(range(y.ndim - 1)))
                layers[step.outputs[0]] = value, mean, x[:1], y[:1]
            if step.op == "attention" and len(step.inputs) == 5:
                masks.append(_hides_padding(values[step.inputs[3]], inputs_of(images)))
        outer = [number for step in here.outline for number in step.outputs]
        most = {n: jnp.abs(values[n]).max() for n in outer if _is_numbers(values[n])}
        return layers, most, jnp.all(jnp.asarray(masks or True))

    ranges: dict[int, list[np.ndarray]] = {}
    means: dict[int, Any] = {}
    largest: dict[int, float] = {}
    calls: dict[int, Known] = {}
    names = _names(program)
    for start, batch in enumerate(batches):
        layers, most, hides = seen(variables, jax.tree.map(jnp.asarray, batch))
        if not hides:
            raise InputError("an attention has a mask of its own, expected one of padding alone.")
        for number, (value, mean, x, y) in layers.items():
            if start == 0:
                call = program.layers[number]
                own, taken, given = call.variables(variables), np.asarray(x), np.asarray(y)
                calls[number] = recognized(names[number], call.module, own, taken, given)
            if start * size < EXAMPLES:
                share = len(inputs_of(batch)["images"]) / min(count, EXAMPLES)
                means[number] = means.get(number, 0.0) + np.asarray(mean, np.float64) * share
            places = [0, 1] if program.layers[number].normalizes else _places(quantile)
            ranges.setdefault(number, []).append(np.quantile(np.asarray(value), places))
        for number, value in most.items():
            largest[number] = max(largest.get(number, 0.0), float(value))
    pictures = (np.asarray(inputs_of(batch)["images"], float) for batch in batches)
    largest[program.images] = max(float(abs(array).max()) for array in pictures)
    for number, call in calls.items():
        lows, highs = np.min(ranges[number], axis=0), np.max(ranges[number], axis=0)
        if not isinstance(call, Layer):
            most = max(abs(lows[0]), abs(highs[-1]))
            calls[number] = dataclasses.replace(call, most=most)
            continue
        low, high, least, most = map(float, (min(lows[1], 0.0), highs[2], lows[0], highs[3]))
        seen_inputs: Any = dict(low=low, high=high, least=least, most=most, mean=means[number])
        calls[number] = dataclasses.replace(call, **seen_inputs)
    return Record(program, calls, largest)


def _are_texts(images: Any) -> bool:
    symbols = inputs_of(images)["images"]
    return np.ndim(symbols) == 2 and jnp.issubdtype(symbols.dtype, jnp.integer)


def _hides_padding(mask: jax.Array, given: dict[str, Any]) -> jax.Array:
    """Whether a mask leaves in what the lengths of texts count, and nothing else."""
    if "lengths" not in given:
        return jnp.all(mask)
    counts = jnp.arange(mask.shape[-1]) < given["lengths"][:, None, None, None]
    return jnp.all(mask == counts)


def _check(variables: Any, given: Any, quantile: float) -> None:
    images = inputs_of(given)["images"]
    if not 0.5 <= quantile <= 1 or np.ndim(images) == 0 or len(images) == 0:
        raise InputError(
            f"calibration takes at least one image and a quantile from 0.5 to 1, "
            f"not {len(images) if np.ndim(images) else 0} images and {quantile}."
        )
    if np.ndim(images) not in (2, 4):
        raise InputError(
            "calibration takes images [n, height, width, channels] or [n, features], not of shape "
            f"{np.shape(images)}."
        )
    dtype = getattr(images, "dtype", type(images).__name__)
    if not (hasattr(images, "dtype") and jnp.issubdtype(images.dtype, jnp.number)):
        raise InputError(f"calibration takes an array of numbers, not {dtype}.")
    most = np.abs(np.asarray(images, np.float32)).max()
    if not np.isfinite(most):
        raise InputError("an image has a number that is not finite, expected finite ones.")
    if most < np.finfo(np.float32).tiny:
        raise InputError("the images for calibration hold nothing but 0, expected such as come.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            raise InputError(
                f"{path_name(path)} has a number that is not finite, expected finite ones."
            )


def _names(program: Program) -> dict[int, str]:
    """Name each layer by the number of what it gives, and number further calls of one layer."""
    names: dict[int, str] = {}
    for number, call in program.layers.items():
        called = sum(program.layers[other].name == call.name for other in names)
        names[number] = f"{call.name}_{called}" if called else call.name
    return names


def _is_numbers(value: Any) -> bool:
    return value.ndim > 0 and jnp.issubdtype(value.dtype, jnp.number)


def _places(quantile: float) -> list[float]:
    return [0, 1 - quantile, quantile, 1]
